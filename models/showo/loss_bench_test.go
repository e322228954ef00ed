//go:build unix

package showo

import (
	"os"
	"syscall"
	"testing"
	"time"

	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// gradient compiles the loss and all gradients of a generator on a batch of some rows; a call of what it returns runs them.
func gradient(b *testing.B, be compute.Backend, cfg Config, policy graphx.Policy, rows int) func() {
	t, err := Init(cfg, prng.New(1, 0, prng.Init).Rand(), InitOptions{Structured: true})
	if err != nil {
		b.Fatal(err)
	}
	w := graphx.NewWeights(t)
	p, err := graphx.NewProgram(be, "training", w, policy, func(s graphx.Scope, in []*Node) []*Node {
		loss := T2ILoss(s, cfg, in[0], in[1], in[2])
		var wrt []*Node
		for _, n := range w.Names() {
			wrt = append(wrt, s.Param(n))
		}
		return append([]*Node{loss}, Gradient(loss, wrt...)...)
	})
	if err != nil {
		b.Fatal(err)
	}
	ids, labels, pads := trainingBatch(cfg, rows)
	in := []any{graphx.Tensor(ids, rows, len(ids)/rows), graphx.Tensor(labels, rows, len(ids)/rows), graphx.Tensor(pads, rows)}
	return func() {
		out, err := p.Run(in...)
		if err != nil {
			b.Fatal(err)
		}
		graphx.Free(out...)
	}
}

// fastEngine is the engine that the environment names.
func fastEngine(b *testing.B) compute.Backend {
	configuration := os.Getenv(enginetest.Variable)
	if configuration == "" {
		b.Skip("needs a fast engine")
	}
	be, err := compute.NewWithConfig(configuration)
	if err != nil {
		b.Fatal(err)
	}
	return be
}

// BenchmarkTrainingGradient is the loss and all gradients of the tiny generator at batch 16.
func BenchmarkTrainingGradient(b *testing.B) {
	be := fastEngine(b)
	for name, dtype := range map[string]dtypes.DType{"float32": dtypes.Float32, "bfloat16": dtypes.BFloat16} {
		b.Run(name, func(b *testing.B) {
			run := gradient(b, be, Tiny(420, 0), graphx.Policy{Compute: dtype}, 16)
			run()
			run()
			begun := processorTime()
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64((processorTime()-begun).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// BenchmarkRecompute is the gradient of a generator of 24 layers with gradient checkpointing and without. The peak of the process is
// that of all that it ran: run one of the two at a time.
func BenchmarkRecompute(b *testing.B) {
	be := fastEngine(b)
	cfg := Tiny(420, 0)
	cfg.LLM.Layers, cfg.LLM.HiddenSize, cfg.LLM.IntermediateSize = 24, 256, 1024
	for name, again := range map[string]bool{"kept": false, "again": true} {
		b.Run(name, func(b *testing.B) {
			run := gradient(b, be, cfg, graphx.Policy{Recompute: again}, 32)
			for b.Loop() {
				run()
			}
			var u syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(u.Maxrss)/1024, "peak-MiB") // Linux counts KiB
		})
	}
}

// processorTime is what the process has used on all cores: it is comparable on a busy machine, where time is not.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
