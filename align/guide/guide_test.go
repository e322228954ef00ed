package guide

import (
	"bytes"
	"context"
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
	"imagecot/curate/everyday"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/train"
	"imagecot/train/objective"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/parquet-go/parquet-go"
)

// share rewards an image by the share of tokens that are the given one.
type share int32

func (s share) Score(_ context.Context, _ []geneval.Metadata, tokens [][]int32) ([]float64, error) {
	out := make([]float64, len(tokens))
	for i, grid := range tokens {
		for _, t := range grid {
			if t == int32(s) {
				out[i] += 1 / float64(len(grid))
			}
		}
	}
	return out, nil
}

func recipe(t *testing.T, init, data string) train.Recipe {
	t.Helper()
	r, err := train.ParseRecipe(fmt.Appendf(nil, `
kind: guide
name: small
seed: 1
init_from: %s
max_steps: 30
batch_size: 2
learning_rate: 0.01
save_steps: 10
logging_steps: 1
data: {judge: fake, count: 40, steps: 4, temperature: 2, guidance: 0, every: 3, groups: 6, each: 4, groups_a_pass: 4, %s}
`, init, data))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// with makes objectives that are rewarded by fakes.
func with(reward, heldOut Reward) objective.Maker {
	return func(be compute.Backend, r train.Recipe, dir string) (objective.Trainable, error) {
		g, err := newGuide(be, policytest.Folders, r, dir)
		if err != nil {
			return nil, err
		}
		g.reward, g.heldOut = reward, heldOut
		g.generator, err = g.policy.Generator(be, g.live, nil, g.data.Drawing)
		return g, err
	}
}

// rewards of the draw before a step.
func rewards(t *testing.T, dir string, step int) float64 {
	t.Helper()
	images, err := readImages(filepath.Join(dir, "draws", fmt.Sprintf("step-%08d.parquet", step)))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, m := range images {
		sum += m.Reward / float64(len(images))
	}
	return sum
}

const alone = "dpo_coef: 0, watch: {every: 15, prompts: 4, each: 2}"

// TestTheRewardOfFreshImagesRises is the gradient that the authors' term has not: nothing but the reward is trained on.
func TestTheRewardOfFreshImagesRises(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		init := policytest.Folder(t, nil)
		for _, method := range []Method{Pairs, Group} {
			dir := t.TempDir()
			r := recipe(t, init, alone+", kl_coef: 0.01, min_gap: 0.1, method: "+string(method))
			if err := objective.Run(t.Context(), be, r, dir, io.Discard, with(share(3), share(3))); err != nil {
				t.Fatal(err)
			}
			before, after := rewards(t, dir, 0), rewards(t, dir, 27)
			t.Logf("%s: %.3f before, %.3f after", method, before, after)
			if before > .4 || after < before+.25 {
				t.Errorf("%s: the mean reward of fresh images goes from %.3f to %.3f", method, before, after)
			}
			watch, err := policy.ReadJournal[watchLine](filepath.Join(dir, watchFile))
			if err != nil || len(watch) != 3 || watch[2].Step != 30 || watch[1].Reward <= watch[0].Reward || watch[1].Reward != *watch[1].HeldOut || math.Abs(watch[0].KL) > 1e-4 || watch[1].KL < .01 {
				t.Errorf("%s: watched %+v (%v)", method, watch, err)
			}
		}
	})
}

// TestGroupLoss computes the loss of groups again from the log-probabilities of single tokens.
func TestGroupLoss(t *testing.T) {
	be := enginetest.Go(t)
	o, err := with(share(3), nil)(be, recipe(t, policytest.Folder(t, nil), alone+", kl_coef: 0.5, method: group"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g := o.(*Guide)
	if err := g.Prepare(t.Context(), io.Discard); err != nil {
		t.Fatal(err)
	}
	start, err := g.policy.Weights()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Look(t.Context(), 0, start); err != nil {
		t.Fatal(err)
	}
	moved := policytest.Moved(start)
	const pass = 1 // visits other groups and another mask than the first
	in, err := g.Batch(pass)
	if err != nil {
		t.Fatal(err)
	}
	program, err := graphx.NewProgram(be, "loss", graphx.NewWeights(moved), graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		loss, values := g.Loss(s, in)
		return append([]*graph.Node{loss}, values...)
	})
	if err != nil {
		t.Fatal(err)
	}
	var args []any
	for _, t := range in {
		args = append(args, t)
	}
	out, err := program.Run(args...)
	if err != nil {
		t.Fatal(err)
	}
	scorer, err := g.policy.Scorer(be, graphx.NewWeights(moved))
	if err != nil {
		t.Fatal(err)
	}
	rows := g.rowsAPass()
	score := func(s *policy.Scorer) []float32 {
		each, err := s.TokenLogProbs(t.Context(), rows, func(r *policy.Rows, i int) { g.addRow(r, pass, i) })
		if err != nil {
			t.Fatal(err)
		}
		return each
	}
	now, ref := score(scorer), score(g.reference)
	gain, kl, columns := 0., 0., len(now)/rows
	for r := range rows {
		sum, divergence, n := 0., 0., 0.
		for i := r * columns; i < (r+1)*columns; i++ {
			if now[i] != 0 {
				n++
			}
			d := float64(ref[i] - now[i])
			sum += float64(now[i])
			divergence += math.Exp(d) - 1 - d
		}
		gain += float64(g.weight(pass, r)) * sum / n / float64(rows)
		kl += divergence / n / float64(rows)
	}
	got := [3]float64{}
	for i := range got {
		got[i] = float64(graphx.Floats(out[i])[0])
	}
	if want := [3]float64{-gain + .5*kl, gain, kl}; !near(got[:], want[:]) || kl < .01 || math.Abs(gain) < 1e-3 {
		t.Errorf("loss, gain and divergence %v, want %v", got, want)
	}
}

// TestEveryVisitOfAGroupHasItsOwnMask walks a draw of 6 groups, 4 a pass, in 3 passes.
func TestEveryVisitOfAGroupHasItsOwnMask(t *testing.T) {
	be, init := enginetest.Go(t), policytest.Folder(t, nil)
	for _, method := range []Method{Pairs, Group} {
		o, err := with(share(3), nil)(be, recipe(t, init, alone+", method: "+string(method)), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		g := o.(*Guide)
		for range g.data.Groups {
			g.now.groups = append(g.now.groups, group{best: 2, worst: 1})
		}
		seen := map[[3]int]int{} // group, image, mask
		for pass := range 3 {
			for row := range g.rowsAPass() {
				i, k, mask := g.at(pass, row)
				seen[[3]int{i, k, mask}]++
				if method == Pairs && k != []int{2, 1}[row/g.data.Visits] {
					t.Fatalf("row %d is image %d of its group", row, k)
				}
			}
		}
		images := map[Method][]int{Pairs: {1, 2}, Group: {0, 1, 2, 3}}[method]
		for _, k := range images {
			for visit := range 12 {
				if seen[[3]int{visit % 6, k, visit / 6}] != 1 {
					t.Errorf("%s: image %d of group %d is seen %d times under mask %d", method, k, visit%6, seen[[3]int{visit % 6, k, visit / 6}], visit/6)
				}
			}
		}
		if len(seen) != 12*len(images) {
			t.Errorf("%s: %d rows differ, want %d", method, len(seen), 12*len(images))
		}
	}
}

func near(a, b []float64) bool {
	for i := range a {
		if math.Abs(a[i]-b[i]) > 1e-4*(1+math.Abs(b[i])) {
			return false
		}
	}
	return true
}

func offlinePairs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	rows := []curate.Pair{
		{Prompt: "a photo of a disc", Seed: 1, Chosen: []int32{0, 1, 2, 4}, Rejected: []int32{5, 6, 7, 5}},
		{Prompt: "a photo of a ring", Seed: 2, Chosen: []int32{0, 2, 2, 4}, Rejected: []int32{5, 7, 7, 6}},
	}
	if err := parquet.WriteFile(filepath.Join(dir, "part-00000.parquet"), rows); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestWatchedAndValidationPromptsAreNotLearnedFrom neither draws them nor reads their offline pairs.
func TestWatchedAndValidationPromptsAreNotLearnedFrom(t *testing.T) {
	be, init, dir := enginetest.Go(t), policytest.Folder(t, nil), t.TempDir()
	list, err := policy.Drawing{Count: 40}.List(1)
	if err != nil {
		t.Fatal(err)
	}
	var rows []curate.Pair
	for i, m := range list {
		rows = append(rows, curate.Pair{Prompt: m.Prompt, Metadata: m.Dump(), Seed: uint64(i), Chosen: []int32{0, 1, 2, 4}, Rejected: []int32{5, 6, 7, 5}})
	}
	if err := parquet.WriteFile(filepath.Join(dir, "part-00000.parquet"), rows); err != nil {
		t.Fatal(err)
	}
	o, err := with(share(1), nil)(be, recipe(t, init, fmt.Sprintf("dpo: {from: %s}, validation: 0.2, watch: {every: 1, prompts: 8, each: 1}", dir)), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g := o.(*Guide)
	left := 0
	for _, m := range list {
		if !curate.Validation(curate.Scene(m), .2) {
			left++
		}
	}
	if left == 40 || len(g.watched) != 8 || len(g.train)+8 > left || len(g.train) < 10 {
		t.Errorf("%d watched and %d drawn of %d prompts", len(g.watched), len(g.train), left)
	}
	watched := map[string]bool{}
	for _, m := range g.watched {
		watched[curate.Scene(m)] = true
	}
	for _, m := range g.train {
		if curate.Validation(curate.Scene(m), .2) || watched[curate.Scene(m)] {
			t.Errorf("%q is drawn", m.Prompt)
		}
	}
	// One pair a prompt, so that the offline term goes through as many pairs as there are prompts to draw.
	var said strings.Builder
	if err := g.Prepare(t.Context(), &said); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\n%d pairs ", len(g.train)); !strings.Contains(said.String(), want) {
		t.Errorf("said %q, want %q", said.String(), want)
	}
	if err := g.offline.LeaveOut(func(curate.Pair) bool { return true }); err == nil || !strings.Contains(err.Error(), "are left out") {
		t.Errorf("nothing left: error %v", err)
	}
}

func final(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "final", ckpt.ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheOfficialTermMovesNothing(t *testing.T) {
	be, init, from := enginetest.Go(t), policytest.Folder(t, nil), offlinePairs(t)
	same := func(method Method) bool {
		var out [][]byte
		for _, reward := range []Reward{share(3), share(5)} {
			dir := t.TempDir()
			r := recipe(t, init, fmt.Sprintf("dpo: {from: %s}, watch: {every: 0}, method: %s", from, method))
			r.MaxSteps = 4
			if err := objective.Run(t.Context(), be, r, dir, io.Discard, with(reward, nil)); err != nil {
				t.Fatal(err)
			}
			out = append(out, final(t, dir))
		}
		return bytes.Equal(out[0], out[1])
	}
	if !same(Official) {
		t.Error("the official term depends on the reward model")
	}
	if same(Pairs) {
		t.Error("the online term does not depend on the reward model")
	}
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

func TestARunThatWasStoppedEndsTheSame(t *testing.T) {
	be, init, from := enginetest.Go(t), policytest.Folder(t, nil), offlinePairs(t)
	r := recipe(t, init, fmt.Sprintf("dpo: {from: %s}, watch: {every: 4, prompts: 3, each: 2}", from))
	r.MaxSteps, r.SaveEvery = 9, 4
	whole, parts := t.TempDir(), t.TempDir()
	if err := objective.Run(t.Context(), be, r, whole, io.Discard, with(share(3), nil)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	// The watch of step 4 is before step 4, in the middle of the draw of step 3.
	err := objective.Run(ctx, be, r, parts, writerFunc(func(b []byte) (int, error) {
		if bytes.Contains(b, []byte("watch at step 4")) {
			stop()
		}
		return len(b), nil
	}), with(share(3), nil))
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if err := objective.Run(t.Context(), be, r, parts, io.Discard, with(share(3), nil)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(final(t, whole), final(t, parts)) {
		t.Error("a run that was stopped ends with other weights")
	}
	m, err := ckpt.ReadManifest(filepath.Join(parts, "final"))
	if err != nil || m.Kind != "guide" || m.DataHash == "" || m.Notes != "" {
		t.Errorf("manifest %+v (%v)", m, err)
	}
	r.LR *= 2
	if err := objective.Run(t.Context(), be, r, parts, io.Discard, with(share(3), nil)); err == nil || !strings.Contains(err.Error(), "another recipe") {
		t.Errorf("another recipe in the same folder: error %v", err)
	}
}

func TestTheRuleEndsTheRun(t *testing.T) {
	be, init := enginetest.Go(t), policytest.Folder(t, nil)
	r := recipe(t, init, "dpo_coef: 0, watch: {every: 5, prompts: 4, each: 2}, stop: {max_kl: 0.05}")
	dir := t.TempDir()
	var said strings.Builder
	if err := objective.Run(t.Context(), be, r, dir, &said, with(share(3), nil)); err != nil {
		t.Fatal(err)
	}
	m, err := ckpt.ReadManifest(filepath.Join(dir, "final"))
	seen, err2 := policy.ReadJournal[watchLine](filepath.Join(dir, watchFile))
	if err != nil || err2 != nil || len(seen) < 2 || !strings.Contains(m.Notes, "KL") || !strings.Contains(said.String(), "is the last") {
		t.Fatalf("manifest %+v, seen %+v (%v, %v)", m, seen, err, err2)
	}
	// The last look broke the rule; the one before is what the run ends with.
	if last, before := seen[len(seen)-1], seen[len(seen)-2]; last.Step >= 30 || last.KL <= .05 || before.KL > .05 || m.Steps != before.Step {
		t.Errorf("the weights are of step %d, seen %+v", m.Steps, seen)
	}
	was := final(t, dir)
	if err := objective.Run(t.Context(), be, r, dir, io.Discard, with(share(3), nil)); err != nil || !bytes.Equal(was, final(t, dir)) {
		t.Errorf("the same command goes on after the rule ended the run (%v)", err)
	}
}

func TestStopRules(t *testing.T) {
	held := func(values ...float64) (lines []watchLine) {
		for i, v := range values {
			lines = append(lines, watchLine{Step: i, HeldOut: &v, KL: float64(i)})
		}
		return lines
	}
	for _, test := range []struct {
		name  string
		stop  Stop
		lines []watchLine
		at    int
		ends  bool
	}{
		{"rising", Stop{Drop: .1, Patience: 1}, held(.1, .2, .3), 2, false},
		{"one dip of two", Stop{Drop: .1, Patience: 2}, held(.5, .3, .5, .3), 3, false},
		{"two dips", Stop{Drop: .1, Patience: 2}, held(.5, .3, .3), 2, true},
		{"later lines do not count", Stop{Drop: .1, Patience: 2}, held(.5, .3, .3), 1, false},
		{"small dips", Stop{Drop: .1, Patience: 1}, held(.5, .41, .41), 2, false},
		{"kl", Stop{MaxKL: 1.5}, held(.5, .5, .5), 2, true},
		{"no rule", Stop{}, held(.5, .1, .0), 2, false},
	} {
		if err := test.stop.check(test.lines, test.at); errors.Is(err, train.ErrStop) != test.ends {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestAStoppedRunGoesBackToTheBestLook(t *testing.T) {
	half, most := .5, .8
	lines := []watchLine{{Step: 0, HeldOut: &half}, {Step: 5, HeldOut: &most, KL: 1}, {Step: 10, HeldOut: &half, KL: 2}, {Step: 15, HeldOut: &most, KL: 9}}
	blind := []watchLine{{Step: 0}, {Step: 5, KL: 1}, {Step: 10, KL: 9}}
	for _, test := range []struct {
		stop     Stop
		lines    []watchLine
		at, want int
	}{
		{Stop{}, lines, 15, 5},
		{Stop{}, lines, 4, 0},
		{Stop{MaxKL: .5}, lines, 15, 0},
		{Stop{MaxKL: 5}, blind, 10, 5},
		{Stop{}, nil, 3, 0},
	} {
		if got := test.stop.best(test.lines, test.at); got != test.want {
			t.Errorf("%+v up to step %d: best %d, want %d", test.stop, test.at, got, test.want)
		}
	}
}

func TestCompareFindsWhatCanBeLearnt(t *testing.T) {
	images := func(rewards ...float64) (out []image) {
		for i, r := range rewards {
			out = append(out, image{Tokens: []int32{int32(i)}, Reward: r})
		}
		return out
	}
	o := compare(images(.2, .9, .1, .9), Pairs, .5)
	if !o.informative || o.best != 1 || o.worst != 2 {
		t.Errorf("%+v", o)
	}
	if o := compare(images(.2, .3), Pairs, .5); o.informative {
		t.Error("a gap below the least one teaches")
	}
	if o := compare(images(.2, .2), Pairs, 0); o.informative {
		t.Error("equal rewards teach")
	}
	same := images(.2, .9)
	same[1].Tokens = same[0].Tokens
	if o := compare(same, Pairs, 0); o.informative {
		t.Error("equal images teach")
	}
	o = compare(images(0, 1, 1, 0), Group, .1)
	for i, want := range []float64{-1, 1, 1, -1} {
		if math.Abs(o.advantages[i]-want) > 1e-5 {
			t.Errorf("advantages %v", o.advantages)
		}
	}
	if o := compare(images(.5, .5), Group, 0); o.informative || o.advantages[0] != 0 {
		t.Error("a group without spread teaches")
	}
}

// broken gives a reward that is no number.
type broken struct{}

func (broken) Score(_ context.Context, _ []geneval.Metadata, tokens [][]int32) ([]float64, error) {
	out := make([]float64, len(tokens))
	out[1] = math.NaN()
	return out, nil
}

func TestBadInputIsNamed(t *testing.T) {
	be, init := enginetest.Go(t), policytest.Folder(t, nil)
	for data, want := range map[string]string{
		"dpo_coef: 1":                                          "data.from is missing",
		"dpo_coef: 0, method: official":                        "no gradient at all",
		"dpo_coef: 0, method: ppo":                             "want pairs, group or official",
		"dpo_coef: 0, reward_coef: 0":                          "reward_coef 0",
		"dpo_coef: 0, watch: {every: 1, prompts: 0}":           "images of 0 prompts",
		"dpo_coef: 0, validation: 1":                           "validation is 1",
		"dpo_coef: 0, stop: {patience: -1}":                    "patience -1",
		"dpo_coef: 0, dpo: {betta: 1}":                         "unknown field",
		"dpo_coef: 0, watch: {every: 1, prompts: 38, each: 1}": "40 prompts, but a draw takes 6 and 38 are watched",
	} {
		_, err := with(share(1), nil)(be, recipe(t, init, data), t.TempDir())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", data, err, want)
		}
	}
	dir := t.TempDir()
	err := objective.Run(t.Context(), be, recipe(t, init, alone), dir, io.Discard, with(broken{}, nil))
	if err == nil || !strings.Contains(err.Error(), "reward of image 1") || !strings.Contains(err.Error(), "NaN") {
		t.Errorf("error %v", err)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "draws", "*.parquet")); len(found) != 0 {
		t.Errorf("a draw without rewards was kept: %v", found)
	}
}

func TestALostDrawIsNamed(t *testing.T) {
	be, init := enginetest.Go(t), policytest.Folder(t, nil)
	r := recipe(t, init, "dpo_coef: 0, watch: {every: 0}")
	r.MaxSteps, r.SaveEvery = 4, 2
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := objective.Run(ctx, be, r, dir, io.Discard, func(be compute.Backend, r train.Recipe, dir string) (objective.Trainable, error) {
		o, err := with(share(3), nil)(be, r, dir)
		return stopAfter{o.(*Guide), 1, stop}, err
	}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "draws", "step-00000000.parquet")); err != nil {
		t.Fatal(err)
	}
	if err := objective.Run(t.Context(), be, r, dir, io.Discard, with(share(3), nil)); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("error %v", err)
	}
}

// stopAfter ends the run once a pass was made.
type stopAfter struct {
	*Guide
	pass int
	stop func()
}

func (s stopAfter) Looks(step int) bool { return step == s.pass || s.Guide.Looks(step) }

func (s stopAfter) Look(ctx context.Context, step int, w map[string]*tensors.Tensor) error {
	if step == s.pass {
		s.stop()
	}
	return s.Guide.Look(ctx, step, w)
}

// TestWatchedPromptsAreOfAllTasks: what they say about a run should not be about one task.
func TestWatchedPromptsAreOfAllTasks(t *testing.T) {
	list, err := everyday.Prompts(everyday.Count, 1)
	if err != nil {
		t.Fatal(err)
	}
	count, seen := map[string]int{}, map[string]bool{}
	for _, m := range watchedOf(list, 48, 13) {
		count[m.Tag]++
		seen[m.Prompt] = true
	}
	for _, task := range geneval.Tasks()[1:] { // no prompt of a single object is left to train on
		if n := count[task]; n < 9 || n > 10 {
			t.Errorf("%d of 48 prompts are of %s", n, task)
		}
	}
	if len(seen) != 48 {
		t.Errorf("%d different prompts of 48", len(seen))
	}
	few := []geneval.Metadata{{Tag: "a", Prompt: "1"}, {Tag: "b", Prompt: "2"}, {Tag: "b", Prompt: "3"}, {Tag: "b", Prompt: "4"}}
	if got := watchedOf(few, 4, 1); len(got) != 4 {
		t.Errorf("%d prompts of 4", len(got))
	}
	if slices.EqualFunc(watchedOf(list, 48, 13), watchedOf(list, 48, 14), func(a, b geneval.Metadata) bool { return a.Prompt == b.Prompt }) {
		t.Error("the seed draws nothing")
	}
}
