package mask2former

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// tap is what one result of bilinear resizing sees along an axis: source i with weight 1-t and source j with weight t.
type tap struct {
	i, j int
	t    float32
}

// taps along an axis that goes from in to out, PyTorch's align_corners=False without antialiasing: result k sits at
// (k + .5) in/out - .5, not below 0.
func taps(in, out int) []tap {
	all := make([]tap, out)
	scale := float32(in) / float32(out)
	for k := range all {
		at := max(float32(scale*(float32(k)+.5))-.5, 0)
		i := min(int(at), in-1)
		all[k] = tap{i, min(i+1, in-1), at - float32(i)}
	}
	return all
}

// Bilinear resizes one map, [h*w] row by row, to [height*width].
func Bilinear(from []float32, h, w, height, width int) []float32 {
	rows, columns := taps(h, height), taps(w, width)
	out := make([]float32, 0, height*width)
	for _, r := range rows {
		upper, lower := from[r.i*w:][:w], from[r.j*w:][:w]
		for _, c := range columns {
			u := (1-c.t)*upper[c.i] + c.t*upper[c.j]
			l := (1-c.t)*lower[c.i] + c.t*lower[c.j]
			out = append(out, (1-r.t)*u+r.t*l)
		}
	}
	return out
}

// bilinear resizes axes 1 and 2 of x [B, h, w, C] to height and width, as one matrix product an axis.
func bilinear(x *Node, height, width int) *Node {
	d := x.Shape().Dimensions
	if d[1] != height {
		x = Einsum("oh,bhwc->bowc", Const(x.Graph(), tapMatrix(d[1], height)), x)
	}
	if d[2] != width {
		x = Einsum("pw,bowc->bopc", Const(x.Graph(), tapMatrix(d[2], width)), x)
	}
	return x
}

// tapMatrix is [out, in], two weights a row.
func tapMatrix(in, out int) [][]float32 {
	m := make([][]float32, out)
	for k, t := range taps(in, out) {
		m[k] = make([]float32, in)
		m[k][t.i] += 1 - t.t
		m[k][t.j] += t.t
	}
	return m
}
