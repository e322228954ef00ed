// Package prm is the process reward model as verifier (Sec. 2.2, App. B.2): step-level best of N. At each decoding
// step N continuations of the current path are made, the judge looks at their step images, and the most confident
// one goes on: N*T decoding steps and as many questions. It knows no models.
package prm

import (
	"context"
	"fmt"

	"imagecot/cot"
	"imagecot/verify"
	"imagecot/verify/questions"
)

// Strategy is step-level best of N by the process question.
type Strategy struct {
	Judge     cot.Judge
	Questions questions.Set
	Observer  cot.Observer
}

// Select implements cot.Strategy. The seeds' number is N: continuation j of a step draws seed j's noise from there on
// (Deviation D7: the paper leaves open how continuations differ).
func (s Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g, Judge: s.Judge, Questions: s.Questions, Observer: s.Observer}
	if err := run.Start(ctx, p, seeds); err != nil {
		return cot.Selection{}, err
	}
	candidates := run.Paths
	for step := 1; ; step++ {
		if err := run.Advance(ctx, candidates); err != nil {
			return cot.Selection{}, err
		}
		verdicts, err := run.Ask(ctx, cot.Process, candidates)
		if err != nil {
			return cot.Selection{}, err
		}
		best := verify.Highest(verdicts)
		if best < 0 {
			return cot.Selection{}, fmt.Errorf("prm: step %d: %w", step, verify.ErrNoVerdict)
		}
		current := candidates[best]
		reason := fmt.Sprintf("highest P(yes) of %d continuations at step %d: %.4f", len(candidates), step, verdicts[best].PYes())
		for i, path := range candidates {
			if i != best {
				run.Truncate(path, "another continuation was more likely")
			}
		}
		if step == g.Steps() {
			return run.Select("prm", current, 1, reason), nil
		}
		candidates = nil
		for _, seed := range seeds {
			if seed == current.Seed {
				candidates = append(candidates, current) // its own noise goes on
			} else {
				candidates = append(candidates, run.Fork(current, seed))
			}
		}
	}
}
