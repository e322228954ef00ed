package objective

import (
	"context"
	"image"
	"math/rand/v2"

	"imagecot/cot"
	"imagecot/models/llavaov"
	"imagecot/world"
)

// askOthers adds questions with other prompts, which what the detector sees in the final images answers.
func (w *Reward) askOthers(all []shown, mirrored []bool, rng *rand.Rand) error {
	if w.data.Others == 0 {
		return nil
	}
	var tokens [][]int32
	var at []int
	for k, s := range all {
		if s.final != nil {
			tokens, at = append(tokens, s.final), append(at, k)
		}
	}
	images, err := w.decode.Decode(context.Background(), tokens)
	if err != nil {
		return err
	}
	pixels := make([]float32, world.Side*world.Side*3)
	for i, k := range at {
		img := images[i]
		if mirrored[k] {
			world.ImageInto(pixels, img)
			world.Mirror(pixels)
			img = world.ToImage(pixels)
		}
		questions, err := w.others(img, rng)
		if err != nil {
			return err
		}
		for _, q := range questions {
			e := llavaov.Example{w.ask(all[k].other, q.Prompt.Prompt, q.Label)}
			if all[k].other == cot.Potential {
				e = w.potential(q.Prompt.Prompt, q.Label)
			}
			all[k].examples = append(all[k].examples, e)
		}
	}
	return nil
}

// others draws questions about a final image: as about a scene of the objects that the detector sees, and kept where
// the evaluator agrees on the answer. Test prompts and the prompts that choose among models are never asked.
func (w *Reward) others(img image.Image, rng *rand.Rand) ([]world.Question, error) {
	facts, err := world.Detector{}.Look(img)
	if err != nil {
		return nil, err
	}
	if len(facts.Objects) == 0 {
		return nil, nil
	}
	seen := world.Scene{Background: facts.Background}
	for _, f := range facts.Objects {
		seen.Objects = append(seen.Objects, f.Object)
	}
	var out []world.Question
	for range 4 * w.data.Others {
		q := world.LaterQuestions.Draw(rng, seen)
		if len(out) == w.data.Others || w.leftOut(q.Prompt) {
			continue
		}
		verdict, err := world.Evaluator().Evaluate(context.Background(), img, q.Prompt)
		if err != nil {
			return nil, err
		}
		if verdict.Correct == q.Label {
			out = append(out, q)
		}
	}
	return out, nil
}
