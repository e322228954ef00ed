package dpo

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"imagecot/align/policy/policytest"
	"imagecot/backend"
	"imagecot/curate"
	"imagecot/internal/enginetest"
	"imagecot/internal/prng"
	"imagecot/train"

	"github.com/gomlx/compute"
	"github.com/parquet-go/parquet-go"
)

// BenchmarkStep is one optimiser step of the tiny generator, batch included, with the recipe's own settings, on pairs of
// random tokens. bench/dpo_step.py times PyTorch beside it.
func BenchmarkStep(b *testing.B) {
	configuration := os.Getenv(enginetest.Variable)
	if configuration == "" {
		b.Skip("needs a fast engine: set " + enginetest.Variable)
	}
	backend.KeepMemory() // as the command does
	be, err := compute.NewWithConfig(configuration)
	if err != nil {
		b.Fatal(err)
	}
	cfg, rng, from := policytest.Tiny(b), prng.New(1, 0, prng.Curate), b.TempDir()
	rows := make([]curate.Pair, 64)
	for i := range rows {
		rows[i] = curate.Pair{Prompt: "a photo of a red circle left of a blue square", Seed: uint64(i)}
		for range cfg.NumVQTokens {
			rows[i].Chosen = append(rows[i].Chosen, int32(rng.Intn(cfg.CodebookSize)))
			rows[i].Rejected = append(rows[i].Rejected, int32(rng.Intn(cfg.CodebookSize)))
		}
	}
	if err := parquet.WriteFile(filepath.Join(from, "part-00000.parquet"), rows); err != nil {
		b.Fatal(err)
	}
	r, err := train.ReadRecipe("../../recipes/tiny/dpo.yaml")
	if err != nil {
		b.Fatal(err)
	}
	r.InitFrom, r.Data["from"], r.Data["validation"] = policytest.Write(b, cfg, nil), from, 0 // one prompt: nothing to watch
	d, err := New(be, policytest.Folders, r, b.TempDir())
	if err == nil {
		err = d.Prepare(b.Context(), io.Discard)
	}
	if err != nil {
		b.Fatal(err)
	}
	loop, err := train.New(be, r, d, quiet{})
	if err != nil {
		b.Fatal(err)
	}
	steps := func(n int) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if err := loop.Run(ctx, func(int) error {
			if n--; n == 0 {
				cancel()
			}
			return nil
		}); !errors.Is(err, context.Canceled) {
			b.Fatal(err)
		}
	}
	steps(2) // compile and warm up
	b.ResetTimer()
	steps(b.N)
}

type quiet struct{}

func (quiet) Log(int, map[string]float64) error { return nil }
