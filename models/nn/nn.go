// Package nn holds the layers that the models are made of, on GoMLX's core graph. Each is a function of a Scope that
// names its weights as the published checkpoints do (PyTorch layouts: a linear weight is [out, in], a convolution's
// [out, in, kh, kw]). Activations are float32; images are channels-last [B, H, W, C].
package nn

import (
	"math"

	"imagecot/internal/graphx"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Linear is x W^T + b over the last axis: x [..., in], weight [out, in], bias [out] where the checkpoint has one.
func Linear(s graphx.Scope, x *Node) *Node {
	y := MatMulT(s, x, s.Param("weight"))
	if s.Has("bias") {
		y = Add(y, ExpandLeftToRank(s.Float32("bias"), y.Rank()))
	}
	return y
}

// MatMulT is x W^T over the last axis, x [..., in], w [out, in], with a float32 result. The product is of the policy's type,
// and of bfloat16 where the weight is kept so: to widen it in the graph would need the memory that was saved.
func MatMulT(s graphx.Scope, x, w *Node) *Node {
	dims := x.Shape().Dimensions
	in, out := dims[len(dims)-1], w.Shape().Dimensions[0]
	flat := x
	if len(dims) != 2 {
		flat = Reshape(x, -1, in)
	}
	var y *Node
	if s.Policy.Compute == dtypes.BFloat16 || w.DType() == dtypes.BFloat16 {
		y = Dot(ConvertDType(flat, dtypes.BFloat16), ConvertDType(w, dtypes.BFloat16)).
			WithOutputDType(dtypes.Float32).General([]int{1}, nil, []int{1}, nil)
	} else {
		y = Dot(flat, ConvertDType(w, dtypes.Float32)).General([]int{1}, nil, []int{1}, nil)
	}
	if len(dims) == 2 {
		return y
	}
	return Reshape(y, append(append([]int{}, dims[:len(dims)-1]...), out)...)
}

// LayerNorm over the last axis with biased variance: (x - mean) / sqrt(var + eps) * weight + bias.
func LayerNorm(s graphx.Scope, x *Node, eps float64) *Node {
	y := normalize(x, eps, -1)
	y = Mul(y, ExpandLeftToRank(s.Float32("weight"), x.Rank()))
	if s.Has("bias") {
		y = Add(y, ExpandLeftToRank(s.Float32("bias"), x.Rank()))
	}
	return y
}

// RMSNorm over the last axis: x / sqrt(mean(x^2) + eps) * weight.
func RMSNorm(s graphx.Scope, x *Node, eps float64) *Node {
	ms := ReduceAndKeep(Square(x), ReduceMean, -1)
	y := Div(x, Sqrt(AddScalar(ms, eps)))
	return Mul(y, ExpandLeftToRank(s.Float32("weight"), x.Rank()))
}

// GroupNorm of x [B, H, W, C] over H, W and the C/groups channels of a group.
func GroupNorm(s graphx.Scope, x *Node, groups int, eps float64) *Node {
	d := x.Shape().Dimensions
	pixels, channels := d[1]*d[2], d[3]
	flat := Reshape(x, d[0], pixels, channels)
	everywhere := func(v *Node) *Node { return BroadcastToShape(v, flat.Shape()) }
	mean := func(v *Node) *Node { // of a group, [B, 1, C]: first over the pixels, where the channels lie side by side
		sum := ReduceAndKeep(Reshape(ReduceSum(v, 1), d[0], groups, channels/groups), ReduceSum, 2)
		sum = MulScalar(sum, 1/float64(pixels*channels/groups))
		return Reshape(BroadcastToDims(sum, d[0], groups, channels/groups), d[0], 1, channels)
	}
	middle := mean(flat)
	deviation := Sqrt(AddScalar(mean(Square(Sub(flat, everywhere(middle)))), eps))
	scale := Div(BroadcastToShape(ExpandLeftToRank(s.Float32("weight", channels), 3), middle.Shape()), deviation)
	shift := Sub(BroadcastToShape(ExpandLeftToRank(s.Float32("bias", channels), 3), middle.Shape()), Mul(middle, scale))
	return Reshape(Add(Mul(flat, everywhere(scale)), everywhere(shift)), d...)
}

// normalize subtracts the mean and divides by the deviation over the axes.
func normalize(x *Node, eps float64, axes ...int) *Node {
	centred := Sub(x, ReduceAndKeep(x, ReduceMean, axes...))
	variance := ReduceAndKeep(Square(centred), ReduceMean, axes...)
	return Div(centred, Sqrt(AddScalar(variance, eps)))
}

// GELUTanh is 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
func GELUTanh(x *Node) *Node {
	inner := MulScalar(Add(x, MulScalar(Mul(Square(x), x), 0.044715)), math.Sqrt(2/math.Pi))
	return Mul(MulScalar(x, 0.5), AddScalar(Tanh(inner), 1))
}

// GELUErf is 0.5 x (1 + erf(x / sqrt 2)).
func GELUErf(x *Node) *Node {
	return Mul(MulScalar(x, 0.5), AddScalar(Erf(MulScalar(x, 1/math.Sqrt2)), 1))
}

// SiLU is x sigmoid(x), also called swish.
func SiLU(x *Node) *Node { return Mul(x, Sigmoid(x)) }

// softmax over the last axis, shifted by its maximum (which takes no gradient).
func softmax(x *Node) *Node {
	e := Exp(Sub(x, StopGradient(ReduceAndKeep(x, ReduceMax, -1))))
	return Div(e, ReduceAndKeep(e, ReduceSum, -1))
}

// LogSumExp over the last axis, which is dropped.
func LogSumExp(x *Node) *Node {
	m := StopGradient(ReduceAndKeep(x, ReduceMax, -1))
	return Add(Log(ReduceSum(Exp(Sub(x, m)), -1)), Squeeze(m, -1))
}

// Attention is softmax(q k^T * scale + mask) v with q [B, H, Q, d], k and v [B, H, K, d]. mask is additive, broadcast
// from [B or 1, 1, Q, K], or nil.
func Attention(q, k, v, mask *Node, scale float64) *Node {
	scores := MulScalar(Dot(q, k).General([]int{3}, []int{0, 1}, []int{3}, []int{0, 1}), scale)
	if mask != nil {
		scores = Add(scores, BroadcastToShape(mask, scores.Shape()))
	}
	return Dot(softmax(scores), v).General([]int{3}, []int{0, 1}, []int{2}, []int{0, 1})
}

// SplitHeads turns [B, T, H*d] into [B, H, T, d].
func SplitHeads(x *Node, heads int) *Node {
	d := x.Shape().Dimensions
	return TransposeAllDims(Reshape(x, d[0], d[1], heads, d[2]/heads), 0, 2, 1, 3)
}

// MergeHeads turns [B, H, T, d] into [B, T, H*d].
func MergeHeads(x *Node) *Node {
	d := x.Shape().Dimensions
	return Reshape(TransposeAllDims(x, 0, 2, 1, 3), d[0], d[2], d[1]*d[3])
}

// AdditiveMask turns allow (0 or 1, any type) into 0 where allowed and -1e9 elsewhere.
func AdditiveMask(allow *Node) *Node {
	return MulScalar(AddScalar(ConvertDType(allow, dtypes.Float32), -1), 1e9)
}

// RotaryTables returns cos and sin [..., r/2] for positions (any integer or float type) and angles
// position * theta^(-2i/r), i < r/2.
func RotaryTables(positions *Node, r int, theta float64) (cos, sin *Node) {
	freq := make([]float32, r/2)
	for i := range freq {
		freq[i] = float32(math.Pow(theta, -2*float64(i)/float64(r)))
	}
	p := ConvertDType(positions, dtypes.Float32)
	angle := Mul(InsertAxes(p, -1), ExpandLeftToRank(Const(positions.Graph(), freq), p.Rank()+1))
	return Cos(angle), Sin(angle)
}

// RotaryConstants are the tables [n, r/2] of positions from..from+n-1. Constants are not computed again in every loop that
// reads them, as XLA does with cosines.
func RotaryConstants(g *Graph, from, n, r int, theta float64) (cos, sin *Node) {
	c, s := make([][]float32, n), make([][]float32, n)
	for p := range n {
		for i := range r / 2 {
			// As RotaryTables does: frequency and angle are float32.
			angle := float32(from+p) * float32(math.Pow(theta, -2*float64(i)/float64(r)))
			c[p] = append(c[p], float32(math.Cos(float64(angle))))
			s[p] = append(s[p], float32(math.Sin(float64(angle))))
		}
	}
	return Const(g, c), Const(g, s)
}

// Rotary turns the first r channels of x [B, H, T, d] (half-split pairs: channel i with i + r/2) and passes the rest
// through. cos and sin are broadcast from [B or 1, 1, T, r/2].
func Rotary(x, cos, sin *Node, r int) *Node {
	d := x.Shape().Dimensions
	u := Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(0, r/2))
	w := Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(r/2, r))
	c, s := BroadcastToShape(cos, u.Shape()), BroadcastToShape(sin, u.Shape())
	parts := []*Node{Sub(Mul(u, c), Mul(w, s)), Add(Mul(w, c), Mul(u, s))}
	if r < d[3] {
		parts = append(parts, Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(r, d[3])))
	}
	return Concatenate(parts, -1)
}
