package magvit

import (
	"imagecot/internal/graphx"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// LossMetrics names the metrics of TrainLoss in their order. Entropies are in nats a bit, at most ln 2; squared_error
// is the plain mean over pixels and colours, in the range -1..1.
var LossMetrics = []string{"reconstruction", "commitment", "token_entropy", "batch_entropy", "squared_error"}

// foregroundWeight is how much more a pixel counts that differs from its image's corner, the background.
const foregroundWeight = 4

// TrainLoss is the tokenizer's loss for images x [B, H, W, 3] in [-1, 1] and the entropy term's weight w, a scalar.
// It reads the weights below "encoder" and "decoder". Published is no training code but the quantiser's two terms, so the recipe is ours:
//
//	mean of q (e^2 + .5 |e|) + .02 mean (z - sign z)^2 + w (mean H(p) - mean H(mean of p over the batch's tokens))
//
// with e the error, q the pixel weights (4 where a pixel differs from the corner pixel, scaled to mean 1),
// p = sigmoid(4 z) and H the entropy of a bit. Gradients pass the sign unchanged.
func TrainLoss(s graphx.Scope, cfg Config, x, w *Node) (loss *Node, metrics []*Node) {
	z := Encode(s, cfg, x)
	code := quantised(z)
	y := Decode(s, cfg, Add(z, StopGradient(Sub(code, z))))
	e := Sub(y, x)
	squared := Square(e)
	each := Add(squared, MulScalar(Abs(e), .5))
	reconstruction := ReduceAllMean(Mul(each, pixelWeights(x)))
	commitment := ReduceAllMean(Square(Sub(z, StopGradient(code))))
	tokens, batch := bitEntropies(z)
	loss = Add(reconstruction, MulScalar(commitment, .02))
	loss = Add(loss, Mul(w, Sub(tokens, batch)))
	return loss, []*Node{reconstruction, commitment, tokens, batch, ReduceAllMean(squared)}
}

// quantised is 1 where z > 0 and -1 elsewhere, as the quantiser sees it; it has no gradient.
func quantised(z *Node) *Node {
	up := ConvertDType(GreaterThan(z, ZerosLike(z)), dtypes.Float32)
	return StopGradient(AddScalar(MulScalar(up, 2), -1))
}

// pixelWeights returns [B, H, W, 1] with mean 1 over the batch.
func pixelWeights(x *Node) *Node {
	corner := Slice(x, AxisRange(), AxisRange(0, 1), AxisRange(0, 1), AxisRange())
	distance := ReduceAndKeep(Abs(Sub(x, corner)), ReduceMax, -1)
	differs := ConvertDType(GreaterThan(distance, Scalar(x.Graph(), x.DType(), 1e-3)), x.DType())
	q := AddScalar(MulScalar(differs, foregroundWeight-1), 1)
	return StopGradient(Div(q, ReduceAllMean(q)))
}

// bitEntropies returns the mean entropy of single bits p = sigmoid(4 z), and the mean over channels of the entropy of
// p averaged over all tokens of the batch. With a = 4 z, H(p) = ln(1 + e^a) - a p.
func bitEntropies(z *Node) (tokens, batch *Node) {
	a := MulScalar(z, 4)
	p := Sigmoid(a)
	size := Abs(a)
	softplus := Add(MulScalar(Add(a, size), .5), Log1P(Exp(Neg(size))))
	tokens = ReduceAllMean(Sub(softplus, Mul(a, p)))
	m := ReduceMean(p, 0, 1, 2)
	nats := func(q *Node) *Node { return Mul(q, Log(AddScalar(q, 1e-6))) }
	batch = ReduceAllMean(Neg(Add(nats(m), nats(OneMinus(m)))))
	return tokens, batch
}
