// Package stats holds the few statistics that every reported number needs: means, standard errors, quantiles and the
// stratified percentile bootstrap. It knows nothing about prompts or images.
package stats

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Interval is a confidence interval, low end first. It marshals to JSON as [low, high].
type Interval [2]float64

// Contains reports whether x lies inside, ends included.
func (i Interval) Contains(x float64) bool { return i[0] <= x && x <= i[1] }

// Mean is the arithmetic mean, NaN for no values.
func Mean(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// StdErr is the standard error of the mean: the sample standard deviation (n-1) over sqrt(n). It is NaN for fewer than
// two values.
func StdErr(x []float64) float64 {
	if len(x) < 2 {
		return math.NaN()
	}
	m := Mean(x)
	var ss float64
	for _, v := range x {
		ss += (v - m) * (v - m)
	}
	n := float64(len(x))
	return math.Sqrt(ss / (n - 1) / n)
}

// Quantile is the q-quantile (0..1) of values in rising order, linear between neighbours; NaN for no values.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	low = max(0, min(low, len(sorted)-1))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// Percentile is the central interval that holds the given share (0.95) of the values, in any order.
func Percentile(values []float64, level float64) Interval {
	sorted := slices.Sorted(slices.Values(values))
	tail := (1 - level) / 2
	return Interval{Quantile(sorted, tail), Quantile(sorted, 1-tail)}
}

// Bootstrap draws the given number of replicates. In each, every stratum s of size sizes[s] is resampled with
// replacement (pick[s] holds sizes[s] indices), and statistic puts one number per quantity into out, which has the
// given width. The result is [width][replicates]. The same seed gives the same replicates; strata are drawn in order.
func Bootstrap(sizes []int, replicates, width int, seed uint64, statistic func(pick [][]int, out []float64)) [][]float64 {
	rng := rand.New(rand.NewPCG(seed, 0x626f6f7473747261))
	pick := make([][]int, len(sizes))
	for s, n := range sizes {
		pick[s] = make([]int, n)
	}
	values := make([][]float64, width)
	for i := range values {
		values[i] = make([]float64, replicates)
	}
	out := make([]float64, width)
	for r := range replicates {
		for s, n := range sizes {
			for i := range pick[s] {
				pick[s][i] = rng.IntN(n)
			}
		}
		statistic(pick, out)
		for i, v := range out {
			values[i][r] = v
		}
	}
	return values
}

// TwoSided is the bootstrap's two-sided p-value against "no difference": twice the smaller share of replicates on
// either side of zero (zeros count for both), with one added to numerator and denominator, at most 1.
func TwoSided(differences []float64) float64 {
	var below, above int
	for _, d := range differences {
		if d <= 0 {
			below++
		}
		if d >= 0 {
			above++
		}
	}
	return math.Min(1, 2*float64(min(below, above)+1)/float64(len(differences)+1))
}
