// Package parm is the paper's potential assessment reward model (Sec. 3, App. B.3). Its three tasks:
//
//  1. clarity: at every step, is the step image clear enough to be judged? If not, go on.
//  2. potential: on the first clear step, and never again, can a good image come out of it? If not, the path is
//     truncated: it takes no further step.
//  3. best of N': among the N' paths with potential, the final image with the highest P(yes) to the outcome question.
//
// A path that never becomes clear has no potential. If no path has (N' = 0), the one with the lowest P(no) to the
// question of potential is finished and returned; if that was asked of none, the one with the lowest P(no) to the last
// question of clarity. The package knows no models.
package parm

import (
	"context"
	"fmt"

	"imagecot/cot"
	"imagecot/verify"
	"imagecot/verify/orm"
	"imagecot/verify/questions"
)

// Strategy is PARM as verifier.
type Strategy struct {
	Judge     cot.Judge
	Questions questions.Set
	Observer  cot.Observer
	// From is the first step whose image is judged, 1 if zero. Deviation D6: the paper asks from step 1; a later start
	// saves questions about images that are never clear.
	From int
}

// Select implements cot.Strategy.
func (s Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g, Judge: s.Judge, Questions: s.Questions, Observer: s.Observer}
	if err := run.Start(ctx, p, seeds); err != nil {
		return cot.Selection{}, err
	}
	var kept []*cot.Path // with potential
	var denied, unclear verdicts
	unclear.paths = run.Paths
	for step := 1; step <= g.Steps() && len(unclear.paths)+len(kept) > 0; step++ {
		if err := run.Advance(ctx, append(unclear.paths[:len(unclear.paths):len(unclear.paths)], kept...)); err != nil {
			return cot.Selection{}, err
		}
		if step < s.From {
			continue
		}
		clear, still, err := split(ctx, &run, cot.Clarity, unclear.paths)
		if err != nil {
			return cot.Selection{}, err
		}
		promising, hopeless, err := split(ctx, &run, cot.Potential, clear.paths)
		if err != nil {
			return cot.Selection{}, err
		}
		for i, path := range hopeless.paths {
			run.Truncate(path, fmt.Sprintf("no potential at step %d: P(yes) %.4f", step, hopeless.given[i].PYes()))
		}
		kept, unclear = append(kept, promising.paths...), still
		denied.paths, denied.given = append(denied.paths, hopeless.paths...), append(denied.given, hopeless.given...)
	}
	for _, path := range unclear.paths {
		run.Truncate(path, "never clear")
	}
	if len(kept) > 0 {
		best, reason, err := orm.Best(ctx, &run, kept)
		if err != nil {
			return cot.Selection{}, err
		}
		return run.Select("parm", best, len(kept), reason), nil
	}
	last, reason := lastResort(denied, unclear)
	if err := run.Finish(ctx, []*cot.Path{last}); err != nil {
		return cot.Selection{}, err
	}
	return run.Select("parm", last, 0, reason), nil
}

// verdicts are paths and what the judge said about each, to one question.
type verdicts struct {
	paths []*cot.Path
	given []cot.Verdict
}

// split asks a question about the paths and parts those answered yes from the others. A verdict that is no number is
// no yes.
func split(ctx context.Context, run *verify.Run, kind cot.QuestionKind, paths []*cot.Path) (yes, no verdicts, err error) {
	given, err := run.Ask(ctx, kind, paths)
	for i, v := range given {
		side := &no
		if v.Yes() {
			side = &yes
		}
		side.paths, side.given = append(side.paths, paths[i]), append(side.given, v)
	}
	return yes, no, err
}

// lastResort is the rule for N' = 0. Deviation D5: the paper does not say P(no) of which question.
func lastResort(denied, unclear verdicts) (*cot.Path, string) {
	if i := verify.LeastNo(denied.given); i >= 0 {
		return denied.paths[i], fmt.Sprintf("no path had potential; this one the lowest log P(no), %.4f", denied.given[i].LogPNo)
	}
	if i := verify.LeastNo(unclear.given); i >= 0 {
		return unclear.paths[i], fmt.Sprintf("no path was ever clear; this one had the lowest log P(no), %.4f", unclear.given[i].LogPNo)
	}
	return append(denied.paths, unclear.paths...)[0], "no path had potential and no verdict was a number; the first one"
}
