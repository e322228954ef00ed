package graphx

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// Layer is block(x). If the policy says Recompute, its inner results are computed again for the gradient instead of being kept: of
// a stack of layers the inputs alone stay in memory (gradient checkpointing; Chen et al., arXiv 1604.06174). The values are
// the same. An engine that has no barriers to keep the two computations apart keeps everything.
func (s Scope) Layer(x *graph.Node, block func(*graph.Node) *graph.Node) *graph.Node {
	if !s.Policy.Recompute {
		return block(x)
	}
	can := x.Graph().Backend().Capabilities().Operations
	if !can[compute.OpTypeOptimizationBarrier] || !can[compute.OpTypeSchedulingBarrier] {
		return block(x)
	}
	return block(x.Checkpoint()).StopCheckpoint()
}
