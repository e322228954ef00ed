package nn

import (
	"imagecot/internal/graphx"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Conv2D convolves x [B, H, W, in] with weight [out, in, kh, kw] and adds the bias. pad is {top, bottom, left, right}
// zeros. The result is [B, H', W', out].
func Conv2D(s graphx.Scope, x *Node, stride int, pad [4]int) *Node {
	w := s.Float32("weight")
	kh, kw := w.Shape().Dimensions[2], w.Shape().Dimensions[3]
	var y *Node
	switch {
	case kh == 1 && kw == 1 && stride == 1 && pad == [4]int{}:
		y = MatMulT(s, x, Reshape(s.Param("weight"), w.Shape().Dimensions[0], w.Shape().Dimensions[1]))
	case s.Policy.ShiftConv:
		y = shiftConv(s, x, w, stride, pad)
	default:
		kernel := TransposeAllDims(w, 2, 3, 1, 0) // [kh, kw, in, out]
		y = Convolve(x, kernel).Strides(stride).
			PaddingPerDim([][2]int{{pad[0], pad[1]}, {pad[2], pad[3]}}).Done()
	}
	if s.Has("bias") {
		y = Add(y, ExpandLeftToRank(s.Float32("bias"), 4))
	}
	return y
}

// Conv3x3 is Conv2D with a padding of 1 on every side and stride 1.
func Conv3x3(s graphx.Scope, x *Node) *Node { return Conv2D(s, x, 1, [4]int{1, 1, 1, 1}) }

// UpsampleConv3x3 is Conv3x3 of UpsampleNearest of x [B, H, W, in]: [B, 2H, 2W, out].
func UpsampleConv3x3(s graphx.Scope, x *Node) *Node { return Conv3x3(s, UpsampleNearest(x)) }

// shiftConv is the convolution as kh*kw shifted matrix products: sum over (i, j) of x[h*stride+i, w*stride+j] W_ij^T.
func shiftConv(s graphx.Scope, x, w *Node, stride int, pad [4]int) *Node {
	kh, kw := w.Shape().Dimensions[2], w.Shape().Dimensions[3]
	zero := ScalarZero(x.Graph(), x.DType())
	x = Pad(x, zero, PadAxis{}, PadAxis{Start: pad[0], End: pad[1]}, PadAxis{Start: pad[2], End: pad[3]}, PadAxis{})
	d := x.Shape().Dimensions
	h, wd := (d[1]-kh)/stride+1, (d[2]-kw)/stride+1
	var y *Node
	for i := range kh {
		for j := range kw {
			part := Slice(x, AxisRange(), AxisRange(i, i+(h-1)*stride+1).Stride(stride),
				AxisRange(j, j+(wd-1)*stride+1).Stride(stride), AxisRange())
			tap := Reshape(Slice(w, AxisRange(), AxisRange(), AxisElem(i), AxisElem(j)), w.Shape().Dimensions[0], -1)
			p := MatMulT(s, part, tap)
			if y == nil {
				y = p
			} else {
				y = Add(y, p)
			}
		}
	}
	return y
}

// UpsampleNearest doubles height and width of x [B, H, W, C] by repeating every pixel.
func UpsampleNearest(x *Node) *Node {
	d := x.Shape().Dimensions
	y := Reshape(x, d[0], d[1], 1, d[2], 1, d[3])
	y = BroadcastToDims(y, d[0], d[1], 2, d[2], 2, d[3])
	return Reshape(y, d[0], 2*d[1], 2*d[2], d[3])
}
