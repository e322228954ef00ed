package maskgit

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/internal/prng"

	"pgregory.net/rapid"
)

// Masked tokens after each of the paper's 18 steps, as the reference code counts them in float32. Step 11 gives 127: in
// float64 it would be 128.
func TestCosineCounts(t *testing.T) {
	for n, want := range map[int][]int{
		256:  {255, 252, 247, 240, 232, 221, 209, 196, 181, 164, 146, 127, 108, 87, 66, 44, 22, 1},
		1024: {1020, 1008, 989, 962, 928, 886, 838, 784, 724, 658, 587, 511, 432, 350, 265, 177, 89, 1},
	} {
		unknown := n
		for s, m := range want {
			got := Cosine.MaskCount(n, 18, s, unknown)
			if got != m {
				t.Errorf("N = %d, step %d: %d masked, want %d", n, s, got, m)
			}
			unknown = got
		}
	}
}

func TestTemperatureRules(t *testing.T) {
	compound := []float64{.944, .840, .700, .544, .393, .262, .160, .089, .044, .020, .0077, .0026, 7e-4, 2e-4, 3e-5, 3e-6, 2e-7, 0}
	for s, want := range compound {
		if got := Compound.Temperature(1, 18, s); math.Abs(got-want) > 0.26*want {
			t.Errorf("compound, step %d: %v, want about %v", s, got, want)
		}
	}
	if got := Anneal.Temperature(2, 8, 1); got != 1.5 {
		t.Errorf("anneal = %v, want 1.5", got)
	}
	if got := Anneal.Temperature(2, 8, 7); got != 0 {
		t.Errorf("anneal ends at %v, want 0", got)
	}
	if got := Constant.Temperature(0.7, 18, 17); got != 0.7 {
		t.Errorf("constant = %v, want 0.7", got)
	}
}

func TestSampleRow(t *testing.T) {
	p := []float32{0, 0.25, 0, 0.5, 0.25, 0}
	for _, c := range []struct {
		u    float32
		want int
	}{{0, 1}, {0.2, 1}, {0.25, 3}, {0.74, 3}, {0.75, 4}, {0.9999, 4}} {
		if got := SampleRow(p, c.u); got != c.want {
			t.Errorf("SampleRow(%v) = %d, want %d", c.u, got, c.want)
		}
	}
	if got := SampleRow([]float32{0.3, 0.3, 0}, 0.99); got != 1 {
		t.Errorf("beyond the sum: %d, want the last index with a probability, 1", got)
	}
}

func TestRemaskTakesTheLeastConfident(t *testing.T) {
	m := cot.Masked
	state := []int32{m, 7, m, m, m}
	got := Remask(state, []int32{1, 7, 2, 3, 4}, []float32{.4, 0, .1, .9, .2}, make([]float32, 5), 1, 2)
	if want := []int32{1, 7, m, 3, m}; !slices.Equal(got, want) {
		t.Errorf("Remask = %v, want %v", got, want)
	}
	// What was sampled where a token is known does not count.
	if got = Remask([]int32{7}, []int32{9}, []float32{.5}, []float32{0}, 0, 0); got[0] != 7 {
		t.Errorf("a known token became %d", got[0])
	}
	// Noise of 2 on the least confident one lifts ln .1 above ln .4.
	got = Remask(state, []int32{1, 7, 2, 3, 4}, []float32{.4, 0, .1, .9, .2}, []float32{0, 0, 2, 0, 0}, 1, 2)
	if want := []int32{m, 7, 2, 3, m}; !slices.Equal(got, want) {
		t.Errorf("noisy Remask = %v, want %v", got, want)
	}
	// The cut is strict: equal confidences are all kept.
	got = Remask([]int32{m, m}, []int32{1, 2}, []float32{.5, .5}, make([]float32, 2), 0, 1)
	if want := []int32{1, 2}; !slices.Equal(got, want) {
		t.Errorf("tied Remask = %v, want %v", got, want)
	}
}

// A whole decoding settles every token, never unmasks one twice, shows complete grids and follows the schedule.
func TestDecodingProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "n")
		k := rapid.IntRange(2, 6).Draw(t, "k")
		o := Options{
			Steps:       rapid.IntRange(1, 12).Draw(t, "steps"),
			Schedule:    rapid.SampledFrom([]Schedule{"", Cosine, Linear, Sigmoid, "pow2", "pow0.5"}).Draw(t, "schedule"),
			Temperature: rapid.Float64Range(0, 6).Draw(t, "tau"),
			Rule:        rapid.SampledFrom([]TemperatureRule{"", Compound, Anneal, Constant}).Draw(t, "rule"),
		}
		if err := o.Validate(); err != nil {
			t.Fatal(err)
		}
		seed := rapid.Uint64().Draw(t, "seed")
		state := make([]int32, n)
		for i := range state {
			state[i] = cot.Masked
			if rapid.IntRange(0, 3).Draw(t, "given") == 0 {
				state[i] = int32(i % k)
			}
		}
		for s := range o.Steps {
			logits := make([]float32, n*k)
			prng.New(seed, s, prng.Fake).FillNorm(logits)
			unknown := count(state)
			r, err := o.StepFromLogits(s, state, logits, k, NoiseOf(seed, s, n))
			if err != nil {
				t.Fatal(err)
			}
			if count(r.Sampled) != 0 {
				t.Fatalf("step %d: the step image has masked tokens: %v", s, r.Sampled)
			}
			for i := range state {
				if state[i] != cot.Masked && (r.Next[i] != state[i] || r.Sampled[i] != state[i]) {
					t.Fatalf("step %d changed the settled token at %d from %d to %d", s, i, state[i], r.Next[i])
				}
				if r.Next[i] != cot.Masked && r.Next[i] != r.Sampled[i] {
					t.Fatalf("step %d settled another token at %d than it showed", s, i)
				}
			}
			if r.Masked != count(r.Next) {
				t.Fatalf("step %d says %d masked, state has %d", s, r.Masked, count(r.Next))
			}
			if want := o.Schedule.MaskCount(n, o.Steps, s, unknown); s < o.Steps-1 && r.Masked != want {
				t.Fatalf("step %d: %d masked, schedule says %d of %d unknown", s, r.Masked, want, unknown)
			}
			state = r.Next
		}
		if count(state) != 0 {
			t.Fatalf("%d tokens masked after the last step", count(state))
		}
	})
}

func count(state []int32) (masked int) {
	for _, token := range state {
		if token == cot.Masked {
			masked++
		}
	}
	return masked
}

func TestLogConfSumsUnknownPositions(t *testing.T) {
	o := Options{Steps: 4}
	state := []int32{cot.Masked, 3, cot.Masked}
	r, err := o.Step(0, state, []int32{1, 9, 2}, []float32{0.5, 0.1, 0.25}, make([]float32, 3))
	if err != nil {
		t.Fatal(err)
	}
	if want := math.Log(0.125); math.Abs(r.LogConf-want) > 1e-12 {
		t.Errorf("LogConf = %v, want %v", r.LogConf, want)
	}
	if !slices.Equal(r.Sampled, []int32{1, 3, 2}) {
		t.Errorf("the step image is %v", r.Sampled)
	}
}

func TestErrors(t *testing.T) {
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		do   func() error
		want string
	}{
		"schedule":    {func() error { return Options{Steps: 1, Schedule: "cosin"}.Validate() }, `"cosin"`},
		"power":       {func() error { return Options{Steps: 1, Schedule: "pow-1"}.Validate() }, `"pow-1"`},
		"rule":        {func() error { return Options{Steps: 1, Rule: "x"}.Validate() }, `"x"`},
		"steps":       {func() error { return Options{}.Validate() }, "0 decoding steps"},
		"temperature": {func() error { return Options{Steps: 1, Temperature: math.NaN()}.Validate() }, "NaN"},
		"NaN": {func() error {
			_, err := Options{Steps: 2}.Step(0, []int32{cot.Masked}, []int32{0}, []float32{nan}, []float32{0})
			return err
		}, "probability NaN"},
		"NaN logits": {func() error {
			_, err := Options{Steps: 2}.StepFromLogits(0, []int32{cot.Masked}, []float32{nan, 1}, 2, NoiseOf(1, 0, 1))
			return err
		}, "probability NaN"},
		"lengths": {func() error {
			_, err := Options{Steps: 2}.Step(0, []int32{cot.Masked}, nil, []float32{1}, []float32{0})
			return err
		}, "0 sampled tokens"},
		"step": {func() error {
			_, err := Options{Steps: 2}.Step(2, nil, nil, nil, nil)
			return err
		}, "step 2 of 2"},
	} {
		if err := c.do(); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "maskgit: ") {
			t.Errorf("%s: error %v, want one that says %s", name, err, c.want)
		}
	}
}

// The noise of a position does not depend on the size of the grid or on other steps.
func TestNoiseIsNamedByPosition(t *testing.T) {
	small, large := NoiseOf(9, 3, 4), NoiseOf(9, 3, 16)
	if !slices.Equal(small.Uniform, large.Uniform[:4]) || !slices.Equal(small.Gumbel, large.Gumbel[:4]) {
		t.Error("noise depends on the size of the grid")
	}
	if slices.Equal(NoiseOf(9, 4, 4).Uniform, small.Uniform) {
		t.Error("two steps have the same noise")
	}
}

func ExampleSchedule_MaskCount() {
	unknown := 16
	for step := range 4 {
		unknown = Cosine.MaskCount(16, 4, step, unknown)
		fmt.Print(unknown, " ")
	}
	// Output: 14 11 6 1
}
