package dpo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/align/policy"
	"imagecot/align/policy/policytest"
	"imagecot/ckpt"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/train"
	"imagecot/train/objective"
	"imagecot/world"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/parquet-go/parquet-go"
)

// pairs writes n pairs: chosen images hold even codes, rejected ones odd codes.
func pairs(t *testing.T, n int, change func([]curate.Pair)) string {
	t.Helper()
	rng := prng.New(1, 0, prng.Curate)
	rows := make([]curate.Pair, n)
	for i := range rows {
		p := curate.Pair{Task: "single_object", Prompt: "a photo of a disc", Seed: uint64(100 + i)}
		for range policytest.Tokens {
			p.Chosen = append(p.Chosen, int32(2*rng.Intn(policytest.Codes/2)))
			p.Rejected = append(p.Rejected, int32(2*rng.Intn(policytest.Codes/2)+1))
		}
		rows[i] = p
	}
	if change != nil {
		change(rows)
	}
	dir := t.TempDir()
	if err := parquet.WriteFile(filepath.Join(dir, "part-00000.parquet"), rows); err != nil {
		t.Fatal(err)
	}
	return dir
}

func recipe(t *testing.T, init, from, more string) train.Recipe {
	t.Helper()
	r, err := train.ParseRecipe(fmt.Appendf(nil, `
kind: dpo
name: small
seed: 1
init_from: %s
max_steps: 30
batch_size: 4
learning_rate: 0.01
save_steps: 10
logging_steps: 1
data: {from: %s%s}
`, init, from, more))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func open(t *testing.T, be compute.Backend, r train.Recipe, dir string) *DPO {
	t.Helper()
	d, err := New(be, policytest.Folders, r, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Prepare(t.Context(), io.Discard); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRatiosAreZeroBeforeTheFirstStep finds any row that is compared with the reference of another: in every pass, with
// several masks, averaged or not, whole or per token.
func TestRatiosAreZeroBeforeTheFirstStep(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		for _, more := range []string{"", ", masks: 3, average: 2", ", masks: 3, length_normalised: true, cond_dropout: 0.5", ", masks: 2, official: true, cond_dropout: 0.5"} {
			d := open(t, be, recipe(t, policytest.Folder(t, nil), pairs(t, 7, nil), more), t.TempDir())
			w, err := d.Init()
			if err != nil {
				t.Fatal(err)
			}
			p, err := graphx.NewProgram(be, "ratios", graphx.NewWeights(w), graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
				r := Measure(s, d.policy.Config, in[0], in[1], in[2], in[3], d.data.Average, d.data.PerToken)
				return []*graph.Node{r.Chosen, r.Rejected, r.SFT}
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 5 {
				in, err := d.Batch(i)
				if err != nil {
					t.Fatal(err)
				}
				out, err := p.Run(in[0], in[1], in[2], in[3])
				if err != nil {
					t.Fatal(err)
				}
				ratios := append(graphx.Floats(out[0]), graphx.Floats(out[1])...)
				if len(ratios) != 8 {
					t.Fatalf("%s: %d ratios of 4 pairs", more, len(ratios))
				}
				for _, r := range ratios {
					if math.Abs(float64(r)) > 1e-4 {
						t.Fatalf("%s: pass %d: ratios %v", more, i, ratios)
					}
				}
				if sft := graphx.Floats(out[2])[0]; sft < .1 || sft > 20 {
					t.Errorf("%s: cross-entropy %v", more, sft)
				}
			}
		}
	})
}

// movedWeights are the starting weights with noise.
func weightsOf(t *testing.T, dir string) map[string]*tensors.Tensor {
	t.Helper()
	p, err := policy.Open(policytest.Folders, dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.Weights()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func movedWeights(t *testing.T, d *DPO) map[string]*tensors.Tensor {
	t.Helper()
	w, err := d.Init()
	if err != nil {
		t.Fatal(err)
	}
	return policytest.Moved(w)
}

// TestLossOfABatch computes loss and metrics again from log-probabilities of single tokens, by weights that have moved.
func TestLossOfABatch(t *testing.T) {
	be := enginetest.Go(t)
	d := open(t, be, recipe(t, policytest.Folder(t, nil), pairs(t, 7, nil), ", masks: 3, average: 2, sft_coef: 0.25, beta: 0.2"), t.TempDir())
	moved := graphx.NewWeights(movedWeights(t, d))
	p, err := graphx.NewProgram(be, "loss", moved, graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		loss, metrics := d.Loss(s, in)
		return append([]*graph.Node{loss}, metrics...)
	})
	if err != nil {
		t.Fatal(err)
	}
	now, err := d.policy.Scorer(be, moved)
	if err != nil {
		t.Fatal(err)
	}
	before, err := d.policy.Reference(be)
	if err != nil {
		t.Fatal(err)
	}
	const batch = 3 // places 12 to 15: pairs of the second and the third epoch
	in, err := d.Batch(batch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Run(in[0], in[1], in[2], in[3])
	if err != nil {
		t.Fatal(err)
	}
	masks := map[[2]int]bool{}
	add := func(rows *policy.Rows, i int) { // side, place, mask
		epoch, pair := d.visit(batch*4 + i/2%4)
		mask := (2*epoch + i%2) % 3
		masks[[2]int{epoch, mask}] = true
		d.add(rows, pair, mask, i/8)
	}
	each, err := now.TokenLogProbs(t.Context(), 16, add)
	if err != nil {
		t.Fatal(err)
	}
	was, err := before.TokenLogProbs(t.Context(), 16, add)
	if err != nil {
		t.Fatal(err)
	}
	if len(masks) != 4 {
		t.Fatalf("epochs and masks %v", masks)
	}
	var shift [2]float64 // mean log-ratio of the chosen and the rejected
	var loss, margins, wins, chosen, hidden float64
	columns := len(each) / 16
	ratio := func(row int) (r float64) {
		for i := row * columns; i < (row+1)*columns; i++ {
			r += float64(each[i] - was[i])
			if row < 8 && each[i] != 0 {
				chosen, hidden = chosen+float64(each[i]), hidden+1
			}
		}
		return r
	}
	for b := range 4 {
		c, r := (ratio(2*b)+ratio(2*b+1))/2, (ratio(8+2*b)+ratio(8+2*b+1))/2
		margin := .2 * (c - r)
		shift[0], shift[1] = shift[0]+c/4, shift[1]+r/4
		loss += math.Log1p(math.Exp(-margin)) / 4
		margins += margin / 4
		if margin > 0 {
			wins += .25
		}
	}
	want := []float64{loss - .25*chosen/hidden, margins, wins, shift[0], shift[1], -(shift[0] + shift[1]) / 2}
	for i, w := range want {
		if got := float64(graphx.Floats(out[i])[0]); math.Abs(got-w) > 1e-3*(1+math.Abs(w)) {
			t.Errorf("%s is %v, want %v", append([]string{"loss"}, d.Metrics()...)[i], got, w)
		}
	}
	if math.Abs(shift[0]) < .1 || math.Abs(margins) < .01 {
		t.Errorf("the weights hardly moved: %v", want)
	}
}

func TestBothSidesOfAPairAreMaskedAlike(t *testing.T) {
	be := enginetest.Go(t)
	for _, official := range []bool{false, true} {
		d := open(t, be, recipe(t, policytest.Folder(t, nil), pairs(t, 8, nil), fmt.Sprintf(", cond_dropout: 0.5, official: %v", official)), t.TempDir())
		differ := 0
		for i := range 4 {
			in, err := d.Batch(i)
			if err != nil {
				t.Fatal(err)
			}
			ids := tensors.MustCopyFlatData[int32](in[0])
			half := len(ids) / 2
			for k := range half {
				c, r := ids[k] == d.policy.Config.MaskTokenID, ids[half+k] == d.policy.Config.MaskTokenID
				if c != r || (ids[k] < d.policy.Config.ImageOffset() && ids[k] != ids[half+k]) {
					differ++
				}
			}
		}
		if (differ > 0) != official {
			t.Errorf("official %v: %d positions differ", official, differ)
		}
	}
}

func TestEveryPairIsVisitedOnceAnEpoch(t *testing.T) {
	d := &DPO{recipe: train.Recipe{Seed: 4}, pairs: make([]curate.Pair, 9)}
	orders := map[string]bool{}
	for epoch := range 3 {
		seen, order := map[int]bool{}, ""
		for v := range 9 {
			e, p := d.visit(epoch*9 + v)
			if e != epoch || seen[p] {
				t.Fatalf("epoch %d visits pair %d of epoch %d twice or out of turn", epoch, p, e)
			}
			seen[p] = true
			order += fmt.Sprint(p)
		}
		orders[order] = true
	}
	if len(orders) != 3 {
		t.Error("epochs have the same order")
	}
}

func TestTrainingPrefersTheChosenAndResumes(t *testing.T) {
	be := enginetest.Go(t)
	init, from := policytest.Folder(t, nil), pairs(t, 24, nil)
	r := recipe(t, init, from, ", masks: 2")
	build := func(be compute.Backend, r train.Recipe, dir string) (objective.Trainable, error) {
		return New(be, policytest.Folders, r, dir)
	}
	whole, parts := t.TempDir(), t.TempDir()
	if err := objective.Run(t.Context(), be, r, whole, io.Discard, build); err != nil {
		t.Fatal(err)
	}
	metrics, err := os.ReadFile(filepath.Join(whole, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(metrics), []byte("\n"))
	var first, last struct{ Margin, Accuracy float64 }
	if err := errors.Join(json.Unmarshal(lines[0], &first), json.Unmarshal(lines[len(lines)-1], &last)); err != nil {
		t.Fatal(err)
	}
	if math.Abs(first.Margin) > 1e-4 || last.Margin < .1 || last.Accuracy != 1 {
		t.Errorf("first step %+v, last %+v", first, last)
	}
	ctx, stop := context.WithCancel(t.Context())
	err = objective.Run(ctx, be, r, parts, writerFunc(func(b []byte) (int, error) {
		if bytes.Contains(b, []byte("about ")) {
			stop()
		}
		return len(b), nil
	}), build)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	cached, err := os.Stat(filepath.Join(parts, cacheFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := objective.Run(t.Context(), be, r, parts, io.Discard, build); err != nil {
		t.Fatal(err)
	}
	if again, err := os.Stat(filepath.Join(parts, cacheFile)); err != nil || !again.ModTime().Equal(cached.ModTime()) {
		t.Errorf("the reference was computed again (%v)", err)
	}
	a, err := os.ReadFile(filepath.Join(whole, "final", ckpt.ModelFile))
	b, err2 := os.ReadFile(filepath.Join(parts, "final", ckpt.ModelFile))
	if err != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Errorf("a run that was stopped ends with other weights (%v, %v)", err, err2)
	}
	m, err := ckpt.ReadManifest(filepath.Join(whole, "final"))
	hash, err2 := curate.Fingerprint(from)
	if err != nil || err2 != nil || m.Kind != "dpo" || len(m.Parents) != 1 || m.Parents[0].Role != "init" || m.DataHash != hash {
		t.Errorf("manifest %+v (%v, %v)", m, err, err2)
	}
}

func TestHeldOutPairsAreWatchedAndEndTheRun(t *testing.T) {
	be, init := enginetest.Go(t), policytest.Folder(t, nil)
	// What is chosen has even codes on the scenes that are trained on, and odd ones on the others: learning hurts there.
	prompts := world.TrainPrompts(geneval.Position)
	from := pairs(t, 40, func(p []curate.Pair) {
		for i := range p {
			p[i].Prompt, p[i].Metadata = prompts[i].Prompt, prompts[i].Dump()
			if curate.Validation(curate.Scene(prompts[i]), .3) {
				p[i].Chosen, p[i].Rejected = p[i].Rejected, p[i].Chosen
			}
		}
	})
	build := func(be compute.Backend, r train.Recipe, dir string) (objective.Trainable, error) {
		return New(be, policytest.Folders, r, dir)
	}
	dir := t.TempDir()
	r := recipe(t, init, from, ", validation: 0.3, watch_every: 3, patience: 2")
	if err := objective.Run(t.Context(), be, r, dir, io.Discard, build); err != nil {
		t.Fatal(err)
	}
	m, err := ckpt.ReadManifest(filepath.Join(dir, "final"))
	seen, err2 := policy.ReadJournal[heldOutLine](filepath.Join(dir, heldOutFile))
	if err != nil || err2 != nil || m.Steps != 0 || len(seen) != 3 || !strings.Contains(m.Notes, "at step 6 the loss of held-out pairs") {
		t.Fatalf("manifest %+v, seen %+v (%v, %v)", m, seen, err, err2)
	}
	// Nothing was better than the start: such a run ends with the weights that it began with.
	was, is := weightsOf(t, init), weightsOf(t, filepath.Join(dir, "final"))
	for name, w := range was {
		if !is[name].InDelta(w, 1e-3) {
			t.Errorf("%s is not what it was at step 0", name)
		}
	}
	if math.Abs(seen[0].Loss-math.Ln2) > 1e-4 || seen[2].Loss <= seen[1].Loss || seen[2].Accuracy > .3 || seen[2].Margin >= 0 {
		t.Errorf("seen %+v", seen)
	}
	// A run that no rule ends is looked at after its last step as well, which no multiple of watch_every is.
	dir = t.TempDir()
	few := recipe(t, init, from, ", validation: 0.3, watch_every: 3")
	few.MaxSteps = 4
	if err := objective.Run(t.Context(), be, few, dir, io.Discard, build); err != nil {
		t.Fatal(err)
	}
	if seen, err := policy.ReadJournal[heldOutLine](filepath.Join(dir, heldOutFile)); err != nil || len(seen) != 3 || seen[2].Step != 4 {
		t.Errorf("seen %+v (%v), want steps 0, 3 and 4", seen, err)
	}
	d := open(t, be, r, t.TempDir())
	for _, p := range d.pairs {
		if curate.Validation(p.Scene(), .3) {
			t.Errorf("%q is trained on", p.Prompt)
		}
	}
	if len(d.pairs)+len(d.heldOut.pairs) != 40 {
		t.Errorf("%d + %d pairs", len(d.pairs), len(d.heldOut.pairs))
	}
	if _, err := New(be, policytest.Folders, recipe(t, init, pairs(t, 3, nil), ", validation: 0.01"), t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds 0 out") {
		t.Errorf("error %v", err)
	}
}

// TestReferencesOfOtherPairsAreNotTaken: as many pairs of the same data, but others, are asked about anew in the same folder.
func TestReferencesOfOtherPairsAreNotTaken(t *testing.T) {
	be, init, from := enginetest.Go(t), policytest.Folder(t, nil), pairs(t, 4, nil)
	reference := func(dir string, out uint64) []float32 {
		d, err := New(be, policytest.Folders, recipe(t, init, from, ""), dir)
		if err == nil {
			err = d.LeaveOut(func(p curate.Pair) bool { return p.Seed == out })
		}
		if err == nil {
			err = d.Prepare(t.Context(), io.Discard)
		}
		if err != nil {
			t.Fatal(err)
		}
		return d.reference
	}
	dir := t.TempDir()
	reference(dir, 100)
	if got, want := reference(dir, 102), reference(t.TempDir(), 102); !slices.Equal(got, want) {
		t.Errorf("reference %v, in a folder of its own %v", got, want)
	}
}

// TestHeldOutPairsHaveTheLossOfTheRecipe compares what is watched with the graph that trains, by weights that have moved.
func TestHeldOutPairsHaveTheLossOfTheRecipe(t *testing.T) {
	be, init := enginetest.Go(t), policytest.Folder(t, nil)
	from := pairs(t, 12, func(p []curate.Pair) {
		for i := range p {
			p[i].Prompt = fmt.Sprintf("a photo of a disc %d", i)
		}
	})
	for _, more := range []string{"", ", loss: ipo", ", label_smoothing: 0.2, beta: 0.3", ", length_normalised: true, beta: 2"} {
		d := open(t, be, recipe(t, init, from, ", masks: 2, average: 2, validation: 0.4"+more), t.TempDir())
		w := movedWeights(t, d)
		for name, v := range w {
			d.heldOut.live.Set(name, v)
		}
		line, err := d.heldOut.measure(t.Context(), d, 1)
		if err != nil {
			t.Fatal(err)
		}
		p, err := graphx.NewProgram(be, "loss", graphx.NewWeights(w), graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
			loss, metrics := d.Loss(s, in)
			return append([]*graph.Node{loss}, metrics...)
		})
		if err != nil {
			t.Fatal(err)
		}
		var rows policy.Rows
		var reference []float32
		for side := range 2 {
			for pair := range d.heldOut.pairs {
				for mask := range heldOutMasks {
					i := (pair*heldOutMasks+mask)*2 + side
					d.heldOut.add(d, &rows, i)
					reference = append(reference, d.heldOut.reference[i])
				}
			}
		}
		in := append(rows.Tensors(), graphx.Tensor(reference, rows.Len()))
		out, err := p.Run(in[0], in[1], in[2], in[3])
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range []float64{line.Loss, line.Margin, line.Accuracy} {
			if want := float64(graphx.Floats(out[i])[0]); math.Abs(got-want) > 1e-3*(1+math.Abs(want)) {
				t.Errorf("%q: loss, margin and accuracy are watched as %+v, but figure %d is %v", more, line, i, want)
			}
		}
		if math.Abs(line.Margin) < .01 {
			t.Errorf("%q: the weights hardly moved: %+v", more, line)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

func TestBadInputIsNamed(t *testing.T) {
	be := enginetest.Go(t)
	init, good := policytest.Folder(t, nil), pairs(t, 4, nil)
	equal := pairs(t, 4, func(p []curate.Pair) { p[2].Rejected = p[2].Chosen })
	big := pairs(t, 4, func(p []curate.Pair) { p[1].Chosen[0] = policytest.Codes })
	short := pairs(t, 4, func(p []curate.Pair) { p[1].Chosen = p[1].Chosen[1:] })
	test := pairs(t, 4, func(p []curate.Pair) { p[3].Metadata = world.TestPrompts()[0].Dump() })
	long := pairs(t, 4, func(p []curate.Pair) { p[3].Prompt = strings.Repeat("a photo of a disc ", 9) })
	for want, r := range map[string]train.Recipe{
		"images are equal":         recipe(t, init, equal, ""),
		"image token 0 is 8":       recipe(t, init, big, ""),
		"3 image tokens, want 4":   recipe(t, init, short, ""),
		"too long":                 recipe(t, init, long, ""),
		"holds test prompts":       recipe(t, init, test, ""),
		"holds no pair":            recipe(t, init, pairs(t, 0, nil), ""),
		"holds no data":            recipe(t, init, t.TempDir(), ""),
		"1 <= average <= masks":    recipe(t, init, good, ", average: 2"),
		"unknown field \"betta\"":  recipe(t, init, good, ", betta: 2"),
		"beta is 0":                recipe(t, init, good, ", beta: 0"),
		"init_from is missing":     recipe(t, "''", good, ""),
		"no such file":             recipe(t, t.TempDir(), good, ""),
		"data.from is missing":     recipe(t, init, "''", ""),
		"want sigmoid or ipo":      recipe(t, init, good, ", loss: hinge"),
		"cond_dropout 1 is out of": recipe(t, init, good, ", cond_dropout: 1"),
	} {
		if _, err := New(be, policytest.Folders, r, t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
	nan := policytest.Folder(t, func(w map[string]*tensors.Tensor) {
		w["showo.lm_head.bias"] = graphx.Tensor(slicesOf(float32(math.NaN()), w["showo.lm_head.bias"].Shape().Size()), w["showo.lm_head.bias"].Shape().Size())
	})
	d, err := New(be, policytest.Folders, recipe(t, nan, good, ""), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Prepare(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "NaN") {
		t.Errorf("error %v, want one that says NaN", err)
	}
}

func slicesOf(v float32, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// With gradient_checkpointing the steps are the same, but for rounding.
func TestGradientCheckpointingChangesNothing(t *testing.T) {
	init, from := policytest.Folder(t, nil), pairs(t, 12, nil)
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		var losses [2][]float64
		for i, again := range []bool{false, true} {
			r := recipe(t, init, from, "")
			r.MaxSteps, r.Recompute = 6, again
			dir := t.TempDir()
			err := objective.Run(t.Context(), be, r, dir, io.Discard, func(be compute.Backend, r train.Recipe, dir string) (objective.Trainable, error) {
				return New(be, policytest.Folders, r, dir)
			})
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			for line := range bytes.Lines(text) {
				var m struct {
					Loss float64 `json:"loss"`
				}
				if err := json.Unmarshal(line, &m); err != nil {
					t.Fatal(err)
				}
				losses[i] = append(losses[i], m.Loss)
			}
		}
		for i, loss := range losses[0] {
			if math.Abs(losses[1][i]-loss) > 1e-4 {
				t.Errorf("step %d: the loss is %v, want %v", i+1, losses[1][i], loss)
			}
		}
		if n := len(losses[0]); n != 6 || losses[0][5] > losses[0][0]-.05 {
			t.Errorf("losses %v", losses[0])
		}
	})
}
