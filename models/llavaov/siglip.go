package llavaov

import (
	"fmt"
	"math"

	"imagecot/internal/graphx"
	"imagecot/models/nn"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Observer is shown intermediate results under the names that parity cases use, for example "layer1".
type Observer func(name string, x *Node)

func (o Observer) show(name string, x *Node) *Node {
	if o != nil {
		o(name, x)
	}
	return x
}

// Tower is the SigLIP vision tower up to a layer: tiles [T, S, S, 3] in [-1, 1] -> [T, grid*grid, H], patches row by
// row. There is no norm at the end: the projector gets the residual stream. The scope is the tower's vision_model.
func Tower(s graphx.Scope, v VisionConfig, layers int, tiles *Node, see Observer) *Node {
	h := see.show("embeddings", embedPatches(s.In("embeddings"), v, tiles))
	for i := range layers {
		h = see.show(fmt.Sprintf("layer%d", i+1), s.Layer(h, func(h *Node) *Node { return towerLayer(s.In("encoder", "layers", i), v, h) }))
	}
	return h
}

func towerLayer(s graphx.Scope, v VisionConfig, h *Node) *Node {
	h = Add(h, towerAttention(s.In("self_attn"), v, nn.LayerNorm(s.In("layer_norm1"), h, v.LayerNormEps)))
	mlp := s.In("mlp")
	m := nn.GELUTanh(nn.Linear(mlp.In("fc1"), nn.LayerNorm(s.In("layer_norm2"), h, v.LayerNormEps)))
	return Add(h, nn.Linear(mlp.In("fc2"), m))
}

// embedPatches multiplies each patch with the kernel and adds the table of positions. A rest of the image that fills no
// patch is dropped.
func embedPatches(s graphx.Scope, v VisionConfig, tiles *Node) *Node {
	d, g, p := tiles.Shape().Dimensions, v.Grid(), v.PatchSize
	if len(d) != 4 || d[1] != v.ImageSize || d[2] != v.ImageSize || d[3] != 3 {
		panic(fmt.Errorf("llavaov: tower: tiles are %v, want [T, %d, %d, 3]", d, v.ImageSize, v.ImageSize))
	}
	x := tiles
	if g*p < v.ImageSize {
		x = Slice(x, AxisRange(), AxisRange(0, g*p), AxisRange(0, g*p), AxisRange())
	}
	x = TransposeAllDims(Reshape(x, d[0], g, p, g, p, 3), 0, 1, 3, 5, 2, 4) // [T, g, g, 3, p, p]
	kernel := Reshape(s.Param("patch_embedding.weight", v.HiddenSize, 3, p, p), v.HiddenSize, 3*p*p)
	h := nn.MatMulT(s, Reshape(x, d[0], g*g, 3*p*p), kernel)
	position := Add(s.Float32("position_embedding.weight", g*g, v.HiddenSize),
		ExpandLeftToRank(s.Float32("patch_embedding.bias", v.HiddenSize), 2))
	return Add(h, ExpandLeftToRank(position, 3))
}

// towerAttention lets every patch see all of its tile.
func towerAttention(s graphx.Scope, v VisionConfig, x *Node) *Node {
	heads := v.NumAttentionHeads
	split := func(name string) *Node { return nn.SplitHeads(nn.Linear(s.In(name), x), heads) }
	a := nn.Attention(split("q_proj"), split("k_proj"), split("v_proj"), nil, 1/math.Sqrt(float64(v.HiddenSize/heads)))
	return nn.Linear(s.In("out_proj"), nn.MergeHeads(a))
}

// Project turns tower rows [..., H] into decoder rows [..., D]: linear_2(gelu(linear_1 x)) with the exact (erf) gelu.
// The scope is mm_projector.
func Project(s graphx.Scope, x *Node) *Node {
	return nn.Linear(s.In("2"), nn.GELUErf(nn.Linear(s.In("0"), x)))
}
