package showo

import (
	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// prefixGraph takes conditions [B, P] int32 padded on the left by pads [B] int32, of which the last columns are images, and
// returns their keys and values [B, 2*layers, H, P, d]: keys of layer 0, values of layer 0, keys of layer 1, ...
func prefixGraph(cfg Config, images int) graphx.Func {
	return func(s graphx.Scope, in []*Node) []*Node {
		ids, pads := in[0], in[1]
		width := ids.Shape().Dimensions[1]
		text := width - images*(cfg.NumVQTokens+2)
		a := attention{cfg: cfg, mask: InsertAxes(nn.AdditiveMask(omniAllow(cfg, pads, text, images)), 1)}
		a.turn(ids.Graph(), 0, width)
		_, layers := a.collect(s, addImagesPositions(s, cfg, Embed(s, cfg, ids), text+1, images), nil)
		return []*Node{stack(layers)}
	}
}

// collect runs all blocks and returns the last one's result and every layer's own keys and values.
func (a attention) collect(s graphx.Scope, x *Node, past []keysValues) (y *Node, own []keysValues) {
	unseen := func(string, *Node) {}
	for i := range a.cfg.LLM.Layers {
		var before *keysValues
		if past != nil {
			before = &past[i]
		}
		var kv keysValues
		x, kv = a.block(s.In("showo", "model", "layers", i), x, before, unseen)
		own = append(own, kv)
	}
	return x, own
}

// stack puts keys and values [B, H, P, d] of all layers into one node [B, 2*layers, H, P, d].
func stack(layers []keysValues) *Node {
	var parts []*Node
	for _, l := range layers {
		parts = append(parts, InsertAxes(l.k, 1), InsertAxes(l.v, 1))
	}
	return Concatenate(parts, 1)
}

// unstack undoes stack.
func unstack(kv *Node) []keysValues {
	layer := func(i int) *Node {
		return Squeeze(Slice(kv, AxisRange(), AxisRange(i, i+1), AxisRange(), AxisRange(), AxisRange()), 1)
	}
	out := make([]keysValues, kv.Shape().Dimensions[1]/2)
	for i := range out {
		out[i] = keysValues{layer(2 * i), layer(2*i + 1)}
	}
	return out
}

// stepGraph takes image ids [B, N], left pads [R] of the prefixes and their keys and values [R, 2*layers, H, P, d]; R = B
// conditional rows, with guidance followed by B unconditional ones. It returns the guided logits [B, N, K], or
// their softmax:
//
//	h = (1+g) h_cond - g h_uncond      the head is affine, so this guides the logits: (1+g) - g = 1 keeps the bias
func stepGraph(cfg Config, guidance float64, probabilities bool) graphx.Func {
	return func(s graphx.Scope, in []*Node) []*Node {
		ids, pads, kv := in[0], in[1], in[2]
		g, batch, n := ids.Graph(), ids.Shape().Dimensions[0], cfg.NumVQTokens
		width := kv.Shape().Dimensions[3]
		mark := func(id int32) *Node { return BroadcastToDims(Scalar(g, dtypes.Int32, int(id)), batch, 1) }
		x := Embed(s, cfg, Concatenate([]*Node{mark(cfg.SOI()), ids, mark(cfg.EOI())}, 1))
		x = addImagePositions(s, cfg, x, 1)
		if guidance != 0 {
			x = Concatenate([]*Node{x, x}, 0)
		}
		rows := x.Shape().Dimensions[0]
		column := Iota(g, shapes.Make(dtypes.Int32, rows, 1, 1, width+n+2), 3)
		seen := GreaterOrEqual(column, BroadcastToShape(InsertAxes(pads, -1, -1, -1), column.Shape()))
		a := attention{cfg: cfg, mask: nn.AdditiveMask(seen)}
		a.turn(g, width, n+2)
		x, _ = a.collect(s, x, unstack(kv))
		h := finalNorm(s, cfg, columns(x, 1, n+1))
		if guidance != 0 {
			cond, uncond := Slice(h, AxisRange(0, batch)), Slice(h, AxisRange(batch, 2*batch))
			h = Sub(MulScalar(cond, 1+guidance), MulScalar(uncond, guidance))
		}
		logits := codebookHead(s, cfg, h)
		if probabilities {
			logits = Softmax(logits)
		}
		return []*Node{logits}
	}
}
