package maskgit

import (
	"fmt"
	"math"
	"slices"

	"imagecot/cot"
	"imagecot/internal/prng"
)

// Options are the settings of decoding that do not depend on the model.
type Options struct {
	Steps       int             // T; the paper: 18
	Schedule    Schedule        // the paper: cosine
	Temperature float64         // tau_0 of re-masking; the paper: 1
	Rule        TemperatureRule // the paper: compound
}

// Validate reports settings that cannot be decoded with.
func (o Options) Validate() error {
	if o.Steps < 1 {
		return fmt.Errorf("maskgit: %d decoding steps, need at least 1", o.Steps)
	}
	if !(o.Temperature >= 0) || math.IsInf(o.Temperature, 0) {
		return fmt.Errorf("maskgit: temperature %v, need a number of at least 0", o.Temperature)
	}
	if err := o.Schedule.Validate(); err != nil {
		return err
	}
	return o.Rule.Validate()
}

// Tau is the temperature of re-masking at step (0..Steps-1).
func (o Options) Tau(step int) float32 {
	return float32(o.Rule.Temperature(o.Temperature, o.Steps, step))
}

// Noise is everything random about one step of one path, one number a position of the grid.
type Noise struct {
	Uniform []float32 // [N], in [0, 1): picks the token
	Gumbel  []float32 // [N]: disturbs the confidence
}

// NoiseOf is the noise of a path with the given seed at a step (0..Steps-1), for a grid of n tokens. The number of a
// position depends on (seed, step, position) alone.
func NoiseOf(seed uint64, step, n int) Noise {
	noise := Noise{make([]float32, n), make([]float32, n)}
	prng.New(seed, step, prng.Tokens).FillUniform(noise.Uniform)
	prng.New(seed, step, prng.Remask).FillGumbel(noise.Gumbel)
	return noise
}

// Result is what one step of one path leaves behind.
type Result struct {
	Next    []int32   // [N] tokens after the step, cot.Masked where masked again
	Sampled []int32   // [N] the complete grid of the step, settled tokens included: the step image
	Prob    []float32 // [N] probability of the sampled token where it was unknown, 1 where it was known
	LogConf float64   // sum of ln Prob
	Masked  int       // tokens masked in Next
}

// StepFromLogits does step (0..Steps-1) of one path from the guided logits [N*k], row-major by position, over the k
// columns of the codebook. Rows of known positions are not read. It is the reference that faster code is held to.
func (o Options) StepFromLogits(step int, state []int32, logits []float32, k int, noise Noise) (Result, error) {
	n := len(state)
	if k < 1 || len(logits) != n*k {
		return Result{}, fmt.Errorf("maskgit: %d logits for %d positions of %d codebook columns", len(logits), n, k)
	}
	if len(noise.Uniform) != n {
		return Result{}, fmt.Errorf("maskgit: %d uniform numbers for %d positions", len(noise.Uniform), n)
	}
	sampled, prob := make([]int32, n), make([]float32, n)
	for i, token := range state {
		if token != cot.Masked {
			continue
		}
		p := Softmax(logits[i*k : (i+1)*k])
		j := SampleRow(p, noise.Uniform[i])
		sampled[i], prob[i] = int32(j), p[j]
	}
	return o.Step(step, state, sampled, prob, noise.Gumbel)
}

// Step does the rest of step (0..Steps-1) of one path once tokens are sampled: known tokens keep their value, confidence,
// re-masking. state, sampled, prob and gumbel are [N]; sampled and prob are read where state is cot.Masked only. At the
// last step nothing is masked again. It fails on mismatched lengths and on a probability that is no number in 0..1.
func (o Options) Step(step int, state, sampled []int32, prob, gumbel []float32) (Result, error) {
	n := len(state)
	if step < 0 || step >= o.Steps {
		return Result{}, fmt.Errorf("maskgit: step %d of %d", step, o.Steps)
	}
	if len(sampled) != n || len(prob) != n || len(gumbel) != n {
		return Result{}, fmt.Errorf("maskgit: %d positions, but %d sampled tokens, %d probabilities, %d noise numbers",
			n, len(sampled), len(prob), len(gumbel))
	}
	r := Result{Sampled: slices.Clone(state), Prob: make([]float32, n)}
	unknown := 0
	for i, token := range state {
		if token != cot.Masked {
			r.Prob[i] = 1
			continue
		}
		if p := prob[i]; !(p >= 0 && p <= 1.001) {
			return Result{}, fmt.Errorf("maskgit: step %d: probability %v of token %d at position %d", step, p, sampled[i], i)
		}
		r.Sampled[i], r.Prob[i] = sampled[i], prob[i]
		r.LogConf += math.Log(max(float64(prob[i]), tiny))
		unknown++
	}
	if step == o.Steps-1 {
		r.Next = slices.Clone(r.Sampled)
		return r, nil
	}
	m := o.Schedule.MaskCount(n, o.Steps, step, unknown)
	r.Next = Remask(state, r.Sampled, prob, gumbel, o.Tau(step), m)
	for _, token := range r.Next {
		if token == cot.Masked {
			r.Masked++
		}
	}
	return r, nil
}

// tiny keeps logarithms finite.
const tiny = 1e-20

// Confidence is ln(max(p, 1e-20)) + tau*gumbel in float32.
func Confidence(p, gumbel, tau float32) float32 {
	return float32(math.Log(max(float64(p), tiny))) + float32(tau*gumbel)
}

// Remask is the state [N] after a step: sampled, with those unknown positions masked again whose confidence lies strictly
// below the cut, the m-th smallest one counted from 0. Without ties that is exactly m positions. Positions that
// state knows are never masked and take no part in the cut. All slices are [N].
func Remask(state, sampled []int32, prob, gumbel []float32, tau float32, m int) []int32 {
	next := slices.Clone(sampled)
	confidence := make([]float32, 0, len(state))
	for i, token := range state {
		if token == cot.Masked {
			confidence = append(confidence, Confidence(prob[i], gumbel[i], tau))
		}
	}
	cut := float32(math.Inf(1))
	if m < len(confidence) {
		sorted := slices.Sorted(slices.Values(confidence))
		cut = sorted[m]
	}
	j := 0
	for i, token := range state {
		if token != cot.Masked {
			next[i] = token
			continue
		}
		if confidence[j] < cut {
			next[i] = cot.Masked
		}
		j++
	}
	return next
}

// Softmax is exp(x - max) / sum, summed in float64.
func Softmax(x []float32) []float32 {
	top := slices.Max(x)
	p := make([]float32, len(x))
	sum := 0.0
	for i, v := range x {
		e := math.Exp(float64(v - top))
		p[i] = float32(e)
		sum += e
	}
	for i := range p {
		p[i] = float32(float64(p[i]) / sum)
	}
	return p
}

// SampleRow draws an index from probabilities p [K] with one uniform number u in [0, 1) by the inverse of their
// cumulative sum: the number of k with p_0 + .. + p_k <= u. If rounding leaves the whole sum at or below u, it is the last
// index that has a probability at all.
func SampleRow(p []float32, u float32) int {
	sum, last := 0.0, len(p)-1
	for k, v := range p {
		sum += float64(v)
		if sum > float64(u) {
			return k
		}
		if v > 0 {
			last = k
		}
	}
	return last
}
