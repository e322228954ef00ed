package showo

import (
	"os"
	"testing"

	"imagecot/cot"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"

	"github.com/gomlx/compute"
)

// BenchmarkAdvance is one decoding step of eight paths of the tiny generator, half of the tokens settled, on the engine
// of IMAGECOT_TEST_ENGINE, else in pure Go.
func BenchmarkAdvance(b *testing.B) {
	be := enginetest.Go(b)
	if configuration := os.Getenv(enginetest.Variable); configuration != "" {
		var err error
		if be, err = compute.NewWithConfig(configuration); err != nil {
			b.Fatal(err)
		}
	}
	cfg := Tiny(420, 0)
	t, err := Init(cfg, prng.New(1, 0, prng.Init).Rand(), InitOptions{Structured: true})
	if err != nil {
		b.Fatal(err)
	}
	g, err := NewGenerator(be, cfg, graphx.NewWeights(t), letters{}, nil, TinyOptions())
	if err != nil {
		b.Fatal(err)
	}
	paths, err := g.Start(b.Context(), cot.Prompt{Text: "redcircle"}, []uint64{1, 2, 3, 4, 5, 6, 7, 8})
	if err != nil {
		b.Fatal(err)
	}
	for range 10 {
		if err := g.Advance(b.Context(), paths); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		forks := make([]*cot.Path, len(paths))
		for i, p := range paths {
			forks[i] = g.Fork(p, p.Seed)
		}
		if err := g.Advance(b.Context(), forks); err != nil {
			b.Fatal(err)
		}
	}
}
