package dpo

import (
	"math"
	"testing"

	"imagecot/internal/enginetest"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// plain is Loss for one pair, and its derivative by the chosen log-ratio.
func plain(o Options, chosen, rejected float64) (loss, slope float64) {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	d := chosen - rejected
	if o.Form == IPO {
		off := d - 1/(2*o.Beta)
		return off * off, 2 * off
	}
	m := o.Beta * d
	loss = -(1-o.Smoothing)*math.Log(sigmoid(m)) - o.Smoothing*math.Log(sigmoid(-m))
	return loss, o.Beta * (o.Smoothing*sigmoid(m) - (1-o.Smoothing)*sigmoid(-m))
}

func TestLossAndGradientAgreeWithPlainGo(t *testing.T) {
	chosen := []float64{0, 3, -20, 150, -150, .5}
	rejected := []float64{0, -4, 7, -130, 130, .5}
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		for _, o := range []Options{{Eq7, .1, 0}, {Eq7, 1, .1}, {IPO, .1, 0}} {
			out := graph.MustNewExec(be, func(in []*graph.Node) []*graph.Node {
				loss, margin := Loss(o, in[0], in[1])
				return append(graph.Gradient(graph.ReduceAllSum(loss), in[0], in[1]), loss, margin)
			}).MustExec(chosen, rejected)
			values := make([][]float64, len(out))
			for i, n := range out {
				values[i] = tensors.MustCopyFlatData[float64](n)
			}
			for i := range chosen {
				loss, slope := plain(o, chosen[i], rejected[i])
				want := []float64{slope, -slope, loss, o.Beta * (chosen[i] - rejected[i])}
				for k, w := range want {
					if got := values[k][i]; math.Abs(got-w) > 1e-9*(1+math.Abs(w)) {
						t.Errorf("%+v pair %d output %d: %v, want %v", o, i, k, got, w)
					}
				}
			}
		}
	})
}

func TestLossKeepsItsSlopeWhereSigmoidIsZero(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		out := graph.MustNewExec(be, func(in []*graph.Node) []*graph.Node {
			loss, _ := Loss(Options{Form: Eq7, Beta: 1}, in[0], in[1])
			return append(graph.Gradient(graph.ReduceAllSum(loss), in[0]), loss)
		}).MustExec([]float32{-4000, 4000}, []float32{0, 0})
		slope, loss := tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])
		if slope[0] != -1 || slope[1] != 0 || loss[0] != 4000 || loss[1] != 0 {
			t.Errorf("slopes %v, losses %v", slope, loss)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{"hinge", .1, 0}, {Eq7, 0, 0}, {Eq7, math.NaN(), 0}, {Eq7, .1, .5}, {IPO, .1, .1}} {
		if o.Validate() == nil {
			t.Errorf("%+v passes", o)
		}
	}
	if err := (Options{Eq7, .1, 0}).Validate(); err != nil {
		t.Error(err)
	}
}
