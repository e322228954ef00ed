// Package threshold is an extension beyond the paper: best of at most N, which stops when one image is good enough (the
// idea of arXiv 2512.08985). Paths are decoded in waves. As soon as the judge's P(yes) to the outcome question passes a
// threshold, no further wave starts; so easy prompts cost one wave, and a larger N is spent on hard ones only. Inside a wave
// paths are truncated as by PARM, or all finished as by the ORM. With a threshold above 1 it chooses what PARM, or the
// ORM, chooses. The package knows no models.
package threshold

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"imagecot/cot"
	"imagecot/verify"
	"imagecot/verify/parm"
	"imagecot/verify/questions"
)

// The defaults.
const (
	Threshold = .9
	Wave      = 4
)

// Strategy is best of at most N in waves.
type Strategy struct {
	Judge     cot.Judge
	Questions questions.Set
	Observer  cot.Observer
	Threshold float64 // P(yes) at which it stops; 0 means Threshold
	Wave      int     // paths decoded together; 0 means Wave
	From      int     // first step whose image is judged, as in parm.Strategy
	Whole     bool    // finish all paths of a wave, as the ORM does, instead of truncating them as PARM does
}

// Select implements cot.Strategy. The seeds' number is the most paths that are decoded.
func (s Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g, Judge: s.Judge, Questions: s.Questions, Observer: s.Observer}
	if err := run.Start(ctx, p, seeds); err != nil {
		return cot.Selection{}, err
	}
	var all parm.Assessed
	var given []cot.Verdict // to the outcome question, of all.Kept
	for wave := range slices.Chunk(run.Paths, cmp.Or(s.Wave, Wave)) {
		if len(given) > 0 && given[max(0, verify.Highest(given))].PYes() >= cmp.Or(s.Threshold, Threshold) {
			for _, path := range wave {
				run.Note(path, "not needed")
			}
			continue
		}
		a, err := s.decode(ctx, &run, wave)
		if err != nil {
			return cot.Selection{}, err
		}
		verdicts, err := run.Ask(ctx, cot.Outcome, a.Kept.Paths)
		if err != nil {
			return cot.Selection{}, err
		}
		all, given = all.And(a), append(given, verdicts...)
	}
	if len(given) == 0 {
		c, err := all.LastResort(ctx, &run)
		return run.Select("threshold", c.Path, 0, c.Reason), err
	}
	i := verify.Highest(given)
	if i < 0 {
		return cot.Selection{}, fmt.Errorf("threshold: %d final images: %w", len(given), verify.ErrNoVerdict)
	}
	reason := fmt.Sprintf("highest P(yes) of %d final images: %.4f", len(given), given[i].PYes())
	return run.Select("threshold", all.Kept.Paths[i], len(given), reason), nil
}

// decode takes a wave to its end.
func (s Strategy) decode(ctx context.Context, run *verify.Run, wave []*cot.Path) (parm.Assessed, error) {
	if s.Whole {
		return parm.Assessed{Kept: parm.Judged{Paths: wave}}, run.Finish(ctx, wave)
	}
	return parm.Strategy{Judge: s.Judge, Questions: s.Questions, From: s.From}.Assess(ctx, run, wave, nil)
}
