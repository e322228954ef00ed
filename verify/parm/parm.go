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
	"slices"

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
	c, err := s.Choose(ctx, &run)
	if err != nil {
		return cot.Selection{}, err
	}
	return run.Select("parm", c.Path, c.NPrime, c.Reason), nil
}

// Choice is a finished path, how many had potential, and why it is this one.
type Choice struct {
	Path   *cot.Path
	NPrime int
	Reason string
}

// Choose does PARM's three tasks on the paths of a run that has started. PARM++ goes on from here.
func (s Strategy) Choose(ctx context.Context, run *verify.Run) (Choice, error) {
	a, err := s.Assess(ctx, run, run.Paths, nil)
	if err != nil {
		return Choice{}, err
	}
	if len(a.Kept.Paths) == 0 {
		return a.LastResort(ctx, run)
	}
	best, reason, err := orm.Best(ctx, run, a.Kept.Paths)
	return Choice{best, len(a.Kept.Paths), reason}, err
}

// Assess does the first two tasks: it takes the paths to their ends or to where they are truncated. replace, if not nil,
// is called after every step and may add paths of the same step to those that were kept.
func (s Strategy) Assess(ctx context.Context, run *verify.Run, paths []*cot.Path, replace func(a *Assessed)) (Assessed, error) {
	a := Assessed{Unclear: Judged{Paths: paths}}
	for step := 1; step <= run.Generator.Steps() && len(a.Unclear.Paths)+len(a.Kept.Paths) > 0; step++ {
		if err := run.Advance(ctx, slices.Concat(a.Unclear.Paths, a.Kept.Paths)); err != nil {
			return a, err
		}
		if step < s.From {
			continue
		}
		clear, still, err := split(ctx, run, cot.Clarity, a.Unclear.Paths)
		if err != nil {
			return a, err
		}
		promising, hopeless, err := split(ctx, run, cot.Potential, clear.Paths)
		if err != nil {
			return a, err
		}
		for i, path := range hopeless.Paths {
			run.Truncate(path, fmt.Sprintf("no potential at step %d: P(yes) %.4f", step, hopeless.Given[i].PYes()))
		}
		a = Assessed{Kept: a.Kept.and(promising), Denied: a.Denied.and(hopeless), Unclear: still}
		if replace != nil {
			replace(&a)
		}
	}
	for _, path := range a.Unclear.Paths {
		run.Truncate(path, "never clear")
	}
	return a, nil
}

// Judged are paths and what the judge said about each, to one question.
type Judged struct {
	Paths []*cot.Path
	Given []cot.Verdict
}

func (j Judged) and(k Judged) Judged {
	return Judged{slices.Concat(j.Paths, k.Paths), slices.Concat(j.Given, k.Given)}
}

// split asks a question about the paths and parts those answered yes from the others. A verdict that is no number is
// no yes.
func split(ctx context.Context, run *verify.Run, kind cot.QuestionKind, paths []*cot.Path) (yes, no Judged, err error) {
	given, err := run.Ask(ctx, kind, paths)
	for i, v := range given {
		side := &no
		if v.Yes() {
			side = &yes
		}
		side.Paths, side.Given = append(side.Paths, paths[i]), append(side.Given, v)
	}
	return yes, no, err
}

// Assessed are paths by what PARM said about them.
type Assessed struct {
	Kept    Judged // with potential, and what was said about it
	Denied  Judged // without
	Unclear Judged // never asked about it, and the last answer to clarity
}

// And joins what was said about two groups of paths.
func (a Assessed) And(b Assessed) Assessed {
	return Assessed{a.Kept.and(b.Kept), a.Denied.and(b.Denied), a.Unclear.and(b.Unclear)}
}

// LastResort is the rule for N' = 0; the path is then finished. Deviation D5: the paper does not say P(no) of which
// question.
func (a Assessed) LastResort(ctx context.Context, run *verify.Run) (Choice, error) {
	last, reason := slices.Concat(a.Denied.Paths, a.Unclear.Paths)[0], "no path had potential and no verdict was a number; the first one"
	if i := verify.LeastNo(a.Denied.Given); i >= 0 {
		last, reason = a.Denied.Paths[i], fmt.Sprintf("no path had potential; this one the lowest log P(no), %.4f", a.Denied.Given[i].LogPNo)
	} else if i := verify.LeastNo(a.Unclear.Given); i >= 0 {
		last, reason = a.Unclear.Paths[i], fmt.Sprintf("no path was ever clear; this one had the lowest log P(no), %.4f", a.Unclear.Given[i].LogPNo)
	}
	return Choice{Path: last, Reason: reason}, run.Finish(ctx, []*cot.Path{last})
}
