// Package maskgit is the decoding rule of MaskGIT as Show-o uses it (Sec. 2.1 of the paper; Chang et al., CVPR 2022):
// which image tokens a step keeps and which it masks again. It is plain Go and meant to be read; the transformer that
// makes the logits lives elsewhere, and this package knows no tensors and no text.
//
// One step s of T, for one path:
//
//  1. p = softmax(guided logits) at every position; sample one token a position (no temperature, no top-k)
//  2. known tokens keep their value; the complete grid is the step image
//  3. confidence c = ln p[sampled] + tau * Gumbel noise
//  4. m = floor(N cos(pi/2 (s+1)/T)), at least 1 and at most unknown-1
//  5. the m least confident of the unknown positions are masked again, the others are settled for good
//
// After the last step nothing is masked.
package maskgit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Schedule names the function from the share of steps done to the share of tokens that stay masked.
// The zero value means Cosine. "powP" (for instance "pow2.5") is 1 - r^P.
type Schedule string

// Schedules of the reference code; the paper uses Cosine.
const (
	Cosine  Schedule = "cosine"
	Linear  Schedule = "linear"
	Sigmoid Schedule = "sigmoid"
)

// smallest is the least masked share of every schedule but Cosine.
const smallest = 1e-6

// Validate reports a schedule that does not exist.
func (s Schedule) Validate() error {
	switch s {
	case "", Cosine, Linear, Sigmoid:
		return nil
	}
	if p, ok := s.exponent(); ok && p > 0 && !math.IsInf(p, 0) {
		return nil
	}
	return fmt.Errorf("maskgit: unknown schedule %q (cosine, linear, sigmoid or powP such as pow2)", string(s))
}

func (s Schedule) exponent() (float64, bool) {
	digits, ok := strings.CutPrefix(string(s), "pow")
	if !ok {
		return 0, false
	}
	p, err := strconv.ParseFloat(digits, 64)
	return p, err == nil
}

// Ratio is the share of tokens that stay masked when the share r of the steps is done, both in 0..1. It is computed
// in float32 at every operation, as the reference does: in float64 some counts differ by one.
func (s Schedule) Ratio(r float32) float32 {
	switch s {
	case "", Cosine:
		angle := float32(float32(r*float32(math.Pi)) * 0.5)
		return float32(math.Cos(float64(angle)))
	case Linear:
		return min(max(1-r, smallest), 1)
	case Sigmoid:
		// A logistic curve over -3..3, shifted and scaled to run from 1 to 0.
		logistic := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
		from, to := logistic(-3), logistic(3)
		at := logistic(float64(r)*6 - 3)
		return min(max(float32((to-at)/(to-from)), smallest), 1)
	}
	p, _ := s.exponent()
	return min(max(1-float32(math.Pow(float64(r), p)), smallest), 1)
}

// MaskCount is the number of tokens that are masked again after step (0..steps-1), of a grid of n tokens of which
// unknown were masked before the step:
//
//	m = max(1, min(unknown - 1, floor(n * Ratio((step+1)/steps))))
//
// and 0 if nothing is unknown. n is the whole grid even if some tokens were given. At the last step the formula gives
// 1, which has no effect on the result (see Options.Step).
func (s Schedule) MaskCount(n, steps, step, unknown int) int {
	if unknown == 0 {
		return 0
	}
	r := float32(float64(step+1) / float64(steps))
	m := int(math.Floor(float64(float32(n) * s.Ratio(r))))
	return max(1, min(unknown-1, m))
}

// TemperatureRule says how the temperature of re-masking falls over the steps. The zero value means Compound.
type TemperatureRule string

// Temperature rules.
const (
	Compound TemperatureRule = "compound" // tau_0 * product over k <= s of (1 - (k+1)/T): what Show-o's code does
	Anneal   TemperatureRule = "anneal"   // tau_0 * (1 - (s+1)/T): what MaskGIT describes
	Constant TemperatureRule = "constant" // tau_0
)

// Validate reports a rule that does not exist.
func (r TemperatureRule) Validate() error {
	switch r {
	case "", Compound, Anneal, Constant:
		return nil
	}
	return fmt.Errorf("maskgit: unknown temperature rule %q (compound, anneal or constant)", string(r))
}

// Temperature is the factor of the Gumbel noise at step (0..steps-1). It scales re-masking only: the sampling of tokens
// has no temperature. Deviation D1: it starts anew for every path.
func (r TemperatureRule) Temperature(tau0 float64, steps, step int) float64 {
	left := func(k int) float64 { return 1 - float64(k+1)/float64(steps) }
	switch r {
	case Constant:
		return tau0
	case Anneal:
		return tau0 * left(step)
	}
	tau := tau0
	for k := range step + 1 {
		tau *= left(k)
	}
	return tau
}
