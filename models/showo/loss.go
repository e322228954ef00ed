package showo

import (
	"cmp"
	"math"
	"slices"

	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/nn"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Ignore is the label of a position that is no target.
const Ignore int32 = -100

// Masked is a training image of which some tokens are hidden.
type Masked struct {
	IDs    []int32 // [N], the mask's id where hidden
	Labels []int32 // [N], the hidden ids; Ignore elsewhere
	Prob   float32 // share of tokens that was to be hidden
	Count  int     // tokens hidden
}

// MaskTokens hides image tokens for training. ids holds N vocabulary ids (Config.ImageIDs); t in [0, 1) draws the share
// to hide, order [N] which ones. With
//
//	prob = max(cos(pi/2 t), minRate), n = max(1, round_half_even(N prob))
//
// position j is hidden if argsort(order)[j] < n.
func MaskTokens(ids []int32, maskID int32, t float32, order []float32, minRate float32) Masked {
	prob := max(float32(math.Cos(float64(float32(t*float32(math.Pi*.5))))), minRate)
	m := Masked{IDs: slices.Clone(ids), Labels: make([]int32, len(ids)), Prob: prob}
	m.Count = max(1, int(math.RoundToEven(float64(float32(len(ids))*prob))))
	sorted := make([]int, len(ids))
	for i := range sorted {
		sorted[i] = i
	}
	slices.SortStableFunc(sorted, func(a, b int) int { return cmp.Compare(order[a], order[b]) })
	for j, id := range ids {
		m.Labels[j] = Ignore
		if sorted[j] < m.Count {
			m.IDs[j], m.Labels[j] = maskID, id
		}
	}
	return m
}

// DrawMask is MaskTokens with random numbers from a stream: one for the share, then one a token.
func DrawMask(ids []int32, maskID int32, minRate float32, rng *prng.Stream) Masked {
	t := rng.Float32()
	order := make([]float32, len(ids))
	rng.FillUniform(order)
	return MaskTokens(ids, maskID, t, order, minRate)
}

// Batch is a joint training batch: rows of text-to-image, then of language modelling, then of understanding.
type Batch struct {
	IDs, Labels  *Node // [R, L] int32
	Allow        *Node // [R, L, L]
	T2I, LM, MMU int   // rows of each task; the three add up to R
	CoefT2I      float64
	CoefLM       float64
	CoefMMU      float64
	MaxSeqLength int // S of the t2i rows: the image starts at column S+2
}

// Losses are scalars; a task without rows has loss 0. Total is the weighted sum.
type Losses struct{ T2I, LM, MMU, Total *Node }

// Loss computes the three losses of Show-o, each a mean cross-entropy over its targets with the softmax over the whole
// vocabulary. Text-to-image rows are not shifted and count from soi on; the others predict the next id.
func Loss(s graphx.Scope, cfg Config, b Batch) Losses {
	rows := func(from, n, imageAt int) (*Node, *Node) {
		cut := func(x *Node) *Node {
			ranges := []SliceAxisSpec{AxisRange(from, from+n)}
			for range x.Rank() - 1 {
				ranges = append(ranges, AxisRange())
			}
			return Slice(x, ranges...)
		}
		return Hidden(s, cfg, Sequence{IDs: cut(b.IDs), Allow: cut(b.Allow), ImageAt: imageAt}), cut(b.Labels)
	}
	zero := ScalarZero(b.IDs.Graph(), dtypes.Float32)
	out := Losses{zero, zero, zero, zero}
	l := b.IDs.Shape().Dimensions[1]
	if b.T2I > 0 {
		h, labels := rows(0, b.T2I, b.MaxSeqLength+2)
		from := b.MaxSeqLength + 1
		out.T2I = meanOverTargets(s, cfg, columns(h, from, l), columns(labels, from, l))
	}
	next := func(from, n, imageAt int) *Node {
		h, labels := rows(from, n, imageAt)
		return meanOverTargets(s, cfg, columns(h, 0, l-1), columns(labels, 1, l))
	}
	if b.LM > 0 {
		out.LM = next(b.T2I, b.LM, 0)
	}
	if b.MMU > 0 {
		out.MMU = next(b.T2I+b.LM, b.MMU, 2)
	}
	out.Total = Add(MulScalar(out.T2I, b.CoefT2I), Add(MulScalar(out.LM, b.CoefLM), MulScalar(out.MMU, b.CoefMMU)))
	return out
}

// T2ILoss is the text-to-image loss of rows that are padded on the left: ids and labels [B, L] int32, pads [B] int32 the
// number of padding ids of each row, L = S+1 + N+2. The mask is made in the graph.
func T2ILoss(s graphx.Scope, cfg Config, ids, labels, pads *Node) *Node {
	loss, n := imageSums(s, cfg, ids, labels, pads, 1)
	return Div(ReduceAllSum(loss), MaxScalar(ReduceAllSum(n), 1))
}

// T2ILogProbs returns, for rows as those of T2ILoss, the sum over the targets of log softmax(logits)[label] over the
// whole vocabulary, and the number of targets: both [B] float32.
func T2ILogProbs(s graphx.Scope, cfg Config, ids, labels, pads *Node) (sum, n *Node) {
	each, n := T2ITokenLogProbs(s, cfg, ids, labels, pads)
	return ReduceSum(each, -1), n
}

// T2ITokenLogProbs returns, for rows as those of T2ILoss, log softmax(logits)[label] of every column from soi to eoi, 0
// where there is no target, [B, N+2], and the number of targets, [B], float32.
func T2ITokenLogProbs(s graphx.Scope, cfg Config, ids, labels, pads *Node) (each, n *Node) {
	loss, count := imageSums(s, cfg, ids, labels, pads, 1)
	return Neg(loss), ReduceSum(count, -1)
}

// T2IPredictions returns, for rows as those of T2ILoss, log softmax(logits) over the whole vocabulary from soi to eoi,
// [B, N+2, V], and 1 where there is a target, [B, N+2], float32.
func T2IPredictions(s graphx.Scope, cfg Config, ids, labels, pads *Node) (logProbs, isTarget *Node) {
	l := ids.Shape().Dimensions[1]
	text := l - cfg.NumVQTokens - 2
	h := Hidden(s, cfg, Sequence{IDs: ids, Allow: omniAllow(cfg, pads, text, 1), ImageAt: text + 1})
	logits := Head(s, cfg, columns(h, text, l))
	labels = columns(labels, text, l)
	isTarget = ConvertDType(GreaterOrEqual(labels, ZerosLike(labels)), dtypes.Float32)
	return Sub(logits, InsertAxes(nn.LogSumExp(logits), -1)), isTarget
}

// imageSums is the cross-entropy of the last image of rows that hold so many.
func imageSums(s graphx.Scope, cfg Config, ids, labels, pads *Node, images int) (loss, isTarget *Node) {
	l, block := ids.Shape().Dimensions[1], cfg.NumVQTokens+2
	text, from := l-images*block, l-block
	h := Hidden(s, cfg, Sequence{IDs: ids, Allow: omniAllow(cfg, pads, text, images), ImageAt: text + 1, Images: images})
	return crossEntropy(s, cfg, columns(h, from, l), columns(labels, from, l))
}

// omniAllow is the attention mask [B, L, L] (boolean) of rows with pads [B] on the left, the text in columns 0..text-1 and
// images of N+2 columns after it, L = text + images (N+2): text is causal and sees no pads, an image sees the whole text,
// the images before it, and itself. Pad rows see what lies before them, which nobody reads.
func omniAllow(cfg Config, pads *Node, text, images int) *Node {
	block := cfg.NumVQTokens + 2
	l := text + images*block
	shape := shapes.Make(dtypes.Int32, pads.Shape().Dimensions[0], l, l)
	row, col := Iota(pads.Graph(), shape, 1), Iota(pads.Graph(), shape, 2)
	first := BroadcastToShape(InsertAxes(pads, -1, -1), shape)
	last := row // column that a row sees up to
	for i := range images {
		from := Scalar(pads.Graph(), dtypes.Int32, text+i*block)
		last = Where(GreaterOrEqual(row, from), BroadcastToShape(AddScalar(from, block-1), shape), last)
	}
	return LogicalAnd(LessOrEqual(col, last), LogicalOr(GreaterOrEqual(col, first), LessThan(row, first)))
}

func columns(x *Node, from, to int) *Node {
	if x.Rank() == 2 {
		return Slice(x, AxisRange(), AxisRange(from, to))
	}
	return Slice(x, AxisRange(), AxisRange(from, to), AxisRange())
}

func meanOverTargets(s graphx.Scope, cfg Config, h, labels *Node) *Node {
	loss, n := crossEntropy(s, cfg, h, labels)
	return Div(ReduceAllSum(loss), MaxScalar(ReduceAllSum(n), 1))
}

// crossEntropy of h [B, P, D] against labels [B, P]: -log softmax(head(h))[label], 0 where the label is Ignore, and
// 1 where it is not: both [B, P].
func crossEntropy(s graphx.Scope, cfg Config, h, labels *Node) (loss, isTarget *Node) {
	logits := Head(s, cfg, h)
	target := GreaterOrEqual(labels, ScalarZero(labels.Graph(), labels.DType()))
	index := Iota(labels.Graph(), shapes.Make(labels.DType(), logits.Shape().Dimensions...), 2)
	hit := Equal(index, BroadcastToShape(InsertAxes(labels, -1), index.Shape()))
	label := ReduceSum(Where(hit, logits, ZerosLike(logits)), -1)
	isTarget = ConvertDType(target, dtypes.Float32)
	return Mul(Sub(nn.LogSumExp(logits), label), isTarget), isTarget
}
