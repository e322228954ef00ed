package stats

import (
	"math"
	"testing"
)

// The quantiles are the beta distribution's, integrated numerically elsewhere.
func TestConstantRateIsJeffreys(t *testing.T) {
	for _, c := range []struct {
		rate, q, want float64
		n             int
	}{
		{1, .025, .7378, 8}, {0, .975, 1 - .7378, 8}, {.25, .5, .2608, 8}, {.25, .975, .5916, 8},
	} {
		got := Percentile(ConstantRate(c.rate, c.n, 100_000, 3), 2*math.Abs(c.q-.5))
		end := got[0]
		if c.q >= .5 {
			end = got[1]
		}
		if math.Abs(end-c.want) > .01 {
			t.Errorf("rate %v of %d: quantile %v is %.4f, want %.4f", c.rate, c.n, c.q, end, c.want)
		}
	}
}

func TestConstantDifference(t *testing.T) {
	narrow, wide := Percentile(ConstantDifference(0, 100, 20_000, 1), .95), Percentile(ConstantDifference(0, 8, 20_000, 1), .95)
	if math.Abs(wide[1]-.2075) > .02 || math.Abs(wide[0]+wide[1]) > .02 || narrow[1] >= wide[1]/2 {
		t.Errorf("no difference in 8 items %v, in 100 items %v", wide, narrow)
	}
	for _, v := range ConstantDifference(1, 8, 1000, 1) {
		if v > 1 || v < 0 {
			t.Fatalf("difference %v", v)
		}
	}
	if got := (Interval{.2, .4}).Around(.5); got != (Interval{.2, .5}) {
		t.Errorf("Around: %v", got)
	}
}
