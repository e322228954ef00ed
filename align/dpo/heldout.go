package dpo

import (
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"

	"imagecot/align/policy"
	"imagecot/curate"
	"imagecot/internal/graphx"
	"imagecot/train"

	"github.com/gomlx/gomlx/core/tensors"
)

// heldOut are the pairs of scenes that are not trained on, and what was seen on them. They say when the policy begins to
// learn its pairs by heart; no test prompt is spent on that.
type heldOut struct {
	pairs     []curate.Pair
	texts     [][]int32
	live      *graphx.Weights
	current   *policy.Scorer
	reference []float32 // [pairs, masks, 2]
	seen      []heldOutLine
	last      heldOutLine
}

// heldOutLine is a line of heldout.jsonl.
type heldOutLine struct {
	Step     int     `json:"step"`
	Loss     float64 `json:"loss"`
	Accuracy float64 `json:"accuracy"`
	Margin   float64 `json:"margin"`
}

// heldOutFile is the journal in the run's folder; heldOutMasks is how many masks of a pair are averaged.
const (
	heldOutFile  = "heldout.jsonl"
	heldOutMasks = 2
)

// holdOut parts the pairs by scene.
func (d *DPO) holdOut() error {
	if d.data.Validation == 0 {
		return nil
	}
	pairs, texts := d.pairs, d.texts
	d.pairs, d.texts = nil, nil
	for i, p := range pairs {
		if curate.Validation(p.Scene(), d.data.Validation) {
			d.heldOut.pairs, d.heldOut.texts = append(d.heldOut.pairs, p), append(d.heldOut.texts, texts[i])
		} else {
			d.pairs, d.texts = append(d.pairs, p), append(d.texts, texts[i])
		}
	}
	if len(d.pairs) == 0 || len(d.heldOut.pairs) == 0 {
		return fmt.Errorf("dpo: validation %v leaves %d pairs to train on and holds %d out", d.data.Validation, len(d.pairs), len(d.heldOut.pairs))
	}
	return nil
}

// prepare reads the journal; the reference is asked at the first look.
func (h *heldOut) prepare(d *DPO) (err error) {
	if len(h.pairs) == 0 {
		return nil
	}
	w, err := d.policy.Weights()
	if err != nil {
		return err
	}
	h.live = graphx.NewWeights(w)
	if h.current, err = d.policy.Scorer(d.backend, h.live); err != nil {
		return err
	}
	h.seen, err = policy.ReadJournal[heldOutLine](filepath.Join(d.dir, heldOutFile))
	return err
}

// add appends a row: pair, mask, side.
func (h *heldOut) add(d *DPO, rows *policy.Rows, i int) {
	pair := i / 2 / heldOutMasks
	d.addSide(rows, h.pairs[pair], h.texts[pair], i/2%heldOutMasks, i%2)
}

// Looks implements train.Online.
func (d *DPO) Looks(step int) bool {
	return len(d.heldOut.pairs) > 0 && (step%d.data.WatchEvery == 0 || step == d.recipe.MaxSteps)
}

// Look implements train.Online: every watch_every steps, and at the end, it measures the held-out pairs.
func (d *DPO) Look(ctx context.Context, step int, weights map[string]*tensors.Tensor) error {
	h := &d.heldOut
	i := slices.IndexFunc(h.seen, func(l heldOutLine) bool { return l.Step == step })
	if i < 0 {
		for name, t := range weights {
			h.live.Set(name, t)
		}
		line, err := h.measure(ctx, d, step)
		if err != nil {
			return err
		}
		h.seen = append(h.seen, line)
		i = len(h.seen) - 1
		if err := policy.WriteJournal(filepath.Join(d.dir, heldOutFile), h.seen); err != nil {
			return err
		}
	}
	h.last = h.seen[i]
	return h.check(step, d.data.Patience)
}

// measure averages the recipe's loss, accuracy and margin over the held-out pairs. The starting weights are the reference,
// so that the margins of step 0 are 0.
func (h *heldOut) measure(ctx context.Context, d *DPO, step int) (heldOutLine, error) {
	rows := len(h.pairs) * heldOutMasks * 2
	add := func(r *policy.Rows, i int) { h.add(d, r, i) }
	if h.reference == nil {
		reference, err := d.policy.Reference(d.backend)
		if err != nil {
			return heldOutLine{}, err
		}
		defer reference.Free()
		if h.reference, err = reference.LogProbs(ctx, rows, add, io.Discard); err != nil {
			return heldOutLine{}, err
		}
	}
	now, err := h.current.LogProbs(ctx, rows, add, io.Discard)
	if err != nil {
		return heldOutLine{}, err
	}
	ratio := func(i int) float64 {
		r := float64(now[i]-h.reference[i]) / heldOutMasks
		if d.data.PerToken {
			var row policy.Rows
			add(&row, i)
			r /= float64(row.Targets(d.policy.Config.NumVQTokens + 2)[0])
		}
		return r
	}
	line, n := heldOutLine{Step: step}, float64(len(h.pairs))
	for pair := range h.pairs {
		margin := 0.0
		for i := pair * heldOutMasks * 2; i < (pair+1)*heldOutMasks*2; i += 2 {
			margin += d.data.Beta * (ratio(i) - ratio(i+1))
		}
		line.Margin += margin / n
		line.Loss += d.options.of(margin) / n
		if margin > 0 {
			line.Accuracy += 1 / n
		}
	}
	return line, nil
}

// check ends the run when the loss has not come down for a while.
func (h *heldOut) check(step, patience int) error {
	best, worse := math.Inf(1), 0
	for _, l := range h.seen {
		if l.Step > step {
			continue
		}
		if worse++; l.Loss < best {
			best, worse = l.Loss, 0
		}
		if patience > 0 && worse >= patience {
			return fmt.Errorf("%w: at step %d the loss of held-out pairs is %.4f; its best was %.4f, %d looks ago", train.ErrStop, l.Step, l.Loss, best, worse)
		}
	}
	return nil
}

// Best implements train.Chooser: the look with the least loss of held-out pairs. It is 0 without such pairs.
func (d *DPO) Best() int {
	best := heldOutLine{Loss: math.Inf(1)}
	for _, l := range d.heldOut.seen {
		if l.Step <= d.heldOut.last.Step && l.Loss < best.Loss {
			best = l
		}
	}
	return best.Step
}

// Figures implements train.Online: the latest look at the held-out pairs.
func (d *DPO) Figures() map[string]float64 {
	if len(d.heldOut.pairs) == 0 {
		return nil
	}
	l := d.heldOut.last
	return map[string]float64{"heldout_loss": l.Loss, "heldout_accuracy": l.Accuracy, "heldout_margin": l.Margin}
}
