package showo

import (
	"os"
	"testing"

	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
)

// BenchmarkOfficialImage is one image, all 18 steps with guidance, of the checkpoint folder that IMAGECOT_BENCH_GENERATOR
// names, in float32 and in bf16, on the engine of IMAGECOT_TEST_ENGINE. Weights are loaded and graphs compiled before.
func BenchmarkOfficialImage(b *testing.B) {
	dir, engine := os.Getenv("IMAGECOT_BENCH_GENERATOR"), os.Getenv(enginetest.Variable)
	if dir == "" || engine == "" {
		b.Skip("IMAGECOT_BENCH_GENERATOR or " + enginetest.Variable + " is not set")
	}
	be, err := compute.NewWithConfig(engine)
	if err != nil {
		b.Fatal(err)
	}
	for _, float := range []ckpt.DType{ckpt.BF16, ckpt.F32} {
		b.Run(string(float), func(b *testing.B) {
			text, err := os.ReadFile(dir + "/config.json")
			if err != nil {
				b.Fatal(err)
			}
			cfg, err := LoadConfig(text)
			if err != nil {
				b.Fatal(err)
			}
			g, err := NewGenerator(be, cfg, graphx.NewWeights(kept(b, be, dir, float)), letters{}, nil, PaperOptions())
			if err != nil {
				b.Fatal(err)
			}
			image := func(seed uint64, steps int) {
				paths, err := g.Start(b.Context(), cot.Prompt{Text: "elevenwords"}, []uint64{seed})
				if err != nil {
					b.Fatal(err)
				}
				for range steps {
					if err := g.Advance(b.Context(), paths); err != nil {
						b.Fatal(err)
					}
				}
			}
			image(0, 1)
			for seed := uint64(1); b.Loop(); seed++ {
				image(seed, g.Steps())
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N*g.Steps()), "s/step")
		})
	}
}
