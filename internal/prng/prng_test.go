package prng

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The vectors are those of the Random123 distribution, recomputed with an independent program.
func TestPhiloxKnownAnswers(t *testing.T) {
	const f = math.MaxUint32
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{f, f, f, f}, [2]uint32{f, f}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{
			[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
			[2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
		},
	} {
		if got := Philox(c.counter, c.key); got != c.want {
			t.Errorf("Philox(%x, %x) = %x, want %x", c.counter, c.key, got, c.want)
		}
	}
}

// A seed must mean the same for ever: these numbers may never change.
func TestStreamsAreFrozen(t *testing.T) {
	s := New(0, 0, 0)
	if a, b := s.Uint32(), s.Uint32(); a != 0x6627e8d5 || b != 0xe169c58d {
		t.Errorf("stream 0 starts with %x %x", a, b)
	}
	s.Uint64() // the rest of block 0
	if got, want := s.Uint32(), Philox([4]uint32{1}, [2]uint32{})[0]; got != want {
		t.Errorf("block 1 starts with %x, want %x: blocks are counted in the first word", got, want)
	}
	if a := New(0, 0, 0).Uint64(); a != 0xe169c58d6627e8d5 {
		t.Errorf("Uint64 = %x", a)
	}
	if got, want := PathSeed(7, "a photo of a bench", 3), uint64(0xbf768eb1f04d33bc); got != want {
		t.Errorf("PathSeed = %#x, want %#x", got, want)
	}
}

func TestEveryPartOfTheNameMatters(t *testing.T) {
	base := func() *Stream { return New(5, 6, Tokens, 7) }
	if a, b := base().Uint64(), base().Uint64(); a != b {
		t.Fatal("the same name gave two streams")
	}
	seen := map[uint64]string{base().Uint64(): "base"}
	for name, s := range map[string]*Stream{
		"low seed": New(6, 6, Tokens, 7), "high seed": New(5+1<<32, 6, Tokens, 7), "step": New(5, 7, Tokens, 7),
		"purpose": New(5, 6, Remask, 7), "stream": New(5, 6, Tokens, 8),
	} {
		v := s.Uint64()
		if other, ok := seen[v]; ok {
			t.Errorf("changing the %s gave the stream of %s", name, other)
		}
		seen[v] = name
	}
}

func TestSeedsSeparateTheirArguments(t *testing.T) {
	seeds := []uint64{
		PathSeed(1, "a", 0), PathSeed(2, "a", 0), PathSeed(1, "b", 0), PathSeed(1, "a", 1),
		PathSeed(1, "", 0), Derive(1, "a"), Derive(1, "a", 0), Derive(1, "a", 0, 0), Derive(1, "a\x00"),
	}
	slices.Sort(seeds)
	if n := len(slices.Compact(slices.Clone(seeds))); n != len(seeds) {
		t.Errorf("%d different seeds of %d", n, len(seeds))
	}
}

// Means and variances over 2^16 draws lie within five standard errors.
func TestMoments(t *testing.T) {
	const n = 1 << 16
	const euler = 0.5772156649
	for name, c := range map[string]struct {
		draw           func(*Stream) float64
		mean, variance float64
	}{
		"Float32":   {func(s *Stream) float64 { return float64(s.Float32()) }, 0.5, 1. / 12},
		"Float64":   {(*Stream).Float64, 0.5, 1. / 12},
		"NormFloat": {(*Stream).NormFloat, 0, 1},
		"Gumbel":    {func(s *Stream) float64 { return float64(s.Gumbel()) }, euler, math.Pi * math.Pi / 6},
		"Intn":      {func(s *Stream) float64 { return float64(s.Intn(3)) }, 1, 2. / 3},
	} {
		s := New(11, 0, Fake)
		var sum, squares float64
		for range n {
			x := c.draw(s)
			sum += x
			squares += (x - c.mean) * (x - c.mean)
		}
		if got := sum / n; math.Abs(got-c.mean) > 5*math.Sqrt(c.variance/n) {
			t.Errorf("%s: mean %v, want %v", name, got, c.mean)
		}
		if got := squares / n; math.Abs(got/c.variance-1) > 0.05 {
			t.Errorf("%s: variance %v, want %v", name, got, c.variance)
		}
	}
}

func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, 1<<20).Draw(t, "step"), Fake)
		n := rapid.IntRange(1, 50).Draw(t, "n")
		perm := s.Perm(n)
		slices.Sort(perm)
		for i, v := range perm {
			if i != v {
				t.Fatalf("Perm(%d) is no permutation: %v", n, perm)
			}
		}
		if i := s.Intn(n); i < 0 || i >= n {
			t.Fatalf("Intn(%d) = %d", n, i)
		}
		if u := s.Float32(); u < 0 || u >= 1 {
			t.Fatalf("Float32 = %v", u)
		}
		if x := s.NormFloat(); math.IsNaN(x) || math.IsInf(x, 0) {
			t.Fatalf("NormFloat = %v", x)
		}
	})
	for _, u := range []float32{0, 1, math.Nextafter32(1, 0)} {
		if g := GumbelOf(u); math.IsInf(float64(g), 0) || math.IsNaN(float64(g)) {
			t.Errorf("GumbelOf(%v) = %v", u, g)
		}
	}
}

func TestRandIsTheStream(t *testing.T) {
	if New(3, 1, Order).Rand().Uint64() != New(3, 1, Order).Uint64() {
		t.Error("Rand draws other numbers than its stream")
	}
}

func BenchmarkUniform(b *testing.B) {
	dst := make([]float32, 256)
	b.SetBytes(int64(4 * len(dst)))
	for b.Loop() {
		New(1, 2, Tokens).FillUniform(dst)
	}
}
