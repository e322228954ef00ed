package llavaov

import (
	"fmt"
	"math"

	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Embed looks up ids (int32, any shape) in the word table: [..., D]. The scope is the decoder's ("model.").
func Embed(s graphx.Scope, ids *Node) *Node {
	return ConvertDType(Gather(s.Param("embed_tokens.weight"), InsertAxes(ids, -1)), dtypes.Float32)
}

// forward is what the queries of a forward see, besides what their own layer computes.
type forward struct {
	t        TextConfig
	cos, sin *Node // [B or 1, 1, T, d/2]
	// mask is additive, [B or 1, 1, T, P+T]: the past first, then the forward's own positions.
	mask *Node
	// past holds keys and values of earlier positions, one pair a layer, or is empty.
	past []keysValues
	last *Node // int32 [B]: the only position whose result is wanted, or nil
}

// keysValues of one layer, [B, K, T, d] each, keys already rotated.
type keysValues struct{ k, v *Node }

// causal is the additive mask [1, 1, t, t] under which a position sees itself and earlier ones.
func causal(g *Graph, t int) *Node {
	shape := shapes.Make(dtypes.Int32, t, t)
	allow := GreaterOrEqual(Iota(g, shape, 0), Iota(g, shape, 1))
	return Reshape(nn.AdditiveMask(allow), 1, 1, t, t)
}

// positions makes the rotary tables of positions int32 [B or 1, T].
func (c *forward) positions(p *Node) {
	cos, sin := nn.RotaryTables(p, c.t.HeadSize(), c.t.RopeTheta)
	c.cos, c.sin = InsertAxes(cos, 1), InsertAxes(sin, 1)
}

// Decode is the plain forward of the decoder: rows x [B, T, D] at positions int32 [B, T] under an additive mask
// [B or 1, 1, T, T] -> hidden rows after the final norm [B, T, D]. A nil mask is the causal one.
func Decode(s graphx.Scope, t TextConfig, x, positions, mask *Node, see Observer) *Node {
	if mask == nil {
		mask = causal(x.Graph(), x.Shape().Dimensions[1])
	}
	c := forward{t: t, mask: mask}
	c.positions(positions)
	for i := range t.NumHiddenLayers {
		x = s.Layer(x, func(x *Node) *Node {
			y, _ := c.layer(s.In("layers", i), i, x)
			return y
		})
		see.show(fmt.Sprintf("layer%d", i+1), x)
	}
	return see.show("final_norm", nn.RMSNorm(s.In("norm"), x, t.RMSNormEps))
}

// Logits multiplies hidden rows [..., D] with the head, or with the word table where the file holds no head. rows > 0
// keeps that many columns. The scope is the whole model's.
func Logits(s graphx.Scope, hidden *Node, rows int) *Node {
	name := "model.embed_tokens.weight"
	if s.Has("lm_head.weight") {
		name = "lm_head.weight"
	}
	w := s.Param(name)
	if rows > 0 && rows < w.Shape().Dimensions[0] {
		w = Slice(w, AxisRange(0, rows), AxisRange())
	}
	return nn.MatMulT(s, hidden, w)
}

// run returns keys and values of all layers, [L, B, K, T, d] each, and with result the rows after the final norm. Without
// result the last layer ends at its keys and values.
func (c *forward) run(s graphx.Scope, x *Node, result bool) (*Node, []*Node) {
	var keys, values []*Node
	for i := range c.t.NumHiddenLayers {
		layer := s.In("layers", i)
		var own keysValues
		if !result && i == c.t.NumHiddenLayers-1 {
			own = c.keysValues(layer.In("self_attn"), nn.RMSNorm(layer.In("input_layernorm"), x, c.t.RMSNormEps))
		} else {
			x, own = c.layer(layer, i, x)
		}
		keys, values = append(keys, own.k), append(values, own.v)
	}
	own := []*Node{Stack(keys, 0), Stack(values, 0)}
	if !result {
		return nil, own
	}
	return nn.RMSNorm(s.In("norm"), x, c.t.RMSNormEps), own
}

// pastMask is the mask of ids [B, T] after a past [B, .., P, ..] of which the first length [B] positions are real.
func pastMask(ids, length *Node, p int) *Node {
	g, d := ids.Graph(), ids.Shape().Dimensions
	shape := shapes.Make(dtypes.Int32, d[0], 1, d[1], p)
	real := LessThan(Iota(g, shape, 3), BroadcastToShape(Reshape(length, d[0], 1, 1, 1), shape))
	own := BroadcastToDims(causal(g, d[1]), d[0], 1, d[1], d[1])
	return Concatenate([]*Node{nn.AdditiveMask(real), own}, 3)
}

// layer is one decoder layer; it also returns the keys and values of the forward's own positions.
//
//	x += o(attention(norm(x)));  x += down(silu(gate(norm(x))) * up(norm(x)))
func (c *forward) layer(s graphx.Scope, i int, x *Node) (*Node, keysValues) {
	h := nn.RMSNorm(s.In("input_layernorm"), x, c.t.RMSNormEps)
	own := c.keysValues(s.In("self_attn"), h)
	all, mask, cos, sin := own, c.mask, c.cos, c.sin
	if len(c.past) > 0 {
		all = keysValues{Concatenate([]*Node{c.past[i].k, own.k}, 2), Concatenate([]*Node{c.past[i].v, own.v}, 2)}
	}
	if c.last != nil && i == c.t.NumHiddenLayers-1 {
		x, h = pickRow(x, c.last), pickRow(h, c.last)
		cos, sin, mask = pickTable(cos, c.last), pickTable(sin, c.last), pickTable(mask, c.last)
	}
	x = Add(x, c.attend(s.In("self_attn"), h, all, mask, cos, sin))
	h = nn.RMSNorm(s.In("post_attention_layernorm"), x, c.t.RMSNormEps)
	mlp := s.In("mlp")
	return Add(x, nn.Linear(mlp.In("down_proj"), Mul(nn.SiLU(nn.Linear(mlp.In("gate_proj"), h)), nn.Linear(mlp.In("up_proj"), h)))), own
}

func (c *forward) keysValues(s graphx.Scope, h *Node) keysValues {
	kv := c.t.NumKeyValueHeads
	k := nn.SplitHeads(nn.Linear(s.In("k_proj"), h), kv)
	return keysValues{nn.Rotary(k, c.cos, c.sin, c.t.HeadSize()), nn.SplitHeads(nn.Linear(s.In("v_proj"), h), kv)}
}

// attend shares each key-value head among the query heads of its group without repeating it: the group's queries stand
// one after the other on the time axis.
func (c *forward) attend(s graphx.Scope, h *Node, all keysValues, mask, cos, sin *Node) *Node {
	d := h.Shape().Dimensions
	heads, kv, size := c.t.NumAttentionHeads, c.t.NumKeyValueHeads, c.t.HeadSize()
	q := nn.Rotary(nn.SplitHeads(nn.Linear(s.In("q_proj"), h), heads), cos, sin, size)
	q = Reshape(q, d[0], kv, heads/kv*d[1], size)
	a := nn.Attention(q, all.k, all.v, groupMask(mask, heads/kv), 1/math.Sqrt(float64(size)))
	return nn.Linear(s.In("o_proj"), nn.MergeHeads(Reshape(a, d[0], heads, d[1], size)))
}

// groupMask repeats a mask [B or 1, 1, T, S] for the queries of a group: [B or 1, 1, G*T, S].
func groupMask(mask *Node, group int) *Node {
	if mask == nil || group == 1 {
		return mask
	}
	d := mask.Shape().Dimensions
	return Reshape(BroadcastToDims(Reshape(mask, d[0], 1, d[2], d[3]), d[0], group, d[2], d[3]), d[0], 1, group*d[2], d[3])
}

// pickRow takes one row of x [B, T, D]: [B, 1, D], exactly.
func pickRow(x, at *Node) *Node {
	hot := InsertAxes(OneHot(at, x.Shape().Dimensions[1], dtypes.Float32), -1) // [B, T, 1]
	return ReduceAndKeep(Mul(BroadcastToShape(hot, x.Shape()), x), ReduceSum, 1)
}

// pickTable takes one row of x [B or 1, 1, T, S]: [B, 1, 1, S].
func pickTable(x, at *Node) *Node {
	d, b := x.Shape().Dimensions, at.Shape().Dimensions[0]
	rows := BroadcastToDims(Reshape(x, d[0], d[2], d[3]), b, d[2], d[3])
	return Reshape(pickRow(rows, at), b, 1, 1, d[3])
}

// PaddedMask is the causal mask [B, 1, T, T] under which nobody sees padding: real int32 [B, T] is 1 at real positions.
func PaddedMask(real *Node) *Node {
	d := real.Shape().Dimensions
	keys := nn.AdditiveMask(Reshape(real, d[0], 1, 1, d[1]))
	shape := shapes.Make(dtypes.Float32, d[0], 1, d[1], d[1])
	return Add(BroadcastToShape(keys, shape), BroadcastToShape(causal(real.Graph(), d[1]), shape))
}
