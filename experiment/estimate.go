package experiment

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"imagecot/cot"
	"imagecot/internal/prng"
)

// announce tells, before it is spent, about how much the open tasks of a generator need computed and how long that takes
// at the rates of this folder's earlier work, or of one batch that is tried.
func (w *worker) announce(ctx context.Context, name string) error {
	if w.Note == nil {
		return nil
	}
	var sum rates
	prompts := 0
	for i := range w.Prompts {
		todo := slices.DeleteFunc(slices.Clone(w.tasks), func(t task) bool { _, ok := w.finished(t, i); return ok })
		if len(todo) > 0 {
			prompts++
			need := w.needs(todo)
			sum.Steps, sum.Images, sum.Calls = sum.Steps+need.Steps, sum.Images+need.Images, sum.Calls+need.Calls
		}
	}
	if prompts == 0 {
		return nil
	}
	r, err := readRates(w.Dir, name)
	if err != nil {
		return err
	}
	if r.Steps == 0 {
		if r, err = w.try(ctx); err != nil {
			return fmt.Errorf("experiment: %s: %w", name, err)
		}
	}
	s := r.seconds(Cost{DecodingSteps: float64(sum.Steps), ImagesDecoded: float64(sum.Images), JudgeCalls: float64(sum.Calls)})
	w.Note("generator %s: %d prompts to be done in %d measurements, about %d decoding steps, %d step images and %d questions: about %v",
		name, prompts, len(w.tasks), sum.Steps, sum.Images, sum.Calls, time.Duration(s*float64(time.Second)).Round(time.Second))
	return nil
}

// needs is about what the tasks on one prompt compute, what they share once. PARM asks about half of its step images, for
// the others come after the first clear one.
func (w *worker) needs(tasks []task) rates {
	steps := w.memo.Steps()
	var forked rates
	bank, looked := 0, 0
	asked := map[string]int{} // by judge
	for _, t := range tasks {
		paths := t.n * w.selections(t)
		kind, _, _ := strings.Cut(t.strategy, "@")
		kind, _, _ = strings.Cut(kind, ":")
		switch kind {
		case "prm":
			forked.Steps += paths * (steps - 1)
			forked.Images += paths * steps
			forked.Calls += paths * steps
			continue
		case "beam":
			forked.Steps += paths * steps / 2
			forked.Images += paths * 3
			forked.Calls += paths * 4
		case "parm", "parmpp", "search", "threshold":
			looked = max(looked, paths*steps/2)
			asked[t.judge] = max(asked[t.judge], paths*(steps/2+2))
		case "single", "oracle":
		default:
			asked[t.judge] = max(asked[t.judge], paths)
		}
		bank = max(bank, paths)
	}
	forked.Steps += bank * steps
	forked.Images += bank + looked
	for calls := range maps.Values(asked) {
		forked.Calls += calls
	}
	return forked
}

// try measures how long steps, step images and questions take when they come together, compilation aside.
func (w *worker) try(ctx context.Context) (rates, error) {
	const paths, times = 16, 2
	var r rates
	seeds := make([]uint64, paths)
	for i := range seeds {
		seeds[i] = prng.PathSeed(w.Recipe.Seed, w.Prompts[0].Prompt, i)
	}
	list, err := w.bench.Generator.Start(ctx, cot.Prompt{Text: w.Prompts[0].Prompt}, seeds)
	if err != nil {
		return r, err
	}
	var judge cot.Judge
	for _, t := range w.tasks {
		if t.arm.judge != nil {
			judge = t.arm.judge.Judge
		}
	}
	for k := range min(times+1, w.memo.Steps()) {
		last := time.Now()
		lap := func(count *int, seconds *float64) {
			if now := time.Now(); k > 0 { // the first time compiles
				*count, *seconds, last = *count+paths, *seconds+now.Sub(last).Seconds(), now
			} else {
				last = now
			}
		}
		if err := w.bench.Generator.Advance(ctx, list); err != nil {
			return r, err
		}
		lap(&r.Steps, &r.StepsS)
		images, err := w.bench.Generator.Decode(ctx, list)
		if err != nil {
			return r, err
		}
		lap(&r.Images, &r.ImagesS)
		if judge == nil {
			continue
		}
		questions := make([]cot.Question, paths)
		for i, img := range images {
			questions[i] = cot.Question{Kind: cot.Outcome, Prompt: list[i].Prompt, Text: w.Prompts[0].Prompt, Image: img, Tokens: list[i].Sample}
		}
		if _, err := judge.Ask(ctx, questions); err != nil {
			return r, err
		}
		lap(&r.Calls, &r.CallsS)
	}
	return r, nil
}
