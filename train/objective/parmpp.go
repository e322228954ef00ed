package objective

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"imagecot/cot"
	"imagecot/curate"
	"imagecot/models/llavaov"
	"imagecot/train"
	"imagecot/world"
)

// openPARMPP adds PARM++'s task to PARM's (Sec. 4): groups of two right and two wrong final images, right and wrong of one
// prompt each time, with the reflection question. A "no" is followed by the question for the reason, whose answer is
// learnt word by word. So is the reason about a render, if data.render_reasons says so.
func (w *Reward) openPARMPP() error {
	if w.data.Reflection == "" || !(w.data.Reflections > 0 && w.data.Reflections < 1) {
		return train.RecipeError(fmt.Errorf("objective: reward: parmpp needs data.reflection (a folder, got %q) and data.reflections between 0 and 1 (got %v)",
			w.data.Reflection, w.data.Reflections))
	}
	if !(w.data.ReasonWeight > 0) {
		return train.RecipeError(fmt.Errorf("objective: reward: data.reason_weight is %v; want more than 0", w.data.ReasonWeight))
	}
	if err := w.openPARM(); err != nil {
		return err
	}
	var all []llavaov.Example
	var wrong error
	kept, pairs, err := pairedRows(w.data.Reflection, w.data.Validation, func(r curate.Reflected) curate.Item {
		if r.Correct != (r.Reason == "") {
			wrong = fmt.Errorf("objective: reward: path %d of %q in %s is labelled %v with the reason %q", r.Path, r.Prompt, w.data.Reflection, r.Correct, r.Reason)
		}
		all = append(all, w.reflect(r))
		return curate.Item{Task: r.Task, Group: r.Prompt, Yes: r.Correct}
	})
	if err := errors.Join(wrong, err); err != nil {
		return err
	}
	if _, err := w.judge.chat.Pack([][]llavaov.Example{all}, 0, w.data.Length, llavaov.TinyShares); err != nil {
		return fmt.Errorf("objective: reward: data.length: %w", err) // now, not in the middle of the run
	}
	parm := w.draw
	w.draw = func(rng *rand.Rand) []shown {
		if rng.Float64() >= w.data.Reflections {
			return parm(rng)
		}
		var out []shown
		for range 2 {
			yes, no := pairs.Draw(rng)
			for _, i := range []int{yes, no} {
				out = append(out, shown{prompt: kept[i].Prompt, tokens: kept[i].Image, examples: []llavaov.Example{w.reflect(kept[i])}})
			}
		}
		return out
	}
	return nil
}

// reflect is the conversation about a final image.
func (w *Reward) reflect(r curate.Reflected) llavaov.Example {
	e := llavaov.Example{w.ask(cot.Reflection, r.Prompt, r.Correct)}
	if !r.Correct {
		e = append(e, w.reason(r.Prompt, r.Reason))
	}
	return e
}

// reflectOnRender is the same about a rendered scene, whose reason its true objects give: there are as many as one likes.
func (w *Reward) reflectOnRender(s world.Scene, q world.Question) (llavaov.Example, error) {
	e := llavaov.Example{w.ask(cot.Reflection, q.Prompt.Prompt, q.Label)}
	e[0].Weight = w.data.RenderWeight
	if !q.Label {
		reason, err := s.Reason(q.Prompt)
		if err != nil {
			return nil, err
		}
		e = append(e, w.reason(q.Prompt.Prompt, reason))
	}
	return e, nil
}

// reason is the turn after a reflection answered no.
func (w *Reward) reason(prompt, reason string) llavaov.ExampleTurn {
	return llavaov.ExampleTurn{Text: w.judge.set.Text(cot.Reason, cot.Prompt{Text: prompt}), Answer: reason, Weight: w.data.ReasonWeight}
}

// fingerprint names the curated data.
func (w *Reward) fingerprint() (string, error) {
	hash, err := curate.Fingerprint(w.data.From)
	if err != nil || w.data.Reflection == "" {
		return hash, err
	}
	reflection, err := curate.Fingerprint(w.data.Reflection)
	return hash + "+" + reflection, err
}
