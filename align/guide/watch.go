package guide

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"imagecot/align/policy"
	"imagecot/geneval"
	"imagecot/internal/prng"
	"imagecot/train"
)

// Watch says how often, and on how many images of prompts that are not trained on, the policy is looked at.
type Watch struct {
	Every   int `json:"every"` // steps; 0 never
	Prompts int `json:"prompts"`
	Each    int `json:"each"`
}

// Stop says when a run ends before its last step. Zeros never stop it.
type Stop struct {
	MaxKL    float64 `json:"max_kl"`   // nats an image, against the starting weights
	Drop     float64 `json:"drop"`     // of the held-out judge's mean below its best so far
	Patience int     `json:"patience"` // how often in a row
}

func (w Watch) validate() error {
	if w.Every < 0 || w.Prompts < 0 || (w.Every > 0 && (w.Prompts < 1 || w.Each < 1)) {
		return fmt.Errorf("guide: watch: %d images of %d prompts every %d steps", w.Each, w.Prompts, w.Every)
	}
	return nil
}

func (s Stop) validate() error {
	if !(s.MaxKL >= 0) || !(s.Drop >= 0) || s.Patience < 0 {
		return fmt.Errorf("guide: stop: max_kl %v, drop %v, patience %d, want none below 0", s.MaxKL, s.Drop, s.Patience)
	}
	return nil
}

// watchLine is a line of watch.jsonl. What was not measured is absent.
type watchLine struct {
	Step      int      `json:"step"`
	Reward    float64  `json:"reward"`
	HeldOut   *float64 `json:"held_out_reward,omitempty"`
	Correct   *float64 `json:"correct,omitempty"` // share that the evaluator finds right
	KL        float64  `json:"kl"`                // KL(pi || ref) over an image's hidden tokens, nats
	Diversity float64  `json:"diversity"`
}

// watchFile is the journal in the run's folder.
const watchFile = "watch.jsonl"

// watch measures the policy on the watched prompts with the same path seeds every time. A step that is in the journal is
// not measured again.
func (g *Guide) watch(ctx context.Context, step int) error {
	i := slices.IndexFunc(g.seen, func(l watchLine) bool { return l.Step == step })
	if i < 0 {
		line, err := g.measure(ctx, step)
		if err != nil {
			return err
		}
		g.seen = append(g.seen, line)
		i = len(g.seen) - 1
		if err := policy.WriteJournal(filepath.Join(g.dir, watchFile), g.seen); err != nil {
			return err
		}
	}
	l := g.seen[i]
	g.figures["watch_reward"], g.figures["watch_kl"], g.figures["watch_diversity"] = l.Reward, l.KL, l.Diversity
	text := fmt.Sprintf("watch at step %d: reward %.3f", step, l.Reward)
	for _, v := range []struct {
		name  string
		value *float64
	}{{"held_out_reward", l.HeldOut}, {"correct", l.Correct}} {
		if v.value != nil {
			g.figures["watch_"+v.name] = *v.value
			text += fmt.Sprintf(", %s %.3f", v.name, *v.value)
		}
	}
	fmt.Fprintf(g.show, "%s, kl %.2f, diversity %.3f\n", text, l.KL, l.Diversity)
	return nil
}

func (g *Guide) measure(ctx context.Context, step int) (watchLine, error) {
	each := g.data.Watch.Each
	images, rewards, err := g.paint(ctx, g.watched, each, prng.Derive(g.recipe.Seed, "watch"), g.reward)
	if err != nil {
		return watchLine{}, err
	}
	line := watchLine{Step: step, Reward: mean(rewards)}
	tokens, asked := make([][]int32, len(images)), make([]geneval.Metadata, len(images))
	for i, m := range images {
		tokens[i], asked[i] = m.Tokens, g.watched[i/each]
	}
	for _, other := range []struct {
		by Reward
		to **float64
	}{{g.heldOut, &line.HeldOut}, {g.evaluate, &line.Correct}} {
		if other.by == nil {
			continue
		}
		scores, err := other.by.Score(ctx, asked, tokens)
		if err != nil {
			return line, fmt.Errorf("guide: watch: %w", err)
		}
		m := mean(scores)
		*other.to = &m
	}
	line.KL, err = g.moved.Mean(ctx, len(images), func(r *policy.Rows, i int) {
		g.policy.Add(r, g.policy.Text.Encode(images[i].Prompt), tokens[i], policy.Masking{MinRate: g.data.MinRate}, images[i].Seed, 0, 0)
	})
	if err != nil {
		return line, err
	}
	for some := range slices.Chunk(images, each) {
		line.Diversity += distance(some) * float64(each) / float64(len(images))
	}
	return line, nil
}

// check applies the rule to the lines up to a step.
func (s Stop) check(lines []watchLine, step int) error {
	best, low := 0.0, 0
	for _, l := range lines {
		if l.Step > step {
			continue
		}
		if s.MaxKL > 0 && l.KL > s.MaxKL {
			return fmt.Errorf("%w: at step %d the KL to the starting weights is %.2f nats an image, above %g", train.ErrStop, l.Step, l.KL, s.MaxKL)
		}
		if l.HeldOut == nil {
			continue
		}
		best = max(best, *l.HeldOut)
		if low++; *l.HeldOut >= best-s.Drop {
			low = 0
		}
		if s.Patience > 0 && s.Drop > 0 && low >= s.Patience {
			return fmt.Errorf("%w: at step %d the held-out judge's mean is %.3f, %d times in a row more than %g below its best, %.3f",
				train.ErrStop, l.Step, *l.HeldOut, low, s.Drop, best)
		}
	}
	return nil
}

// best is the step of the line up to a step that a stopped run goes back to: of those within MaxKL the one that the held-out
// judge likes best, without such a judge the latest.
func (s Stop) best(lines []watchLine, step int) int {
	best, top := 0, math.Inf(-1)
	for _, l := range lines {
		if l.Step > step || s.MaxKL > 0 && l.KL > s.MaxKL {
			continue
		}
		if l.HeldOut == nil {
			best = l.Step
		} else if *l.HeldOut > top {
			best, top = l.Step, *l.HeldOut
		}
	}
	return best
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(max(len(v), 1))
}
