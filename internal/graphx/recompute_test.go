package graphx_test

import (
	"math"
	"testing"

	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Recomputing changes no value and no gradient; where the engine can, the forward inside a block is there twice.
func TestLayerIsComputedAgain(t *testing.T) {
	x, w := []float32{.3, -.7, 1.1, .2}, []float32{.5, -.25, .75, 2}
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		ops := be.Capabilities().Operations
		can := ops[compute.OpTypeOptimizationBarrier] && ops[compute.OpTypeSchedulingBarrier]
		var results [2][]float32
		for i, again := range []bool{false, true} {
			s := graphx.NewScope(nil, graphx.Policy{Recompute: again})
			tanhs := 0
			exec, err := NewExec(be, func(x, w *Node) []*Node {
				h := x
				for range 3 {
					h = s.Layer(h, func(h *Node) *Node { return Add(h, Tanh(Mul(w, Tanh(Mul(w, h))))) })
				}
				loss := ReduceAllSum(Square(h))
				grads := Gradient(loss, x, w)
				for _, n := range x.Graph().Nodes() {
					if n.Type() == NodeTypeTanh {
						tanhs++
					}
				}
				return []*Node{loss, grads[0], grads[1]}
			})
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.Exec(x, w)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range out {
				results[i] = append(results[i], graphx.Floats(o)...)
			}
			if twice := tanhs > 6; twice != (again && can) {
				t.Errorf("recomputed %v: %d times tanh", again, tanhs)
			}
		}
		for i, want := range results[0] {
			if got := results[1][i]; math.Abs(float64(got-want)) > 1e-5*math.Abs(float64(want)) {
				t.Errorf("value %d is %v, want %v", i, got, want)
			}
		}
	})
}
