package showo

import (
	"fmt"
	"math"

	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Sequence is the input of the transformer.
type Sequence struct {
	IDs     *Node // [B, L] vocabulary ids
	Allow   *Node // [B or 1, L, L], 1 where the query row may attend the key column
	ImageAt int   // column of the first of N image tokens, the same in every row; 0 means no image
	Images  int   // images from there on, soi and eoi around each; 0 means 1
}

// Forward returns the logits [B, L, V] of every position over the whole vocabulary.
func Forward(s graphx.Scope, cfg Config, q Sequence) *Node {
	return ForwardObserved(s, cfg, q, func(string, *Node) {})
}

// ForwardObserved is Forward and shows intermediate results [B, L, D] by name: embed, block0.ln, block0.attn,
// block0.mlp, block0, .., final_norm.
func ForwardObserved(s graphx.Scope, cfg Config, q Sequence, see func(name string, x *Node)) *Node {
	return Head(s, cfg, hidden(s, cfg, q, see))
}

// Hidden returns what the head reads, [B, L, D], after the last LayerNorm.
func Hidden(s graphx.Scope, cfg Config, q Sequence) *Node {
	return hidden(s, cfg, q, func(string, *Node) {})
}

func hidden(s graphx.Scope, cfg Config, q Sequence, see func(string, *Node)) *Node {
	x := Embed(s, cfg, q.IDs)
	if q.ImageAt > 0 {
		x = addImagesPositions(s, cfg, x, q.ImageAt, max(q.Images, 1))
	}
	see("embed", x)
	a := attention{cfg: cfg, mask: InsertAxes(nn.AdditiveMask(q.Allow), 1)}
	a.turn(x.Graph(), 0, x.Shape().Dimensions[1])
	for i := range cfg.LLM.Layers {
		x = s.Layer(x, func(x *Node) *Node {
			y, _ := a.block(s.In("showo", "model", "layers", i), x, nil, within(see, fmt.Sprintf("block%d", i)))
			return y
		})
	}
	x = finalNorm(s, cfg, x)
	see("final_norm", x)
	return x
}

func finalNorm(s graphx.Scope, cfg Config, x *Node) *Node {
	return nn.LayerNorm(s.In("showo", "model", "final_layernorm"), x, cfg.LLM.LayerNormEps)
}

// Embed looks up the word, mark or image token of each id: [...] to [..., D], float32.
func Embed(s graphx.Scope, cfg Config, ids *Node) *Node {
	table := s.Param("showo.model.embed_tokens.weight", cfg.VocabSize, cfg.LLM.HiddenSize)
	return ConvertDType(Gather(table, InsertAxes(ids, -1)), dtypes.Float32)
}

// addImagePositions adds the learned table to columns at..at+N-1 of x [B, L, D], where the model has one.
func addImagePositions(s graphx.Scope, cfg Config, x *Node, at int) *Node {
	if !cfg.LLM.ImagePositionEmbeddings {
		return x
	}
	l, n := x.Shape().Dimensions[1], cfg.NumVQTokens
	table := InsertAxes(s.Float32(imagePositions, n, cfg.LLM.HiddenSize), 0)
	image := Slice(x, AxisRange(), AxisRange(at, at+n), AxisRange())
	parts := []*Node{Slice(x, AxisRange(), AxisRange(0, at), AxisRange()), Add(image, BroadcastToShape(table, image.Shape()))}
	if at+n < l {
		parts = append(parts, Slice(x, AxisRange(), AxisRange(at+n, l), AxisRange()))
	}
	return Concatenate(parts, 1)
}

// addImagesPositions is addImagePositions for images one after another, eoi and soi between them.
func addImagesPositions(s graphx.Scope, cfg Config, x *Node, at, images int) *Node {
	for i := range images {
		x = addImagePositions(s, cfg, x, at+i*(cfg.NumVQTokens+2))
	}
	return x
}

const imagePositions = "showo.model.image_positions.weight"

// Head returns logits over the whole vocabulary: [..., D] to [..., V].
func Head(s graphx.Scope, _ Config, h *Node) *Node { return nn.Linear(s.In("showo", "lm_head"), h) }

// codebookHead is Head on the columns of the image tokens: [..., D] to [..., K].
func codebookHead(s graphx.Scope, cfg Config, h *Node) *Node {
	first, end := int(cfg.ImageOffset()), int(cfg.ImageOffset())+cfg.CodebookSize
	w := Slice(s.Param("showo.lm_head.weight", cfg.VocabSize, cfg.LLM.HiddenSize), AxisRange(first, end), AxisRange())
	b := Slice(s.Float32("showo.lm_head.bias", cfg.VocabSize), AxisRange(first, end))
	return Add(nn.MatMulT(s, h, w), ExpandLeftToRank(b, h.Rank()))
}

// attention is what all blocks share: the mask and the angles of the positions.
type attention struct {
	cfg      Config
	mask     *Node // additive, [B or 1, 1, L, past + L]
	cos, sin *Node // [1, 1, L, r/2]
}

// turn sets the angles for positions first..first+n-1.
func (a *attention) turn(g *Graph, first, n int) {
	cos, sin := nn.RotaryConstants(g, first, n, a.cfg.rotary(), a.cfg.LLM.RopeTheta)
	a.cos, a.sin = InsertAxes(cos, 0, 0), InsertAxes(sin, 0, 0)
}

// keysValues is what rows let others look at: both [B, H, L, d], keys normalised and turned.
type keysValues struct{ k, v *Node }

// block is Phi's: attention and MLP side by side on one LayerNorm.
//
//	h = LN(x)
//	x + dense(attend(q(h), k(h), v(h))) + fc2(gelu(fc1(h)))
//
// Keys and values of earlier rows may be given as past; own are those of x.
func (a attention) block(s graphx.Scope, x *Node, past *keysValues, see func(string, *Node)) (y *Node, own keysValues) {
	h := nn.LayerNorm(s.In("input_layernorm"), x, a.cfg.LLM.LayerNormEps)
	see(".ln", h)
	at := s.In("self_attn")
	own = a.keysValues(at, h)
	all := own
	if past != nil {
		all = keysValues{Concatenate([]*Node{past.k, own.k}, 2), Concatenate([]*Node{past.v, own.v}, 2)}
	}
	attended := a.attend(at, h, all)
	see(".attn", attended)
	m := mlp(s.In("mlp"), h)
	see(".mlp", m)
	y = Add(x, Add(attended, m))
	see("", y)
	return y, own
}

// keysValues of h [B, L, D].
func (a attention) keysValues(s graphx.Scope, h *Node) keysValues {
	return keysValues{a.normTurn(s, "k", h), nn.SplitHeads(nn.Linear(s.In("v_proj"), h), a.cfg.LLM.Heads)}
}

// normTurn projects h to the heads of q or k, normalises each head and turns its first channels by position.
func (a attention) normTurn(s graphx.Scope, which string, h *Node) *Node {
	y := nn.SplitHeads(nn.Linear(s.In(which+"_proj"), h), a.cfg.LLM.Heads)
	if a.cfg.LLM.QKLayerNorm {
		y = nn.LayerNorm(s.In(which+"_layernorm"), y, a.cfg.LLM.LayerNormEps)
	}
	return nn.Rotary(y, a.cos, a.sin, a.cfg.rotary())
}

// attend lets the rows of h [B, Q, D] look at keys and values [B, H, K, d].
func (a attention) attend(s graphx.Scope, h *Node, kv keysValues) *Node {
	q := a.normTurn(s, "q", h)
	scale := 1 / math.Sqrt(float64(a.cfg.LLM.HiddenSize/a.cfg.LLM.Heads))
	return nn.Linear(s.In("dense"), nn.MergeHeads(nn.Attention(q, kv.k, kv.v, a.mask, scale)))
}

func mlp(s graphx.Scope, h *Node) *Node {
	return nn.Linear(s.In("fc2"), nn.GELUTanh(nn.Linear(s.In("fc1"), h)))
}

func within(see func(string, *Node), prefix string) func(string, *Node) {
	return func(name string, x *Node) { see(prefix+name, x) }
}
