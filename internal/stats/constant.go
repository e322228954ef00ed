package stats

import (
	"math"
	"math/rand/v2"
)

// Where every item of a stratum gave the same value, resampling gives that value again and the bootstrap's interval has
// no width, however few the items were. The draws below stand in for such a stratum: they are as wide as n items allow.

// ConstantRate draws replicates of a rate that was the same in all n items: from Beta(rate n + 1/2, (1-rate) n + 1/2),
// the posterior of Jeffreys' prior. Eight of eight give .74 to 1.
func ConstantRate(rate float64, n, replicates int, seed uint64) []float64 {
	rng := rand.New(rand.NewPCG(seed, 0x636f6e7374616e74))
	k := rate * float64(n)
	out := make([]float64, replicates)
	for i := range out {
		out[i] = beta(rng, k+.5, float64(n)-k+.5)
	}
	return out
}

// ConstantDifference draws replicates of a mean difference in -1..1 that was the same in all n items: the difference
// plus or minus the share of items, unseen so far, that might have gone the other way, which is drawn from
// Beta(1/2, n + 1/2).
func ConstantDifference(diff float64, n, replicates int, seed uint64) []float64 {
	rng := rand.New(rand.NewPCG(seed, 0x646966666572656e))
	out := make([]float64, replicates)
	for i := range out {
		q := beta(rng, .5, float64(n)+.5)
		if rng.IntN(2) == 0 {
			q = -q
		}
		out[i] = max(-1, min(1, diff+q))
	}
	return out
}

// Around is the interval, stretched if need be until it holds the estimate x.
func (i Interval) Around(x float64) Interval { return Interval{min(i[0], x), max(i[1], x)} }

// beta draws from Beta(a, b).
func beta(rng *rand.Rand, a, b float64) float64 {
	x, y := gamma(rng, a), gamma(rng, b)
	return x / (x + y)
}

// gamma draws from Gamma(shape, 1) after Marsaglia and Tsang (2000); shapes below 1 by their boost.
func gamma(rng *rand.Rand, shape float64) float64 {
	if shape < 1 {
		return gamma(rng, shape+1) * math.Pow(1-rng.Float64(), 1/shape)
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := rng.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-rng.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}
