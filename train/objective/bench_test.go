package objective

import (
	"context"
	"errors"
	"os"
	"testing"

	"imagecot/backend"

	"imagecot/internal/enginetest"
	"imagecot/internal/prng"
	"imagecot/models/showo"
	"imagecot/train"
	"imagecot/world"

	"github.com/gomlx/compute"
)

// BenchmarkStep is one optimiser step of the tiny models, batches included, with the recipes' own settings.
// bench/train_step.py times PyTorch beside it.
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
	for _, kind := range []string{"tokenizer", "generator", "judge"} {
		b.Run(kind, func(b *testing.B) {
			r, err := train.ReadRecipe("../../recipes/tiny/" + kind + ".yaml")
			if err != nil {
				b.Fatal(err)
			}
			var o train.Objective
			switch kind {
			case "tokenizer":
				o, err = NewTokenizer(r)
			case "generator":
				o, err = randomTokens(r)
			case "judge":
				o, err = NewJudge(r)
			}
			if err != nil {
				b.Fatal(err)
			}
			loop, err := train.New(be, r, o, quiet{})
			if err != nil {
				b.Fatal(err)
			}
			steps := func(n int) {
				ctx, cancel := context.WithCancel(context.Background())
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
		})
	}
}

// randomTokens is the generator's objective on random tokens: how long a step takes does not depend on them.
func randomTokens(r train.Recipe) (*Generator, error) {
	text, err := textTokenizer()
	if err != nil {
		return nil, err
	}
	eos, _ := text.TokenID("<|endoftext|>")
	g := &Generator{recipe: r, data: GeneratorData{Dropout: .1}, config: showo.Tiny(text.VocabSize(), eos), text: text}
	g.prompting = showo.NewPrompting(g.config)
	rng := prng.New(1, 0, prng.Scene)
	for range 64 {
		g.scenes = append(g.scenes, world.Ordinary.Draw(rng.Rand()))
		for range g.config.NumVQTokens {
			g.tokens = append(g.tokens, int32(rng.Intn(g.config.CodebookSize)))
		}
	}
	return g, nil
}

type quiet struct{}

func (quiet) Log(int, map[string]float64) error { return nil }
