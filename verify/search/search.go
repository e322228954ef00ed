// Package search is an extension beyond the paper: PARM that spends what truncation saves. Each path without potential is
// replaced by a fork of one that has it, from the step at which both stand. So no more than N paths are ever under way,
// and the whole takes at most the N*T decoding steps of the ORM: more candidates at equal cost, all of them promising. The
// package knows no models.
package search

import (
	"context"
	"math"

	"imagecot/cot"
	"imagecot/verify"
	"imagecot/verify/orm"
	"imagecot/verify/parm"
	"imagecot/verify/questions"
)

// Strategy is PARM with replacement.
type Strategy struct {
	Judge     cot.Judge
	Questions questions.Set
	Observer  cot.Observer
	From      int // first step whose image is judged, as in parm.Strategy
}

// Select implements cot.Strategy. A fork draws the noise of the seed that the truncated path leaves; it is not asked about
// its potential, which is its parent's.
func (s Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g, Judge: s.Judge, Questions: s.Questions, Observer: s.Observer}
	if err := run.Start(ctx, p, seeds); err != nil {
		return cot.Selection{}, err
	}
	forks, replaced := map[*cot.Path]int{}, 0
	replace := func(a *parm.Assessed) {
		for len(a.Kept.Paths) > 0 && replaced < len(a.Denied.Paths) {
			i := next(a.Kept, forks)
			parent := a.Kept.Paths[i]
			if parent.Step == g.Steps() {
				return // a fork would be the same image
			}
			fork := run.Fork(parent, a.Denied.Paths[replaced].Seed)
			a.Kept.Paths, a.Kept.Given = append(a.Kept.Paths, fork), append(a.Kept.Given, a.Kept.Given[i])
			forks[parent]++
			forks[fork] = math.MaxInt // not forked in turn
			replaced++
		}
	}
	a, err := parm.Strategy{Judge: s.Judge, Questions: s.Questions, From: s.From}.Assess(ctx, &run, run.Paths, replace)
	if err != nil {
		return cot.Selection{}, err
	}
	if len(a.Kept.Paths) == 0 {
		c, err := a.LastResort(ctx, &run)
		return run.Select("search", c.Path, 0, c.Reason), err
	}
	best, reason, err := orm.Best(ctx, &run, a.Kept.Paths)
	if err != nil {
		return cot.Selection{}, err
	}
	return run.Select("search", best, len(a.Kept.Paths), reason), nil
}

// next is the promising path with the fewest forks, the likeliest one of several.
func next(kept parm.Judged, forks map[*cot.Path]int) int {
	best := 0
	for i, path := range kept.Paths {
		fewer := forks[path] - forks[kept.Paths[best]]
		if fewer < 0 || fewer == 0 && kept.Given[i].LogPYes > kept.Given[best].LogPYes {
			best = i
		}
	}
	return best
}
