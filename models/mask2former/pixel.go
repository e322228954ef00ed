package mask2former

import (
	"math"

	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// PixelDecoder turns the backbone's maps (stride 4 to 32) into three maps [B, h, w, C], stride 32, 16, 8 in this order,
// and the mask features [B, H/4, W/4, mask channels].
func PixelDecoder(s graphx.Scope, c Config, maps []*Node) (multi []*Node, features *Node) {
	m := newMultiScale(c, maps)
	var tokens, positions []*Node
	for i, g := range m.grids {
		x := nn.Conv2D(s.In("input_projections", i, 0), maps[stages-1-i], 1, [4]int{})
		x = nn.GroupNorm(s.In("input_projections", i, 1), x, groups, decoderNormEps)
		vector := Slice(s.Float32("level_embed", levels, c.Channels), AxisRange(i, i+1)) // [1, C]
		p := Add(sinePositions(x.Graph(), g.h, g.w, c.Channels), BroadcastToDims(vector, g.h*g.w, c.Channels))
		tokens = append(tokens, Reshape(x, -1, g.h*g.w, c.Channels))
		positions = append(positions, p)
	}
	h, position := Concatenate(tokens, 1), Concatenate(positions, 0) // [B, S, C], [S, C]
	for i := range c.PixelLayers {
		layer := s.In("encoder", "layers", i)
		h = Add(h, m.attend(layer.In("self_attn"), Add(h, BroadcastToShape(ExpandLeftToRank(position, 3), h.Shape())), h))
		h = nn.LayerNorm(layer.In("self_attn_layer_norm"), h, decoderNormEps)
		f := nn.Linear(layer.In("fc2"), relu(nn.Linear(layer.In("fc1"), h)))
		h = nn.LayerNorm(layer.In("final_layer_norm"), Add(h, f), decoderNormEps)
	}
	for _, g := range m.grids {
		x := Slice(h, AxisRange(), AxisRange(g.start, g.start+g.h*g.w), AxisRange())
		multi = append(multi, Reshape(x, -1, g.h, g.w, c.Channels))
	}

	fine := maps[0].Shape().Dimensions
	x := nn.GroupNorm(s.In("adapter_1", 1), nn.Conv2D(s.In("adapter_1", 0), maps[0], 1, [4]int{}), groups, decoderNormEps)
	x = Add(x, bilinear(multi[levels-1], fine[1], fine[2]))
	x = relu(nn.GroupNorm(s.In("layer_1", 1), nn.Conv3x3(s.In("layer_1", 0), x), groups, decoderNormEps))
	return multi, nn.Conv2D(s.In("mask_projection"), x, 1, [4]int{})
}

func relu(x *Node) *Node { return MaxScalar(x, 0) }

// sinePositions is [h*w, C]: half of the channels for the row, half for the column; sines and cosines take turns.
//
//	row i of h: a = 2 pi (i+1) / (h + 1e-6); channels 2k, 2k+1: sin, cos of a / 10000^(2k / (C/2))
func sinePositions(g *Graph, h, w, channels int) *Node {
	half := channels / 2
	axis := func(n int) [][]float32 {
		out := make([][]float32, n)
		for i := range out {
			out[i] = make([]float32, half)
			angle := 2 * math.Pi * float64(i+1) / (float64(n) + 1e-6)
			for k := range half {
				a := angle / math.Pow(10000, float64(k/2*2)/float64(half))
				if k%2 == 0 {
					out[i][k] = float32(math.Sin(a))
				} else {
					out[i][k] = float32(math.Cos(a))
				}
			}
		}
		return out
	}
	rows := BroadcastToDims(InsertAxes(Const(g, axis(h)), 1), h, w, half)
	columns := BroadcastToDims(InsertAxes(Const(g, axis(w)), 0), h, w, half)
	return Reshape(Concatenate([]*Node{rows, columns}, -1), h*w, channels)
}

// grid is one level among the tokens.
type grid struct{ h, w, start int }

// multiScale is deformable attention over the tokens of all levels.
type multiScale struct {
	c     Config
	grids []grid
	total int
}

func newMultiScale(c Config, maps []*Node) multiScale {
	m := multiScale{c: c}
	for i := range levels {
		d := maps[stages-1-i].Shape().Dimensions
		m.grids = append(m.grids, grid{d[1], d[2], m.total})
		m.total += d[1] * d[2]
	}
	return m
}

// attend is multi-scale deformable attention (Zhu et al. 2021). Each head of each token looks at a few places of each
// level, near the token's own, which the token itself names; what it sees is weighted by the token too.
//
//	queries [B, S, C] -> offsets in pixels and weights (softmax over levels and points); values [B, S, C]
//	place on level l = own centre in [0, 1] * size of l + offset - .5; bilinear, zero outside
func (m multiScale) attend(s graphx.Scope, queries, values *Node) *Node {
	batch, heads := queries.Shape().Dimensions[0], m.c.Heads
	size := m.c.Channels / heads
	offsets := Reshape(nn.Linear(s.In("sampling_offsets"), queries), batch, m.total, heads, levels, points, 2)
	weights := Reshape(nn.Linear(s.In("attention_weights"), queries), batch, m.total, heads, levels*points)
	weights = Reshape(Softmax(weights, -1), batch, m.total, heads, levels, points)
	table := Reshape(nn.Linear(s.In("value_proj"), values), batch*m.total*heads, size)

	var sum *Node
	for l, g := range m.grids {
		places := Reshape(Const(queries.Graph(), m.places(g)), m.total, 2)
		at := func(xy int) *Node { // [B, S, heads, points]
			o := Slice(offsets, AxisRange(), AxisRange(), AxisRange(), AxisRange(l, l+1), AxisRange(), AxisRange(xy, xy+1))
			o = Reshape(o, batch, m.total, heads, points)
			own := Reshape(Slice(places, AxisRange(), AxisRange(xy, xy+1)), 1, m.total, 1, 1)
			return Add(BroadcastToShape(own, o.Shape()), o)
		}
		weight := Reshape(Slice(weights, AxisRange(), AxisRange(), AxisRange(), AxisRange(l, l+1)), batch, m.total, heads, points)
		seen := m.sample(table, g, at(0), at(1), weight)
		if sum == nil {
			sum = seen
		} else {
			sum = Add(sum, seen)
		}
	}
	return nn.Linear(s.In("output_proj"), Reshape(sum, batch, m.total, m.c.Channels))
}

// places of the tokens' own centres on a level, x and y in pixels, [S, 2] row by row. They are constants, so that a place is a sum
// and no product: an engine that computes a place twice, once for the pixel and once for its weight, may fuse a product
// into the sum in one of the two, and a place on the edge of a pixel would then be weighted as another.
func (m multiScale) places(to grid) []float32 {
	out := make([]float32, 0, 2*m.total)
	for _, g := range m.grids {
		for i := range g.h * g.w {
			x, y := (float64(i%g.w)+.5)/float64(g.w), (float64(i/g.w)+.5)/float64(g.h)
			out = append(out, float32(x*float64(to.w)-.5), float32(y*float64(to.h)-.5))
		}
	}
	return out
}

// sample looks at places x, y [B, S, heads, points] in pixels of one level, bilinearly, and returns the weighted sum over
// points, [B, S, heads, size]. table is [B*S*heads, size].
func (m multiScale) sample(table *Node, g grid, x, y, weight *Node) *Node {
	shape := shapes.Make(dtypes.Int32, x.Shape().Dimensions...)
	left, top := Floor(x), Floor(y)
	right, below := Sub(x, left), Sub(y, top) // how far towards the next pixel
	row := Add(MulScalar(Iota(x.Graph(), shape, 0), m.total*m.c.Heads), Iota(x.Graph(), shape, 2))
	var sum *Node
	for corner := range 4 {
		dx, dy := corner%2, corner/2
		cx, cy := AddScalar(left, float32(dx)), AddScalar(top, float32(dy))
		share := Mul(towards(right, dx), towards(below, dy))
		share = Mul(Mul(share, weight), Mul(inside(cx, g.w), inside(cy, g.h)))
		column, line := ConvertDType(ClipScalar(cx, 0, float64(g.w-1)), dtypes.Int32), ConvertDType(ClipScalar(cy, 0, float64(g.h-1)), dtypes.Int32)
		token := AddScalar(Add(MulScalar(line, g.w), column), g.start)
		seen := Gather(table, InsertAxes(Add(row, MulScalar(token, m.c.Heads)), -1)) // [B, S, heads, points, size]
		seen = ReduceSum(Mul(seen, BroadcastToShape(InsertAxes(share, -1), seen.Shape())), 3)
		if sum == nil {
			sum = seen
		} else {
			sum = Add(sum, seen)
		}
	}
	return sum
}

// towards is the weight of the pixel before (0) or after (1) a place that lies t between them.
func towards(t *Node, after int) *Node {
	if after == 1 {
		return t
	}
	return OneMinus(t)
}

// inside is 1 where 0 <= i < n, else 0.
func inside(i *Node, n int) *Node {
	low, high := GreaterOrEqual(i, ScalarZero(i.Graph(), i.DType())), LessThan(i, Scalar(i.Graph(), i.DType(), n))
	return ConvertDType(LogicalAnd(low, high), dtypes.Float32)
}
