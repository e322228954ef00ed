package mask2former

import (
	"fmt"
	"math"

	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Backbone is Swin: pixels [B, H, W, 3] -> maps at stride 4, 8, 16, 32, [B, h, w, width of the stage]. Any H and W will
// do; what does not fill a patch or a window is padded with zeros.
func Backbone(s graphx.Scope, c SwinConfig, pixels *Node) []*Node {
	h := nn.LayerNorm(s.In("embeddings", "norm"), embedPatches(s.In("embeddings", "patch_embeddings", "projection"), c, pixels), c.LayerNormEps)
	places := Const(pixels.Graph(), relativePlaces(c.Window))
	var maps []*Node
	for i := range stages {
		stage := s.In("encoder", "layers", i)
		for b := range c.Depths[i] {
			h = swinBlock(stage.In("blocks", b), c, c.Heads[i], b%2*(c.Window/2), places, h)
		}
		maps = append(maps, nn.LayerNorm(s.In("hidden_states_norms", fmt.Sprintf("stage%d", i+1)), h, c.LayerNormEps))
		if i < stages-1 {
			h = mergePatches(stage.In("downsample"), c, h)
		}
	}
	return maps
}

// embedPatches multiplies each patch with the kernel: [B, ceil(H/4), ceil(W/4), width].
func embedPatches(s graphx.Scope, c SwinConfig, pixels *Node) *Node {
	p := c.PatchSize
	x := padTo(pixels, p)
	d := x.Shape().Dimensions
	x = TransposeAllDims(Reshape(x, d[0], d[1]/p, p, d[2]/p, p, 3), 0, 1, 3, 5, 2, 4) // [B, h, w, 3, p, p]
	kernel := Reshape(s.Param("weight", c.Width, 3, p, p), c.Width, 3*p*p)
	y := nn.MatMulT(s, Reshape(x, d[0], d[1]/p, d[2]/p, 3*p*p), kernel)
	return Add(y, ExpandLeftToRank(s.Float32("bias", c.Width), 4))
}

// padTo pads height and width of x [B, H, W, C] with zeros to multiples of n.
func padTo(x *Node, n int) *Node {
	d := x.Shape().Dimensions
	return nn.PadZeros(nn.PadZeros(x, 1, 0, (n-d[1]%n)%n), 2, 0, (n-d[2]%n)%n)
}

// mergePatches halves height and width: the four pixels of a square, by column and then by row, become one.
func mergePatches(s graphx.Scope, c SwinConfig, h *Node) *Node {
	h = padTo(h, 2)
	d := h.Shape().Dimensions
	h = Reshape(h, d[0], d[1]/2, 2, d[2]/2, 2, d[3])
	h = Reshape(TransposeAllDims(h, 0, 1, 3, 4, 2, 5), d[0], d[1]/2, d[2]/2, 4*d[3])
	return nn.Linear(s.In("reduction"), nn.LayerNorm(s.In("norm"), h, c.LayerNormEps))
}

// swinBlock is window attention and a feed-forward part, each normed before and added to h [B, H, W, C].
func swinBlock(s graphx.Scope, c SwinConfig, heads, shift int, places, h *Node) *Node {
	h = Add(h, windowAttention(s.In("attention"), c, heads, shift, places, nn.LayerNorm(s.In("layernorm_before"), h, c.LayerNormEps)))
	m := nn.Linear(s.In("intermediate", "dense"), nn.LayerNorm(s.In("layernorm_after"), h, c.LayerNormEps))
	return Add(h, nn.Linear(s.In("output", "dense"), nn.GELUErf(m)))
}

// windowAttention lets every pixel see those of its window. The padding takes part. With a shift, windows lie between
// those of the block before; they wrap around the edges, and what was not together before wrapping is kept apart by
// -100 on the score.
func windowAttention(s graphx.Scope, c SwinConfig, heads, shift int, places, x *Node) *Node {
	d, w := x.Shape().Dimensions, c.Window
	x = padTo(x, w)
	height, width := x.Shape().Dimensions[1], x.Shape().Dimensions[2]
	x = roll(roll(x, 1, shift), 2, shift)
	windows := height / w * (width / w)
	x = TransposeAllDims(Reshape(x, d[0], height/w, w, width/w, w, d[3]), 0, 1, 3, 2, 4, 5)
	x = Reshape(x, d[0]*windows, w*w, d[3])

	self := s.In("self")
	table := Gather(self.Float32("relative_position_bias_table", (2*w-1)*(2*w-1), heads), InsertAxes(places, -1)) // [n, n, heads]
	bias := Reshape(TransposeAllDims(table, 2, 0, 1), 1, 1, heads, w*w, w*w)
	bias = BroadcastToDims(bias, d[0], windows, heads, w*w, w*w)
	if shift > 0 {
		apart := Reshape(separation(x.Graph(), height, width, w, shift), 1, windows, 1, w*w, w*w)
		bias = Add(bias, BroadcastToShape(apart, bias.Shape()))
	}
	bias = Reshape(bias, d[0]*windows, heads, w*w, w*w)
	split := func(name string) *Node { return nn.SplitHeads(nn.Linear(self.In(name), x), heads) }
	a := nn.Attention(split("query"), split("key"), split("value"), bias, 1/math.Sqrt(float64(d[3]/heads)))
	x = nn.Linear(s.In("output", "dense"), nn.MergeHeads(a))

	x = TransposeAllDims(Reshape(x, d[0], height/w, width/w, w, w, d[3]), 0, 1, 3, 2, 4, 5)
	x = Reshape(x, d[0], height, width, d[3])
	x = roll(roll(x, 1, height-shift), 2, width-shift)
	return Slice(x, AxisRange(), AxisRange(0, d[1]), AxisRange(0, d[2]), AxisRange())
}

// roll moves x by n towards the start of an axis; what leaves there comes in at the end.
func roll(x *Node, axis, n int) *Node {
	size := x.Shape().Dimensions[axis]
	if n %= size; n == 0 {
		return x
	}
	part := func(from, to int) *Node {
		ranges := make([]SliceAxisSpec, x.Rank())
		for i := range ranges {
			ranges[i] = AxisRange()
		}
		ranges[axis] = AxisRange(from, to)
		return Slice(x, ranges...)
	}
	return Concatenate([]*Node{part(n, size), part(0, n)}, axis)
}

// relativePlaces is the row of the bias table for each pair of pixels of a window, [w*w, w*w].
func relativePlaces(w int) [][]int32 {
	out := make([][]int32, w*w)
	for i := range out {
		out[i] = make([]int32, w*w)
		for j := range out[i] {
			dy, dx := i/w-j/w+w-1, i%w-j%w+w-1
			out[i][j] = int32(dy*(2*w-1) + dx)
		}
	}
	return out
}

// separation is [windows, w*w, w*w]: 0 for pixels that were in one region before the picture was rolled, else -100.
func separation(g *Graph, height, width, w, shift int) *Node {
	band := func(i, size int) int32 {
		switch {
		case i < size-w:
			return 0
		case i < size-shift:
			return 1
		}
		return 2
	}
	var region [][]int32
	for top := 0; top < height; top += w {
		for left := 0; left < width; left += w {
			window := make([]int32, w*w)
			for i := range window {
				window[i] = 3*band(top+i/w, height) + band(left+i%w, width)
			}
			region = append(region, window)
		}
	}
	r := Const(g, region)
	shape := shapes.Make(dtypes.Int32, len(region), w*w, w*w)
	same := Equal(BroadcastToShape(InsertAxes(r, -1), shape), BroadcastToShape(InsertAxes(r, 1), shape))
	return MulScalar(AddScalar(ConvertDType(same, dtypes.Float32), -1), 100)
}
