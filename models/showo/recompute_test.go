package showo

import (
	"testing"

	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Every layer of the generator is one that gradient checkpointing computes again, on an engine that can.
func TestLayersCanBeComputedAgain(t *testing.T) {
	cfg := small()
	ids, labels, pads := trainingBatch(cfg, 2)
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		weights, err := Init(cfg, prng.New(1, 0, prng.Init).Rand(), InitOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w := graphx.NewWeights(weights)
		ops := be.Capabilities().Operations
		can := ops[compute.OpTypeOptimizationBarrier] && ops[compute.OpTypeSchedulingBarrier]
		for _, again := range []bool{false, true} {
			activations := 0
			p, err := graphx.NewProgram(be, "gradient", w, graphx.Policy{Recompute: again}, func(s graphx.Scope, in []*Node) []*Node {
				loss := T2ILoss(s, cfg, in[0], in[1], in[2])
				grad := Gradient(loss, s.Param("showo.model.embed_tokens.weight"))
				for _, n := range loss.Graph().Nodes() {
					if n.Type() == NodeTypeTanh { // of a layer's GELU
						activations++
					}
				}
				return grad
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Run(graphx.Tensor(ids, 2, len(ids)/2), graphx.Tensor(labels, 2, len(ids)/2), graphx.Tensor(pads, 2)); err != nil {
				t.Fatal(err)
			}
			if twice := activations >= 2*cfg.LLM.Layers; twice != (again && can) {
				t.Errorf("recompute %t: %d activations of %d layers", again, activations, cfg.LLM.Layers)
			}
		}
	})
}
