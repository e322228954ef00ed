// Package beam is an extension beyond the paper: beam search over decoding steps. N paths start. At a few steps the judge
// looks at all step images, the B most confident paths go on, and each path that is truncated is replaced by a fork of one
// of them; at the end the best final image is chosen as by the ORM. It lies between the ORM (nothing is ever forked) and
// the PRM (B = 1 at every step), at the N*T decoding steps of both. The package knows no models.
package beam

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"imagecot/cot"
	"imagecot/verify"
	"imagecot/verify/orm"
	"imagecot/verify/questions"
)

// Strategy is step-level beam search.
type Strategy struct {
	Judge     cot.Judge
	Questions questions.Set
	Observer  cot.Observer
	Width     int              // B, paths that are kept; 0 means the square root of N
	At        []int            // steps that are judged; nil means 1/2, 2/3 and 5/6 of T
	Kind      cot.QuestionKind // the question there; "" means cot.Potential, which PARM is trained for; cot.Process is the PRM's
}

// Select implements cot.Strategy.
func (s Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g, Judge: s.Judge, Questions: s.Questions, Observer: s.Observer}
	if err := run.Start(ctx, p, seeds); err != nil {
		return cot.Selection{}, err
	}
	width, at, kind := cmp.Or(s.Width, int(math.Sqrt(float64(len(seeds))))), s.At, cmp.Or(s.Kind, cot.Potential)
	if at == nil {
		at = []int{g.Steps() / 2, g.Steps() * 2 / 3, g.Steps() * 5 / 6}
	}
	live := run.Paths
	for step := 1; step <= g.Steps(); step++ {
		if err := run.Advance(ctx, live); err != nil {
			return cot.Selection{}, err
		}
		if step == g.Steps() || !slices.Contains(at, step) {
			continue
		}
		verdicts, err := run.Ask(ctx, kind, live)
		if err != nil {
			return cot.Selection{}, err
		}
		live = narrow(&run, live, verdicts, width)
	}
	best, reason, err := orm.Best(ctx, &run, live)
	if err != nil {
		return cot.Selection{}, err
	}
	return run.Select("beam", best, len(live), reason), nil
}

// narrow keeps the paths of the highest log P(yes), NaN last, and replaces each other one by a fork of a kept one, in
// turn, that draws its seed's noise from here on.
func narrow(run *verify.Run, paths []*cot.Path, verdicts []cot.Verdict, width int) []*cot.Path {
	order := make([]int, len(paths))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(verdicts[j].LogPYes, verdicts[i].LogPYes) })
	var next []*cot.Path
	for rank, i := range order {
		if rank < width {
			next = append(next, paths[i])
			continue
		}
		run.Truncate(paths[i], fmt.Sprintf("number %d of %d at step %d: P(yes) %.4f", rank+1, len(paths), paths[i].Step, verdicts[i].PYes()))
		next = append(next, run.Fork(next[rank%width], paths[i].Seed))
	}
	return next
}
