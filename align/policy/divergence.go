package policy

import (
	"context"
	"fmt"
	"math"

	"imagecot/internal/graphx"
	"imagecot/models/showo"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// Divergence measures how far weights have moved from the starting ones: the sum over a row's hidden tokens, soi and eoi
// of KL(pi || ref) of the predictions, in nats. It is exact for the row, and not an estimate from the tokens drawn.
type Divergence struct {
	weights *graphx.Weights // the present ones by their names, the starting ones below reference.
	program *graphx.Program
	tile    int
}

// frozen is what comes before the names of the starting weights.
const frozen = "reference"

// Divergence starts with the starting weights on both sides.
func (p *Policy) Divergence(be compute.Backend) (*Divergence, error) {
	all, err := p.Weights()
	if err != nil {
		return nil, err
	}
	reference, err := p.Weights()
	if err != nil {
		return nil, err
	}
	for name, t := range reference {
		all[frozen+"."+name] = t
	}
	d := &Divergence{weights: graphx.NewWeights(all)}
	d.tile = tileOf(d.weights)
	d.program, err = graphx.NewProgram(be, "divergence", d.weights, graphx.PolicyFor(be), func(s graphx.Scope, in []*Node) []*Node {
		pi, target := showo.T2IPredictions(s, p.Config, in[0], in[1], in[2])
		ref, _ := showo.T2IPredictions(s.In(frozen), p.Config, in[0], in[1], in[2])
		kl := ReduceSum(Mul(Exp(pi), Sub(pi, ref)), -1)
		return []*Node{ReduceSum(Mul(kl, target), -1)}
	})
	return d, err
}

// Set replaces one of the present weights. The tensor belongs to the caller.
func (d *Divergence) Set(name string, t *tensors.Tensor) { d.weights.Set(name, t) }

// Mean is the mean over n rows, which add appends by their numbers.
func (d *Divergence) Mean(ctx context.Context, n int, add func(rows *Rows, i int)) (float64, error) {
	sum := 0.0
	for at := 0; at < n; at += d.tile {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		var rows Rows
		for i := at; i < min(at+d.tile, n); i++ {
			add(&rows, i)
		}
		real := rows.Len()
		rows.repeat(d.tile)
		in := rows.Tensors()
		out, err := d.program.Run(in[0], in[1], in[2])
		graphx.Free(in...)
		if err != nil {
			return 0, err
		}
		for _, v := range graphx.Floats(out[0])[:real] {
			sum += float64(v) / float64(n)
		}
	}
	if math.IsNaN(sum) || math.IsInf(sum, 0) {
		return 0, fmt.Errorf("policy: the divergence from the starting weights is %v", sum)
	}
	return sum, nil
}
