package prng

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// Purpose says what a stream's numbers are for, so that two uses in one step never share numbers. The values are
// part of what a seed means: never renumber them, only append.
type Purpose uint32

// Purposes in use.
const (
	Tokens    Purpose = 1  // sampling of image tokens while decoding: one uniform a position
	Remask    Purpose = 2  // re-masking noise while decoding: one Gumbel a position
	Init      Purpose = 3  // initial weights
	Order     Purpose = 4  // order of training data
	Masking   Purpose = 5  // mask ratios and masks of training
	Dropout   Purpose = 6  // dropped conditions
	Augment   Purpose = 7  // augmentation of training pictures
	Scene     Purpose = 8  // scenes of the tiny world
	Caption   Purpose = 9  // captions of the tiny world and their noise
	Bootstrap Purpose = 10 // resampling for intervals
	Fake      Purpose = 11 // fates of the fakes in tests
	Curate    Purpose = 12 // choices of data curation
)

// Stream is a sequence of random numbers. It is not safe for concurrent use; make one where it is needed, that costs
// nothing. A stream has 2^34 32-bit numbers, after which it repeats. Stream is a math/rand/v2 Source.
type Stream struct {
	key     [2]uint32
	counter [4]uint32 // block, step, purpose, stream
	block   [4]uint32
	used    int // words of block handed out
}

// New is the stream of a seed, a step (0 <= step < 2^32) and a purpose. A further number tells apart several
// streams of the same purpose, such as the rows of a batch; without it, it is 0.
func New(seed uint64, step int, purpose Purpose, stream ...uint32) *Stream {
	s := &Stream{
		key:     [2]uint32{uint32(seed), uint32(seed >> 32)},
		counter: [4]uint32{0, uint32(step), uint32(purpose), 0},
		used:    4,
	}
	if len(stream) > 0 {
		s.counter[3] = stream[0]
	}
	return s
}

// Uint32 is the next 32 random bits.
func (s *Stream) Uint32() uint32 {
	if s.used == len(s.block) {
		s.block = Philox(s.counter, s.key)
		s.counter[0]++
		s.used = 0
	}
	s.used++
	return s.block[s.used-1]
}

// Uint64 is the next 64 random bits; it makes Stream a math/rand/v2 Source.
func (s *Stream) Uint64() uint64 {
	lo := s.Uint32()
	return uint64(s.Uint32())<<32 | uint64(lo)
}

// Rand wraps the stream for code that wants a math/rand/v2 generator.
func (s *Stream) Rand() *rand.Rand { return rand.New(s) }

// Float32 is uniform in [0, 1): 24 random bits, so every value is a multiple of 2^-24.
func (s *Stream) Float32() float32 { return float32(s.Uint32()>>8) * 0x1p-24 }

// Float64 is uniform in [0, 1): 53 random bits, so every value is a multiple of 2^-53.
func (s *Stream) Float64() float64 { return float64(s.Uint64()>>11) * 0x1p-53 }

// Gumbel is the standard Gumbel number -ln(-ln u) of one Float32 draw; see GumbelOf.
func (s *Stream) Gumbel() float32 { return GumbelOf(s.Float32()) }

// GumbelOf maps a uniform number to a Gumbel one, -ln(max(-ln(max(u, 1e-20)), 1e-20)), as Show-o does: finite for
// every u in [0, 1].
func GumbelOf(u float32) float32 {
	const tiny = 1e-20
	return float32(-math.Log(max(-math.Log(max(float64(u), tiny)), tiny)))
}

// Intn is uniform in 0..n-1 without bias (Lemire's multiplication with rejection). It panics if n is not in 1..2^32-1.
func (s *Stream) Intn(n int) int {
	if n < 1 || uint64(n) > math.MaxUint32 {
		panic("prng: Intn needs 1 <= n < 2^32")
	}
	bound := uint32(n)
	hi, lo := bits.Mul32(s.Uint32(), bound)
	if lo < bound {
		for threshold := -bound % bound; lo < threshold; {
			hi, lo = bits.Mul32(s.Uint32(), bound)
		}
	}
	return int(hi)
}

// Perm is a uniform permutation of 0..n-1 (Fisher-Yates).
func (s *Stream) Perm(n int) []int {
	p := make([]int, n)
	for i := range p {
		j := s.Intn(i + 1)
		p[i] = p[j]
		p[j] = i
	}
	return p
}

// NormFloat is a standard normal number (Box-Muller, cosine half, two Float64 draws).
func (s *Stream) NormFloat() float64 {
	radius := math.Sqrt(-2 * math.Log(1-s.Float64()))
	return radius * math.Cos(2*math.Pi*s.Float64())
}

// FillUniform fills dst with Float32 draws.
func (s *Stream) FillUniform(dst []float32) {
	for i := range dst {
		dst[i] = s.Float32()
	}
}

// FillGumbel fills dst with Gumbel draws.
func (s *Stream) FillGumbel(dst []float32) {
	for i := range dst {
		dst[i] = s.Gumbel()
	}
}

// FillNorm fills dst with NormFloat draws.
func (s *Stream) FillNorm(dst []float32) {
	for i := range dst {
		dst[i] = float32(s.NormFloat())
	}
}
