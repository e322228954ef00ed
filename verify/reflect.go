package verify

import (
	"context"
	"fmt"
	"math"

	"imagecot/cot"
)

// Reflect asks the reflection question about a finished path and enters the answer as a round of PARM++.
func (r *Run) Reflect(ctx context.Context, path *cot.Path) (cot.Verdict, error) {
	verdicts, err := r.Ask(ctx, cot.Reflection, []*cot.Path{path})
	if err != nil {
		return cot.Verdict{}, err
	}
	r.reflections = append(r.reflections, cot.ReflectionTrace{
		Path: path.Index, Question: r.Questions.Text(cot.Reflection, r.prompt), Verdict: verdicts[0], Corrected: -1,
	})
	return verdicts[0], nil
}

// Correct has the reason asked for in words, why the path that was reflected upon last does not follow the prompt, and a
// new path made in view of it. A reason counts as one judge call, a correction as all of its decoding steps.
func (r *Run) Correct(ctx context.Context, e cot.Explainer, c cot.Corrector, seed uint64) (*cot.Path, error) {
	round := &r.reflections[len(r.reflections)-1]
	bad := r.Paths[round.Path]
	images, err := r.Decode(ctx, []*cot.Path{bad})
	if err != nil {
		return nil, err
	}
	q := r.Questions.Ask(cot.Reason, bad)
	q.Image = images[0]
	r.cost.JudgeCalls++
	if round.Reason, err = e.Explain(ctx, q); err != nil {
		return nil, err
	}
	path, err := c.Correct(ctx, r.prompt, bad, round.Reason, seed)
	if err != nil {
		return nil, err
	}
	if path.Step != r.Generator.Steps() {
		return nil, fmt.Errorf("verify: a correction stands at step %d of %d", path.Step, r.Generator.Steps())
	}
	path.Index, path.Seed, path.Prompt = len(r.Paths), seed, r.prompt
	round.Why, round.Corrected = q.Text, path.Index
	r.Paths = append(r.Paths, path)
	r.traces = append(r.traces, cot.PathTrace{Index: path.Index, Seed: seed, Parent: bad.Index, Corrects: true, Steps: path.Step})
	r.cost.DecodingSteps += path.Step
	return path, nil
}

// HighestOdds returns the index of the highest log P(yes) - log P(no), the first on ties or if none is a number. Unlike
// the highest P(yes), a verdict of yes always comes before one of no.
func HighestOdds(verdicts []cot.Verdict) int {
	best := 0
	odds := math.NaN()
	for i, v := range verdicts {
		if o := v.LogPYes - v.LogPNo; o > odds || math.IsNaN(odds) && !math.IsNaN(o) {
			best, odds = i, o
		}
	}
	return best
}
