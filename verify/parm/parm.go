// Package parm is the paper's potential assessment reward model (Sec. 3.1, App. B.3). Its three tasks:
//
//  1. clarity: at every step, is the step image clear enough to be judged? If not, go on.
//  2. potential: on the first clear step, and never again, can a good image come out of it? If not, the path is
//     truncated: it takes no further step.
//  3. best of N': among the N' paths that were kept, the final image with the highest P(yes) to the outcome question.
//
// A path that never becomes clear has no potential. If no path has (N' = 0), the one whose potential was denied with
// the lowest P(no) is finished and returned.
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
	// From is the first step whose image is judged for clarity, 1 if zero. Deviation D7: the paper asks from step 1; a
	// later start saves questions about images that are never clear.
	From int
}

// Select implements cot.Strategy.
func (s Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g, Judge: s.Judge, Questions: s.Questions, Observer: s.Observer}
	if err := run.Start(ctx, p, seeds); err != nil {
		return cot.Selection{}, err
	}
	unclear, kept, denied := run.Paths, []*cot.Path(nil), refused{}
	for step := 1; step <= g.Steps() && len(unclear)+len(kept) > 0; step++ {
		if err := run.Advance(ctx, append(unclear[:len(unclear):len(unclear)], kept...)); err != nil {
			return cot.Selection{}, err
		}
		if step < s.From {
			continue
		}
		clear, still, err := clarity(ctx, &run, unclear)
		if err != nil {
			return cot.Selection{}, err
		}
		verdicts, err := run.Ask(ctx, cot.Potential, clear)
		if err != nil {
			return cot.Selection{}, err
		}
		for i, path := range clear {
			if verdicts[i].Yes() {
				kept = append(kept, path)
				continue
			}
			run.Truncate(path, fmt.Sprintf("no potential at step %d: P(yes) %.4f", step, verdicts[i].PYes()))
			denied.add(path, verdicts[i])
		}
		unclear = still
	}
	for _, path := range unclear {
		run.Truncate(path, "never clear")
	}
	if len(kept) > 0 {
		best, reason, err := orm.Best(ctx, &run, kept)
		if err != nil {
			return cot.Selection{}, err
		}
		return run.Select("parm", best, len(kept), reason), nil
	}
	last, reason := denied.least(unclear)
	if err := run.Finish(ctx, []*cot.Path{last}); err != nil {
		return cot.Selection{}, err
	}
	return run.Select("parm", last, 0, reason), nil
}

// clarity splits the paths by the judge's answer.
func clarity(ctx context.Context, run *verify.Run, paths []*cot.Path) (clear, still []*cot.Path, err error) {
	verdicts, err := run.Ask(ctx, cot.Clarity, paths)
	if err != nil {
		return nil, nil, err
	}
	for i, path := range paths {
		if verdicts[i].Yes() {
			clear = append(clear, path)
		} else {
			still = append(still, path)
		}
	}
	return clear, still, nil
}

// refused are the paths whose potential was denied.
type refused struct {
	paths    []*cot.Path
	verdicts []cot.Verdict
}

func (r *refused) add(p *cot.Path, v cot.Verdict) {
	r.paths, r.verdicts = append(r.paths, p), append(r.verdicts, v)
}

// least is the rule for N' = 0: the denied path with the lowest P(no); where none was even clear, the first path.
func (r *refused) least(unclear []*cot.Path) (*cot.Path, string) {
	if i := verify.LeastNo(r.verdicts); i >= 0 {
		return r.paths[i], fmt.Sprintf("no path had potential; this one with the lowest log P(no), %.4f", r.verdicts[i].LogPNo)
	}
	if len(unclear) > 0 {
		return unclear[0], "no path was ever clear; the first one"
	}
	return r.paths[0], "no path had potential, no verdict was a number; the first one"
}
