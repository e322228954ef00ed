package stats

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
)

func TestMeanStdErrQuantile(t *testing.T) {
	x := []float64{1, 2, 3, 4}
	if got := Mean(x); got != 2.5 {
		t.Errorf("Mean = %v", got)
	}
	// Sample variance 5/3, over 4.
	if got, want := StdErr(x), math.Sqrt(5.0/12); math.Abs(got-want) > 1e-15 {
		t.Errorf("StdErr = %v, want %v", got, want)
	}
	for _, c := range []struct{ q, want float64 }{{0, 1}, {1, 4}, {.5, 2.5}, {1.0 / 3, 2}, {.1, 1.3}} {
		if got := Quantile(x, c.q); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("Quantile(%v) = %v, want %v", c.q, got, c.want)
		}
	}
	if !math.IsNaN(Mean(nil)) || !math.IsNaN(StdErr([]float64{1})) || !math.IsNaN(Quantile(nil, .5)) {
		t.Error("too few values must give NaN")
	}
}

// The bootstrap's interval of a mean has nearly the width of the normal one, and stays inside its stratum.
func TestBootstrapWidth(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	x := make([]float64, 200)
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	values := Bootstrap([]int{len(x), 3}, 4000, 2, 9, func(pick [][]int, out []float64) {
		var sum float64
		for _, i := range pick[0] {
			sum += x[i]
		}
		out[0] = sum / float64(len(pick[0]))
		out[1] = float64(len(pick[1]))
		for _, i := range pick[1] {
			if i < 0 || i > 2 {
				t.Fatalf("index %d outside a stratum of 3", i)
			}
		}
	})
	got := Percentile(values[0], .95)
	half := 1.96 * StdErr(x)
	if math.Abs((got[1]-got[0])/2-half) > .1*half || !got.Contains(Mean(x)) {
		t.Errorf("interval %v, want %v +- %v", got, Mean(x), half)
	}
	for _, v := range values[1] {
		if v != 3 {
			t.Fatalf("second stratum resampled to %v items", v)
		}
	}
}

func TestBootstrapSeed(t *testing.T) {
	draw := func(seed uint64) []float64 {
		return Bootstrap([]int{50}, 20, 1, seed, func(pick [][]int, out []float64) {
			out[0] = 0
			for _, i := range pick[0] {
				out[0] += float64(i)
			}
		})[0]
	}
	a, b, c := draw(1), draw(1), draw(2)
	same, other := true, false
	for i := range a {
		same = same && a[i] == b[i]
		other = other || a[i] != c[i]
	}
	if !same || !other {
		t.Errorf("same seed equal: %v, other seed different: %v", same, other)
	}
}

func TestTwoSided(t *testing.T) {
	if got := TwoSided([]float64{1, 1, 1, 1, 1, 1, 1, 1, 1}); got != .2 {
		t.Errorf("all above: %v, want 2/10", got)
	}
	if got := TwoSided([]float64{0, 0, 0}); got != 1 {
		t.Errorf("all zero: %v, want 1", got)
	}
}

func TestIntervalJSON(t *testing.T) {
	got, err := json.Marshal(Interval{.25, .5})
	if err != nil || string(got) != "[0.25,0.5]" {
		t.Errorf("%s, %v", got, err)
	}
}
