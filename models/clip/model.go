package clip

import (
	"fmt"
	"math"

	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Observer is shown intermediate results under the names that parity cases use, for example "vision_hidden_1".
type Observer func(name string, x *Node)

func (o Observer) show(name string, x *Node) {
	if o != nil {
		o(name, x)
	}
}

// ImageFeatures maps normalised pixels [B, S, S, channels] to [B, projection], not normalised.
func ImageFeatures(s graphx.Scope, c Config, pixels *Node, see Observer) *Node {
	v, m := c.Vision, s.In("vision_model")
	h := nn.LayerNorm(m.In("pre_layrnorm"), embedPatches(m.In("embeddings"), v, pixels), v.LayerNormEps)
	h = transformer(m.In("encoder"), v.TowerConfig, h, nil, func(i int, x *Node) { see.show(fmt.Sprintf("vision_hidden_%d", i), x) })
	class := Squeeze(Slice(h, AxisRange(), AxisRange(0, 1)), 1)
	class = nn.LayerNorm(m.In("post_layernorm"), class, v.LayerNormEps)
	see.show("vision_pooled", class)
	return nn.Linear(s.In("visual_projection"), class)
}

// embedPatches returns [B, 1 + grid*grid, H]: the class vector, then the patches row by row, with positions added.
func embedPatches(s graphx.Scope, v VisionConfig, pixels *Node) *Node {
	d, g, p := pixels.Shape().Dimensions, v.Grid(), v.PatchSize
	if len(d) != 4 || d[1] != v.ImageSize || d[2] != v.ImageSize || d[3] != v.Channels {
		panic(fmt.Errorf("clip: pixels are %v, want [B, %d, %d, %d]", d, v.ImageSize, v.ImageSize, v.Channels))
	}
	x := Slice(pixels, AxisRange(), AxisRange(0, g*p), AxisRange(0, g*p), AxisRange())
	x = TransposeAllDims(Reshape(x, d[0], g, p, g, p, v.Channels), 0, 1, 3, 5, 2, 4) // [B, g, g, channels, p, p]
	kernel := Reshape(s.Param("patch_embedding.weight", v.HiddenSize, v.Channels, p, p), v.HiddenSize, -1)
	patches := nn.MatMulT(s, Reshape(x, d[0], g*g, v.Channels*p*p), kernel)
	class := BroadcastToDims(Reshape(s.Float32("class_embedding", v.HiddenSize), 1, 1, v.HiddenSize), d[0], 1, v.HiddenSize)
	h := Concatenate([]*Node{class, patches}, 1)
	return Add(h, ExpandLeftToRank(s.Float32("position_embedding.weight", 1+g*g, v.HiddenSize), 3))
}

// TextFeatures maps ids int32 [B, T], start and end token included, to [B, projection], not normalised. What follows
// the end token does not matter.
func TextFeatures(s graphx.Scope, c Config, ids *Node, see Observer) *Node {
	t, m := c.Text, s.In("text_model")
	d := ids.Shape().Dimensions
	if len(d) != 2 || d[1] > t.Context {
		panic(fmt.Errorf("clip: ids are %v, want [B, at most %d]", d, t.Context))
	}
	words := Gather(m.Float32("embeddings.token_embedding.weight", t.VocabSize, t.HiddenSize), InsertAxes(ids, -1))
	positions := Slice(m.Float32("embeddings.position_embedding.weight", t.Context, t.HiddenSize), AxisRange(0, d[1]))
	h := Add(words, ExpandLeftToRank(positions, 3))
	h = transformer(m.In("encoder"), t.TowerConfig, h, causal(ids.Graph(), d[1]), func(i int, x *Node) { see.show(fmt.Sprintf("text_hidden_%d", i), x) })
	h = nn.LayerNorm(m.In("final_layer_norm"), h, t.LayerNormEps)
	end := OneHot(endOf(t, ids), d[1], dtypes.Float32) // [B, T]
	pooled := ReduceSum(Mul(h, BroadcastToShape(InsertAxes(end, -1), h.Shape())), 1)
	see.show("text_pooled", pooled)
	return nn.Linear(s.In("text_projection"), pooled)
}

// endOf is the position of each text's first end token.
func endOf(t TextConfig, ids *Node) *Node {
	if t.EndID == firstIDEnds {
		return ArgMax(ids, -1, dtypes.Int32)
	}
	isEnd := ConvertDType(Equal(ids, Scalar(ids.Graph(), ids.DType(), t.EndID)), dtypes.Int32)
	return ArgMax(isEnd, -1, dtypes.Int32)
}

// causal is the additive mask [1, 1, t, t] under which a position sees itself and earlier ones.
func causal(g *Graph, t int) *Node {
	shape := shapes.Make(dtypes.Int32, 1, 1, t, t)
	return nn.AdditiveMask(LessOrEqual(Iota(g, shape, 3), Iota(g, shape, 2)))
}

// transformer runs the pre-norm layers over h [B, T, H]; see gets the input (0) and each layer's result (1..).
func transformer(s graphx.Scope, c TowerConfig, h, mask *Node, see func(int, *Node)) *Node {
	see(0, h)
	for i := range c.NumHiddenLayers {
		layer := s.In("layers", i)
		h = Add(h, attention(layer.In("self_attn"), c, nn.LayerNorm(layer.In("layer_norm1"), h, c.LayerNormEps), mask))
		m := nn.Linear(layer.In("mlp", "fc1"), nn.LayerNorm(layer.In("layer_norm2"), h, c.LayerNormEps))
		h = Add(h, nn.Linear(layer.In("mlp", "fc2"), activate(c.HiddenAct, m)))
		see(i+1, h)
	}
	return h
}

func attention(s graphx.Scope, c TowerConfig, x, mask *Node) *Node {
	split := func(name string) *Node { return nn.SplitHeads(nn.Linear(s.In(name), x), c.NumAttentionHeads) }
	scale := 1 / math.Sqrt(float64(c.HiddenSize/c.NumAttentionHeads))
	return nn.Linear(s.In("out_proj"), nn.MergeHeads(nn.Attention(split("q_proj"), split("k_proj"), split("v_proj"), mask, scale)))
}

// activate is quick_gelu, x sigmoid(1.702 x), or the exact gelu.
func activate(name string, x *Node) *Node {
	if name == "quick_gelu" {
		return Mul(x, Sigmoid(MulScalar(x, 1.702)))
	}
	return nn.GELUErf(x)
}

// Classifier averages text features. features [classes*sentences, P], the sentences of a class one after the other ->
// [classes, P]: the normalised mean of the normalised features.
func Classifier(features *Node, sentences int) *Node {
	d := features.Shape().Dimensions
	f := Reshape(unit(features), d[0]/sentences, sentences, d[1])
	return unit(ReduceMean(f, 1))
}

// Logits of images [B, P] for a classifier [classes, P]: factor times the cosine, [B, classes].
func Logits(images, classifier *Node, factor float64) *Node {
	return MulScalar(Dot(unit(images), classifier).General([]int{1}, nil, []int{1}, nil), factor)
}

// unit scales the last axis to length 1.
func unit(x *Node) *Node { return Div(x, Sqrt(ReduceAndKeep(Square(x), ReduceSum, -1))) }
