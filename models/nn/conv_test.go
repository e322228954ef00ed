package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// convCase is one convolution of random numbers.
type convCase struct {
	b, h, w, in, out, kernel, stride int
	pad                              [4]int
	x, weight, bias                  []float32
}

func newConvCase(b, h, w, in, out, kernel, stride int, pad [4]int) convCase {
	rng := rand.New(rand.NewPCG(uint64(h), uint64(out)))
	random := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		return v
	}
	return convCase{b, h, w, in, out, kernel, stride, pad, random(b * h * w * in), random(out * in * kernel * kernel), random(out)}
}

func (c convCase) String() string {
	return fmt.Sprintf("%dx%dx%dx%d to %d, kernel %d, stride %d, pad %v", c.b, c.h, c.w, c.in, c.out, c.kernel, c.stride, c.pad)
}

// reference is the convolution's definition, in float64.
func (c convCase) reference() []float32 {
	h, w := (c.h+c.pad[0]+c.pad[1]-c.kernel)/c.stride+1, (c.w+c.pad[2]+c.pad[3]-c.kernel)/c.stride+1
	var y []float32
	for b := range c.b {
		for row := range h {
			for col := range w {
				for o := range c.out {
					y = append(y, float32(c.at(b, row*c.stride-c.pad[0], col*c.stride-c.pad[2], o)))
				}
			}
		}
	}
	return y
}

func (c convCase) at(b, top, left, o int) float64 {
	sum := float64(c.bias[o])
	for i := range c.kernel {
		for j := range c.kernel {
			row, col := top+i, left+j
			if row < 0 || row >= c.h || col < 0 || col >= c.w {
				continue
			}
			for k := range c.in {
				sum += float64(c.x[((b*c.h+row)*c.w+col)*c.in+k]) *
					float64(c.weight[((o*c.in+k)*c.kernel+i)*c.kernel+j])
			}
		}
	}
	return sum
}

// run applies layer and returns its result, or with gradients those of the weighted sum of the result's elements
// with respect to x, weight and bias.
func (c convCase) run(t *testing.T, be compute.Backend, shift, gradients bool, layer func(graphx.Scope, *Node) *Node) [][]float32 {
	t.Helper()
	e := MustNewExec(be, func(in []*Node) []*Node {
		s := graphx.NewScope(map[string]*Node{"weight": in[1], "bias": in[2]}, graphx.Policy{ShiftConv: shift})
		y := layer(s, in[0])
		if !gradients {
			return []*Node{y}
		}
		ramp := AddScalar(MulScalar(Sin(IotaFull(y.Graph(), y.Shape())), .5), 1)
		return Gradient(ReduceAllSum(Mul(Square(y), ramp)), in...)
	})
	out, err := e.Exec(graphx.Tensor(c.x, c.b, c.h, c.w, c.in), graphx.Tensor(c.weight, c.out, c.in, c.kernel, c.kernel), graphx.Tensor(c.bias, c.out))
	if err != nil {
		t.Fatal(err)
	}
	values := make([][]float32, len(out))
	for i, o := range out {
		values[i] = tensors.MustCopyFlatData[float32](o)
	}
	return values
}

func sameFloats(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	scale := 0.
	for _, v := range want {
		scale = max(scale, math.Abs(float64(v)))
	}
	for i := range got {
		if d := math.Abs(float64(got[i] - want[i])); !(d <= 1e-5*(1+scale)) {
			t.Fatalf("%s: value %d is %g, want %g", what, i, got[i], want[i])
		}
	}
}

func convCases() []convCase {
	return []convCase{
		newConvCase(2, 5, 7, 6, 5, 3, 1, [4]int{1, 1, 1, 1}),
		newConvCase(1, 6, 4, 5, 3, 3, 2, [4]int{0, 1, 0, 1}), // MAGVIT's downsampling
		newConvCase(2, 5, 4, 3, 4, 3, 1, [4]int{1, 1, 1, 1}), // few channels
		newConvCase(2, 3, 4, 6, 5, 1, 1, [4]int{}),
		newConvCase(1, 8, 12, 3, 7, 4, 4, [4]int{}),          // patch embedding
		newConvCase(1, 9, 9, 5, 2, 5, 1, [4]int{1, 3, 0, 2}), // lopsided padding
	}
}

func TestConv2DMatchesReference(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		for _, c := range convCases() {
			for _, shift := range []bool{false, true} {
				got := c.run(t, be, shift, false, func(s graphx.Scope, x *Node) *Node { return Conv2D(s, x, c.stride, c.pad) })
				sameFloats(t, fmt.Sprintf("%v, shift %v", c, shift), got[0], c.reference())
			}
		}
	})
}

func TestConv2DGradientsAgree(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		for _, c := range convCases() {
			layer := func(s graphx.Scope, x *Node) *Node { return Conv2D(s, x, c.stride, c.pad) }
			if c.pad[0] > (c.kernel-1)/2 || c.pad[1] > c.kernel-1 {
				continue // GoMLX has no gradient for it
			}
			got, want := c.run(t, be, true, true, layer), c.run(t, be, false, true, layer)
			for i, name := range []string{"x", "weight", "bias"} {
				sameFloats(t, fmt.Sprintf("%v: gradient of %s", c, name), got[i], want[i])
			}
		}
	})
}

func TestUpsampleConv3x3IsConvolutionOfUpsampled(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		c := newConvCase(2, 3, 4, 6, 5, 3, 1, [4]int{})
		plain := func(s graphx.Scope, x *Node) *Node { return Conv3x3(s, UpsampleNearest(x)) }
		for _, shift := range []bool{false, true} {
			for _, gradients := range []bool{false, true} {
				got, want := c.run(t, be, shift, gradients, UpsampleConv3x3), c.run(t, be, shift, gradients, plain)
				for i := range got {
					sameFloats(t, fmt.Sprintf("shift %v, gradients %v, %d", shift, gradients, i), got[i], want[i])
				}
			}
		}
	})
}

func TestUpsampleNearestRepeatsPixels(t *testing.T) {
	e := MustNewExec1(enginetest.Go(t), UpsampleNearest)
	got := tensors.MustCopyFlatData[float32](e.MustExec1(graphx.Tensor([]float32{1, -1, 2, -2}, 1, 1, 2, 2)))
	sameFloats(t, "upsampled", got, []float32{1, -1, 1, -1, 2, -2, 2, -2, 1, -1, 1, -1, 2, -2, 2, -2})
}
