package mask2former

import (
	"fmt"
	"math"

	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Observer is shown intermediate results under the names that parity cases use, for example "mask_features". Maps are
// [B, h, w, C].
type Observer func(name string, x *Node)

func (o Observer) show(name string, x *Node) {
	if o != nil {
		o(name, x)
	}
}

// Forward maps normalised pixels [B, H, W, 3] to class logits [B, queries, classes + 1], the last of them "no object",
// and mask logits [B, queries, H/4, W/4], both rounded up.
func Forward(s graphx.Scope, c Config, pixels *Node, see Observer) (classes, masks *Node) {
	level := s.In("model", "pixel_level_module")
	maps := Backbone(level.In("encoder"), c.Swin, pixels)
	for i, x := range maps {
		see.show(fmt.Sprintf("backbone_%d", i), x)
	}
	multi, features := PixelDecoder(level.In("decoder"), c, maps)
	for i, x := range multi {
		see.show(fmt.Sprintf("pixel_decoder_%d", i), x)
	}
	see.show("mask_features", features)
	return decode(s, c, multi, features, see)
}

// decode is the transformer decoder with masked attention: before the first layer and after each one, every query
// predicts a class and a mask; in the next layer it looks at nothing outside that mask.
func decode(s graphx.Scope, c Config, multi []*Node, features *Node, see Observer) (classes, masks *Node) {
	module := s.In("model", "transformer_module")
	batch := features.Shape().Dimensions[0]
	repeat := func(name string) *Node {
		x := module.Float32(name+".weight", c.Queries, c.Channels)
		return BroadcastToDims(InsertAxes(x, 0), batch, c.Queries, c.Channels)
	}
	queries, position := repeat("queries_features"), repeat("queries_embedder")
	keys, values := levelMemory(module, c, multi)
	decoder := module.In("decoder")
	for i := range c.DecoderLayers {
		grid := multi[i%levels].Shape().Dimensions
		classes, masks = predict(s, c, queries, features)
		see.show(fmt.Sprintf("aux_class_%d", i), classes)
		see.show(fmt.Sprintf("aux_mask_%d", i), masks)
		layer := decoder.In("layers", i)
		cross := fusedAttention(layer.In("cross_attn"), c, Add(queries, position), keys[i%levels], values[i%levels], attentionMask(masks, grid[1], grid[2]))
		queries = nn.LayerNorm(layer.In("cross_attn_layer_norm"), Add(queries, cross), decoderNormEps)
		self := selfAttention(layer.In("self_attn"), c, Add(queries, position), queries)
		queries = nn.LayerNorm(layer.In("self_attn_layer_norm"), Add(queries, self), decoderNormEps)
		f := nn.Linear(layer.In("fc2"), activate(c.Activation, nn.Linear(layer.In("fc1"), queries)))
		queries = nn.LayerNorm(layer.In("final_layer_norm"), Add(queries, f), decoderNormEps)
	}
	return predict(s, c, queries, features)
}

// levelMemory is what queries look at on each level: values are the map and a learned vector of the level, keys have the
// position too. [B, h*w, C] each.
func levelMemory(module graphx.Scope, c Config, multi []*Node) (keys, values []*Node) {
	for i, x := range multi {
		d := x.Shape().Dimensions
		vector := Slice(module.Float32("level_embed.weight", levels, c.Channels), AxisRange(i, i+1)) // [1, C]
		v := Reshape(x, d[0], d[1]*d[2], c.Channels)
		v = Add(v, BroadcastToShape(ExpandLeftToRank(vector, 3), v.Shape()))
		place := sinePositions(x.Graph(), d[1], d[2], c.Channels)
		keys = append(keys, Add(v, BroadcastToShape(ExpandLeftToRank(place, 3), v.Shape())))
		values = append(values, v)
	}
	return keys, values
}

// predict returns class logits [B, Q, classes + 1] and mask logits [B, Q, h, w].
func predict(s graphx.Scope, c Config, queries, features *Node) (classes, masks *Node) {
	decoder := s.In("model", "transformer_module", "decoder")
	q := nn.LayerNorm(decoder.In("layernorm"), queries, decoderNormEps)
	classes = nn.Linear(s.In("class_predictor"), q)
	embedder := decoder.In("mask_predictor", "mask_embedder")
	e := relu(nn.Linear(embedder.In(0, 0), q))
	e = relu(nn.Linear(embedder.In(1, 0), e))
	e = nn.Linear(embedder.In(2, 0), e)
	return classes, Einsum("bqc,bhwc->bqhw", e, features)
}

// attentionMask is the additive mask [B, 1, Q, h*w] for a level of h x w: a query sees the pixels where its mask, resized,
// has a probability of a half at least; one that would see none sees all.
func attentionMask(masks *Node, h, w int) *Node {
	d := masks.Shape().Dimensions
	m := bilinear(Reshape(masks, d[0]*d[1], d[2], d[3], 1), h, w)
	p := Reshape(Sigmoid(m), d[0], 1, d[1], h*w)
	visible := ConvertDType(GreaterOrEqual(p, Scalar(p.Graph(), p.DType(), .5)), dtypes.Float32)
	none := Equal(ReduceAndKeep(visible, ReduceMax, -1), ScalarZero(p.Graph(), visible.DType()))
	return nn.AdditiveMask(Max(visible, BroadcastToShape(ConvertDType(none, dtypes.Float32), visible.Shape())))
}

// fusedAttention has its three projections in one tensor.
func fusedAttention(s graphx.Scope, c Config, queries, keys, values, mask *Node) *Node {
	n := c.Channels
	weight, bias := s.Param("in_proj_weight", 3*n, n), s.Float32("in_proj_bias", 3*n)
	project := func(i int, x *Node) *Node {
		y := nn.MatMulT(s, x, Slice(weight, AxisRange(i*n, (i+1)*n), AxisRange()))
		return nn.SplitHeads(Add(y, ExpandLeftToRank(Slice(bias, AxisRange(i*n, (i+1)*n)), 3)), c.Heads)
	}
	a := nn.Attention(project(0, queries), project(1, keys), project(2, values), mask, scale(c))
	return nn.Linear(s.In("out_proj"), nn.MergeHeads(a))
}

func selfAttention(s graphx.Scope, c Config, placed, values *Node) *Node {
	project := func(name string, x *Node) *Node { return nn.SplitHeads(nn.Linear(s.In(name), x), c.Heads) }
	a := nn.Attention(project("q_proj", placed), project("k_proj", placed), project("v_proj", values), nil, scale(c))
	return nn.Linear(s.In("out_proj"), nn.MergeHeads(a))
}

func scale(c Config) float64 { return 1 / math.Sqrt(float64(c.Channels/c.Heads)) }

func activate(name string, x *Node) *Node {
	if name == "gelu" {
		return nn.GELUErf(x)
	}
	return relu(x)
}
