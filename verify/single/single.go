// Package single is the baseline: one path, no judge.
package single

import (
	"context"

	"imagecot/cot"
	"imagecot/verify"
)

// Strategy decodes the first seed's path and asks nobody.
type Strategy struct{}

// Select implements cot.Strategy. Further seeds are ignored.
func (Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g}
	if err := run.Start(ctx, p, seeds[:min(1, len(seeds))]); err != nil {
		return cot.Selection{}, err
	}
	if err := run.Finish(ctx, run.Paths); err != nil {
		return cot.Selection{}, err
	}
	return run.Select("single", run.Paths[0], 1, "the only path"), nil
}
