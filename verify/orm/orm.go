// Package orm is the outcome reward model as verifier (Sec. 2.2): N paths are decoded to the end and the final image
// with the highest probability of "yes" is kept. Zero-shot or fine-tuned is a matter of the judge.
package orm

import (
	"context"
	"fmt"

	"imagecot/cot"
	"imagecot/verify"
	"imagecot/verify/questions"
)

// Strategy is best of N by the outcome question.
type Strategy struct {
	Judge     cot.Judge
	Questions questions.Set
	Observer  cot.Observer
}

// Select implements cot.Strategy.
func (s Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g, Judge: s.Judge, Questions: s.Questions, Observer: s.Observer}
	if err := run.Start(ctx, p, seeds); err != nil {
		return cot.Selection{}, err
	}
	if err := run.Finish(ctx, run.Paths); err != nil {
		return cot.Selection{}, err
	}
	best, reason, err := Best(ctx, &run, run.Paths)
	if err != nil {
		return cot.Selection{}, err
	}
	return run.Select("orm", best, len(run.Paths), reason), nil
}

// Best asks the outcome question about finished paths and returns the one with the highest log P(yes), the first on
// ties, and why in words. PARM's last task is this one, over N' paths.
func Best(ctx context.Context, run *verify.Run, paths []*cot.Path) (*cot.Path, string, error) {
	verdicts, err := run.Ask(ctx, cot.Outcome, paths)
	if err != nil {
		return nil, "", err
	}
	i := verify.Highest(verdicts)
	if i < 0 {
		return nil, "", fmt.Errorf("orm: %d final images: %w", len(paths), verify.ErrNoVerdict)
	}
	return paths[i], fmt.Sprintf("highest P(yes) of %d final images: %.4f", len(paths), verdicts[i].PYes()), nil
}
