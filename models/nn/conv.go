package nn

import (
	"imagecot/internal/graphx"

	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Conv2D convolves x [B, H, W, in] with weight [out, in, kh, kw] and adds the bias. pad is {top, bottom, left, right}
// zeros. The result is [B, H', W', out]. All ways of computing it have gradients for odd kernels; GoMLX's own
// convolution has a wrong one for even kernels.
func Conv2D(s graphx.Scope, x *Node, stride int, pad [4]int) *Node {
	w := s.Float32("weight")
	kh, kw := w.Shape().Dimensions[2], w.Shape().Dimensions[3]
	var y *Node
	switch {
	case kh == 1 && kw == 1 && stride == 1 && pad == [4]int{}:
		y = MatMulT(s, x, Reshape(s.Param("weight"), w.Shape().Dimensions[0], w.Shape().Dimensions[1]))
	case s.Policy.ShiftConv || x.Shape().Dimensions[3] <= fewChannels:
		y = patchConv(s, x, w, stride, pad)
	default:
		kernel := TransposeAllDims(w, 2, 3, 1, 0) // [kh, kw, in, out]
		y = Convolve(x, kernel).Strides(stride).
			PaddingPerDim([][2]int{{pad[0], pad[1]}, {pad[2], pad[3]}}).Done()
	}
	return addBias(s, y)
}

// fewChannels is the number of input channels up to which patches are faster than XLA's convolution too.
const fewChannels = 4

// Conv3x3 is Conv2D with a padding of 1 on every side and stride 1.
func Conv3x3(s graphx.Scope, x *Node) *Node { return Conv2D(s, x, 1, [4]int{1, 1, 1, 1}) }

// UpsampleConv3x3 is Conv3x3 of UpsampleNearest of x [B, H, W, in]: [B, 2H, 2W, out]. Two of three taps of an axis
// fall on the same small pixel, so each of the four positions inside a doubled pixel has a 2x2 kernel of its own on
// x: 4/9 of the work.
//
//	even row 2i: w0 x[i-1] + (w1 + w2) x[i]     odd row 2i+1: (w0 + w1) x[i] + w2 x[i+1]
func UpsampleConv3x3(s graphx.Scope, x *Node) *Node {
	w := s.Float32("weight")
	d, out := x.Shape().Dimensions, w.Shape().Dimensions[0]
	var kernels []*Node
	for row := range 2 {
		for col := range 2 {
			kernels = append(kernels, foldTaps(foldTaps(w, 2, row == 1), 3, col == 1))
		}
	}
	all := patchConv(s, x, Concatenate(kernels, 0), 1, [4]int{1, 1, 1, 1}) // [B, H+1, W+1, 4 out]
	var rows []*Node
	for row := range 2 {
		var cols []*Node
		for col := range 2 {
			first := (2*row + col) * out
			cols = append(cols, Slice(all, AxisRange(), AxisRange(row, row+d[1]), AxisRange(col, col+d[2]),
				AxisRange(first, first+out)))
		}
		rows = append(rows, Stack(cols, 3)) // [B, H, W, 2, out]
	}
	return addBias(s, Reshape(Stack(rows, 2), d[0], 2*d[1], 2*d[2], out))
}

// foldTaps turns the three taps w0 w1 w2 along the axis into (w0+w1, w2) for odd positions and (w0, w1+w2) for even ones.
func foldTaps(w *Node, axis int, odd bool) *Node {
	tap := func(i int) *Node {
		ranges := []SliceAxisSpec{AxisRange(), AxisRange(), AxisRange(), AxisRange()}
		ranges[axis] = AxisRange(i, i+1)
		return Slice(w, ranges...)
	}
	if odd {
		return Concatenate([]*Node{Add(tap(0), tap(1)), tap(2)}, axis)
	}
	return Concatenate([]*Node{tap(0), Add(tap(1), tap(2))}, axis)
}

func addBias(s graphx.Scope, y *Node) *Node {
	if s.Has("bias") {
		y = Add(y, ExpandLeftToRank(s.Float32("bias"), 4))
	}
	return y
}

// patchConv is the convolution as one matrix product over the patch of kh*kw*in values that each result sees.
func patchConv(s graphx.Scope, x, w *Node, stride int, pad [4]int) *Node {
	kh, kw := w.Shape().Dimensions[2], w.Shape().Dimensions[3]
	x = PadZeros(PadZeros(x, 1, pad[0], pad[1]), 2, pad[2], pad[3])
	d := x.Shape().Dimensions
	h, wd := (d[1]-kh)/stride+1, (d[2]-kw)/stride+1
	var taps []*Node
	for i := range kh {
		for j := range kw {
			taps = append(taps, Slice(x, AxisRange(), AxisRange(i, i+(h-1)*stride+1).Stride(stride),
				AxisRange(j, j+(wd-1)*stride+1).Stride(stride), AxisRange()))
		}
	}
	kernel := Reshape(TransposeAllDims(w, 0, 2, 3, 1), w.Shape().Dimensions[0], -1) // [out, kh kw in]
	return MatMulT(s, Concatenate(taps, -1), kernel)
}

// PadZeros puts zeros before and after x along an axis. Unlike Pad it has a gradient.
func PadZeros(x *Node, axis, before, after int) *Node {
	zeros := func(n int) *Node {
		d := append([]int{}, x.Shape().Dimensions...)
		d[axis] = n
		return Zeros(x.Graph(), shapes.Make(x.DType(), d...))
	}
	parts := []*Node{x}
	if before > 0 {
		parts = []*Node{zeros(before), x}
	}
	if after > 0 {
		parts = append(parts, zeros(after))
	}
	if len(parts) == 1 {
		return x
	}
	return Concatenate(parts, axis)
}

// UpsampleNearest doubles height and width of x [B, H, W, C] by repeating every pixel.
func UpsampleNearest(x *Node) *Node {
	d := x.Shape().Dimensions
	y := Reshape(x, d[0], d[1], 1, d[2], 1, d[3])
	y = BroadcastToDims(y, d[0], d[1], 2, d[2], 2, d[3])
	return Reshape(y, d[0], 2*d[1], 2*d[2], d[3])
}
