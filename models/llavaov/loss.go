package llavaov

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"

	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// PackedInputs is a training batch: B images, each with S segments of T text positions. Every segment sees the system
// turn, the image rows and itself, as if it were asked alone; its positions start after the image rows. Short segments
// are padded on the right with targets of weight 0.
type PackedInputs struct {
	Pixels  *Node // [B, image, image, 3] in [-1, 1]: one tile an image, as "pad" makes it
	IDs     *Node // int32 [B, S, T]
	Targets *Node // int32 [B, S, T]: the id that follows
	Weights *Node // float32 [B, S, T]: what the target counts in the loss
	Answers *Node // float32 [B, S, T]: 1 where the target is yes or no as a verdict, else 0
	// Dense holds the targets of the dense head, or is nil.
	Dense *DenseInputs
}

// DenseInputs are classes of every patch, int32 [B, grid*grid] each; class 0 is no object.
type DenseInputs struct{ Shape, Colour, Place *Node }

// PackedOptions are the constants of a loss.
type PackedOptions struct {
	Prefix  []int32 // ids before the image rows
	Yes, No int32   // the ids of the verdicts
	// DenseWeight is what the sum of the dense head's three losses counts (tiny world: .5).
	DenseWeight float64
}

// PackedLosses are scalars, float32.
type PackedLosses struct {
	Loss     *Node // sum of Weights * -log p, plus DenseWeight * Dense
	Text     *Node // the part of Loss without the dense head
	Answer   *Node // mean of -log p over the verdicts
	Accuracy *Node // share of the verdicts whose logit lies above the other verdict's
	Dense    *Node // sum of three cross-entropies; nil without the dense head
}

// PackedLoss is the next-token cross-entropy of a packed batch. The scope is the whole model's.
func PackedLoss(s graphx.Scope, c Config, o PackedOptions, in PackedInputs) PackedLosses {
	d := in.IDs.Shape().Dimensions
	if len(d) != 3 || in.Pixels.Shape().Dimensions[0] != d[0] {
		panic(fmt.Errorf("llavaov: packed loss: ids %v, pixels %v", d, in.Pixels.Shape().Dimensions))
	}
	tower := Tower(s.In(towerPrefix[:len(towerPrefix)-1]), c.Vision, c.TowerLayers, in.Pixels, nil)
	rows := Project(s.In("model", "mm_projector"), tower)
	hidden := decodePacked(s, c, embedPrefix(s, o.Prefix, rows), embedLearned(s.In("model"), in.IDs))
	logits := Reshape(Logits(s, hidden, 0), d[0]*d[1]*d[2], -1)
	nll := NLL(logits, Reshape(in.Targets, -1))
	answers := Reshape(in.Answers, -1)
	out := PackedLosses{Text: ReduceAllSum(Mul(nll, Reshape(in.Weights, -1)))}
	out.Answer, out.Accuracy = verdictFigures(logits, nll, Reshape(in.Targets, -1), answers, o)
	out.Loss = out.Text
	if in.Dense != nil {
		out.Dense = denseLoss(s.In("dense_head"), tower, *in.Dense)
		out.Loss = Add(out.Loss, MulScalar(out.Dense, o.DenseWeight))
	}
	return out
}

// verdictFigures are the mean of nll [N] over the verdicts, answers float32 [N], and the share of them whose logit lies above
// the other verdict's: logits [N, V], targets int32 [N].
func verdictFigures(logits, nll, targets, answers *Node, o PackedOptions) (answer, accuracy *Node) {
	count := MaxScalar(ReduceAllSum(answers), 1)
	yes, no := column(logits, o.Yes), column(logits, o.No)
	isYes := ConvertDType(Equal(targets, Scalar(logits.Graph(), dtypes.Int32, o.Yes)), dtypes.Float32)
	margin := Mul(Sub(yes, no), AddScalar(MulScalar(isYes, 2), -1))
	right := ConvertDType(GreaterThan(margin, ZerosLike(margin)), dtypes.Float32)
	return Div(ReduceAllSum(Mul(nll, answers)), count), Div(ReduceAllSum(Mul(right, answers)), count)
}

// NLL is -log p of the targets: logits [N, V], targets int32 [N] -> [N].
func NLL(logits, targets *Node) *Node {
	v := logits.Shape().Dimensions[1]
	hot := OneHot(targets, v, dtypes.Float32)
	return Sub(nn.LogSumExp(logits), ReduceSum(Mul(logits, hot), -1))
}

func column(logits *Node, id int32) *Node {
	return Squeeze(Slice(logits, AxisRange(), AxisRange(int(id), int(id)+1)), -1)
}

// embedPrefix is the shared beginning of every conversation: system turn, image rows [B, N, D], newline.
func embedPrefix(s graphx.Scope, prefix []int32, rows *Node) *Node {
	d := rows.Shape().Dimensions
	words := embedLearned(s.In("model"), Const(rows.Graph(), prefix))
	newline := Reshape(s.Float32(newlineName, d[2]), 1, 1, d[2])
	return Concatenate([]*Node{
		BroadcastToDims(Reshape(words, 1, len(prefix), d[2]), d[0], len(prefix), d[2]), rows,
		BroadcastToDims(newline, d[0], 1, d[2]),
	}, 1)
}

// fewWords is the size of the word table up to which looking it up by a matrix product is the faster way to train: the
// gradient of a lookup is a serial loop on CPUs.
const fewWords = 4096

// embedLearned is Embed, by a product with one-hot rows where the word table is small.
func embedLearned(s graphx.Scope, ids *Node) *Node {
	table := s.Float32("embed_tokens.weight")
	d := table.Shape().Dimensions
	if d[0] > fewWords {
		return Embed(s, ids)
	}
	x := Dot(OneHot(Reshape(ids, -1), d[0], dtypes.Float32), table).General([]int{1}, nil, []int{0}, nil)
	return Reshape(x, append(append([]int{}, ids.Shape().Dimensions...), d[1])...)
}

// packed is the attention of prefix rows and segments that share them.
type packed struct {
	t                     TextConfig
	b, p, s, n            int // images, prefix rows, segments, positions of a segment
	cosP, sinP, cosT, sin *Node
	causalP, causalT      *Node
}

// decodePacked runs the decoder over prefix [B, P, D] and segments [B, S, T, D]: the segments' hidden rows after the
// final norm, [B, S*T, D].
func decodePacked(s graphx.Scope, c Config, prefix, text *Node) *Node {
	g, dp, dt := prefix.Graph(), prefix.Shape().Dimensions, text.Shape().Dimensions
	a := packed{t: c.Text, b: dp[0], p: dp[1], s: dt[1], n: dt[2], causalP: causal(g, dp[1]), causalT: causal(g, dt[2])}
	table := func(from, n int) (cos, sin *Node) {
		cos, sin = nn.RotaryConstants(g, from, n, c.Text.HeadSize(), c.Text.RopeTheta)
		return Reshape(cos, 1, 1, n, -1), Reshape(sin, 1, 1, n, -1)
	}
	a.cosP, a.sinP = table(0, a.p)
	a.cosT, a.sin = table(a.p, a.n)
	x := Concatenate([]*Node{prefix, Reshape(text, a.b, a.s*a.n, dp[2])}, 1)
	for i := range c.Text.NumHiddenLayers {
		x = a.layer(s.In("model", "layers", i), x, i == c.Text.NumHiddenLayers-1)
	}
	return nn.RMSNorm(s.In("model", "norm"), x, c.Text.RMSNormEps)
}

// layer takes and returns [B, P+S*T, D]; the last one returns the segments' rows alone.
func (a *packed) layer(s graphx.Scope, x *Node, last bool) *Node {
	h := nn.RMSNorm(s.In("input_layernorm"), x, a.t.RMSNormEps)
	att := s.In("self_attn")
	kp, kt := a.parts(nn.Linear(att.In("k_proj"), h), a.t.NumKeyValueHeads)
	vp, vt := a.parts(nn.Linear(att.In("v_proj"), h), a.t.NumKeyValueHeads)
	kp, kt = a.rotate(kp, kt)
	if last {
		x, h = a.text(x), a.text(h)
	}
	q := nn.Linear(att.In("q_proj"), h)
	var mixed *Node
	if last {
		_, qt := a.parts(q, a.t.NumAttentionHeads)
		_, qt = a.rotate(nil, qt)
		mixed = a.attendText(qt, kp, vp, kt, vt)
	} else {
		qp, qt := a.parts(q, a.t.NumAttentionHeads)
		qp, qt = a.rotate(qp, qt)
		mixed = Concatenate([]*Node{a.attendPrefix(qp, kp, vp), a.attendText(qt, kp, vp, kt, vt)}, 1)
	}
	x = Add(x, nn.Linear(att.In("o_proj"), mixed))
	h = nn.RMSNorm(s.In("post_attention_layernorm"), x, a.t.RMSNormEps)
	mlp := s.In("mlp")
	return Add(x, nn.Linear(mlp.In("down_proj"), Mul(nn.SiLU(nn.Linear(mlp.In("gate_proj"), h)), nn.Linear(mlp.In("up_proj"), h))))
}

// text is the segments' part of x [B, P+S*T, D].
func (a *packed) text(x *Node) *Node { return Slice(x, AxisRange(), AxisRange(a.p), AxisRange()) }

// parts splits x [B, (P+)S*T, H*d] by heads: prefix [B, H, P, d] (nil if x holds the segments alone) and segments
// [B, K, S, G, T, d], G heads for each of K key-value heads.
func (a *packed) parts(x *Node, heads int) (prefix, text *Node) {
	kv, size := a.t.NumKeyValueHeads, a.t.HeadSize()
	if x.Shape().Dimensions[1] > a.s*a.n {
		prefix = nn.SplitHeads(Slice(x, AxisRange(), AxisRange(0, a.p), AxisRange()), heads)
		x = a.text(x)
	}
	x = Reshape(x, a.b, a.s, a.n, kv, heads/kv, size)
	return prefix, TransposeAllDims(x, 0, 3, 1, 4, 2, 5)
}

func (a *packed) rotate(prefix, text *Node) (*Node, *Node) {
	size := a.t.HeadSize()
	if prefix != nil {
		prefix = nn.Rotary(prefix, a.cosP, a.sinP, size)
	}
	d := text.Shape().Dimensions
	text = nn.Rotary(Reshape(text, a.b, -1, a.n, size), a.cosT, a.sin, size)
	return prefix, Reshape(text, d...)
}

func (a *packed) scale() float64 { return 1 / math.Sqrt(float64(a.t.HeadSize())) }

func (a *packed) attendPrefix(q, k, v *Node) *Node {
	heads, kv, size := a.t.NumAttentionHeads, a.t.NumKeyValueHeads, a.t.HeadSize()
	q = Reshape(q, a.b, kv, heads/kv*a.p, size)
	o := nn.Attention(q, k, v, groupMask(a.causalP, heads/kv), a.scale())
	return nn.MergeHeads(Reshape(o, a.b, heads, a.p, size))
}

// attendText is one softmax over the prefix and the segment's own earlier positions.
func (a *packed) attendText(q, kp, vp, kt, vt *Node) *Node {
	heads, kv, size := a.t.NumAttentionHeads, a.t.NumKeyValueHeads, a.t.HeadSize()
	group := heads / kv
	kt, vt = Reshape(kt, a.b, kv, a.s, a.n, size), Reshape(vt, a.b, kv, a.s, a.n, size)
	flat, bySegment := Reshape(q, a.b, kv, -1, size), Reshape(q, a.b, kv, a.s, group*a.n, size)
	toPrefix := Dot(flat, kp).General([]int{3}, []int{0, 1}, []int{3}, []int{0, 1})
	toOwn := Dot(bySegment, kt).General([]int{4}, []int{0, 1, 2}, []int{4}, []int{0, 1, 2})
	toPrefix = MulScalar(toPrefix, a.scale())
	toOwn = Reshape(MulScalar(toOwn, a.scale()), a.b, kv, a.s*group, a.n, a.n)
	mask := Reshape(a.causalT, 1, 1, 1, a.n, a.n)
	toOwn = Reshape(Add(toOwn, BroadcastToShape(mask, toOwn.Shape())), a.b, kv, -1, a.n)
	top := StopGradient(Max(ReduceAndKeep(toPrefix, ReduceMax, -1), ReduceAndKeep(toOwn, ReduceMax, -1)))
	toPrefix, toOwn = Exp(Sub(toPrefix, top)), Exp(Sub(toOwn, top))
	sum := Add(ReduceAndKeep(toPrefix, ReduceSum, -1), ReduceAndKeep(toOwn, ReduceSum, -1))
	o := Dot(toPrefix, vp).General([]int{3}, []int{0, 1}, []int{2}, []int{0, 1})
	own := Dot(Reshape(toOwn, a.b, kv, a.s, group*a.n, a.n), vt).General([]int{4}, []int{0, 1, 2}, []int{3}, []int{0, 1, 2})
	o = Div(Add(o, Reshape(own, a.b, kv, -1, size)), sum)
	o = TransposeAllDims(Reshape(o, a.b, kv, a.s, group, a.n, size), 0, 2, 4, 1, 3, 5)
	return Reshape(o, a.b, a.s*a.n, heads*size)
}

// Classes of the dense head: no object, then shapes, colours, and places in an object's 3 x 3 block of cells.
const (
	DenseShapes  = 9
	DenseColours = 7
	DensePlaces  = 10
)

const densePrefix = "dense_head."

// emptyWeight is what a patch without object counts in the dense head's losses.
const emptyWeight = .15

// denseLoss is the sum of the cross-entropies of three linear heads on the tower's rows [B, N, H].
func denseLoss(s graphx.Scope, tower *Node, in DenseInputs) *Node {
	h := nn.LayerNorm(s.In("norm"), tower, 1e-6)
	h = Reshape(h, -1, h.Shape().Dimensions[2])
	var sum *Node
	for _, head := range []struct {
		name    string
		targets *Node
	}{{"shape", in.Shape}, {"colour", in.Colour}, {"place", in.Place}} {
		targets := Reshape(head.targets, -1)
		empty := ConvertDType(Equal(targets, ZerosLike(targets)), dtypes.Float32)
		weight := AddScalar(MulScalar(empty, emptyWeight-1), 1)
		nll := NLL(nn.Linear(s.In(head.name), h), targets)
		loss := Div(ReduceAllSum(Mul(nll, weight)), ReduceAllSum(weight))
		if sum == nil {
			sum = loss
		} else {
			sum = Add(sum, loss)
		}
	}
	return sum
}

// DenseInit returns the weights of the dense head, which stands for the tower's pre-training in the tiny world and is
// trained with the judge only: names begin with "dense_head.".
func DenseInit(c Config, rng *rand.Rand) map[string]*tensors.Tensor {
	t, h := shapeTable{}, c.Vision.HiddenSize
	t[densePrefix+"norm.weight"], t[densePrefix+"norm.bias"] = []int{h}, []int{h}
	t.linear(densePrefix+"shape", h, DenseShapes, true)
	t.linear(densePrefix+"colour", h, DenseColours, true)
	t.linear(densePrefix+"place", h, DensePlaces, true)
	return initialize(t, c.Vision, rng)
}

// WithoutDense returns the weights that are saved: all but the dense head's.
func WithoutDense(weights map[string]*tensors.Tensor) map[string]*tensors.Tensor {
	out := maps.Clone(weights)
	maps.DeleteFunc(out, func(name string, _ *tensors.Tensor) bool {
		return len(name) > len(densePrefix) && name[:len(densePrefix)] == densePrefix
	})
	return out
}
