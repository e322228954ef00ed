package curate

import (
	"context"
	"errors"
	"image"
	"image/color"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/prng"
	"imagecot/world"
)

// coin is a generator of 18 steps whose one token counts how many coin tosses came out heads; the toss at a step
// depends on the path seed and the step.
type coin struct{ stopAfter int }

func (*coin) Steps() int { return 18 }
func (*coin) Start(_ context.Context, p cot.Prompt, seeds []uint64) ([]*cot.Path, error) {
	var out []*cot.Path
	for i, s := range seeds {
		out = append(out, &cot.Path{Index: i, Seed: s, Prompt: p, Tokens: []int32{0}, Sample: []int32{0}})
	}
	return out, nil
}

func (c *coin) Advance(ctx context.Context, paths []*cot.Path) error {
	if c.stopAfter--; c.stopAfter == 0 {
		return context.Canceled
	}
	for _, p := range paths {
		p.Tokens[0] += int32(prng.Derive(p.Seed, "toss", uint64(p.Step)) & 1)
		p.Sample[0] = p.Tokens[0]
		p.Step++
	}
	return ctx.Err()
}

func (*coin) Fork(p *cot.Path, seed uint64) *cot.Path {
	c := *p
	c.Seed, c.Tokens, c.Sample = seed, slices.Clone(p.Tokens), slices.Clone(p.Sample)
	return &c
}

func (*coin) Decode(_ context.Context, paths []*cot.Path) ([]image.Image, error) {
	var out []image.Image
	for _, p := range paths {
		img := image.NewGray(image.Rect(0, 0, 1, 1))
		img.SetGray(0, 0, color.Gray{Y: uint8(p.Sample[0])})
		out = append(out, img)
	}
	return out, nil
}

// heads calls an image correct with at least 9 heads of 18.
func heads(_ context.Context, img image.Image, _ geneval.Metadata) (geneval.Result, error) {
	if n := img.(*image.Gray).GrayAt(0, 0).Y; n < 9 {
		return geneval.Result{Reasons: []string{"too few heads"}}, nil
	}
	return geneval.Result{Correct: true}, nil
}

func trainPrompts(t *testing.T, n int) []geneval.Metadata {
	t.Helper()
	pools := map[string][]geneval.Metadata{}
	for _, task := range geneval.Tasks() {
		pools[task] = world.TrainPrompts(task)
	}
	list, err := Prompts(n, 5, pools, world.TestPrompts())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPromptsAreDisjointAndInTurn(t *testing.T) {
	list := trainPrompts(t, 400)
	test := map[string]bool{}
	for _, m := range world.TestPrompts() {
		k, _ := geneval.Key(m)
		test[k] = true
	}
	seen, byTask := map[string]bool{}, map[string]int{}
	for _, m := range list {
		k, err := geneval.Key(m)
		if err != nil || test[k] || seen[m.Prompt] {
			t.Fatalf("%q: key %q, error %v, seen %v", m.Prompt, k, err, seen[m.Prompt])
		}
		seen[m.Prompt] = true
		byTask[m.Tag]++
	}
	if byTask[geneval.Position] < 50 || byTask[geneval.Counting] < 6 {
		t.Errorf("tasks are not in turn: %v", byTask)
	}
	held := map[string][]geneval.Metadata{geneval.SingleObject: world.TestPrompts()[:1]}
	if _, err := Prompts(1, 5, held, world.TestPrompts()); err == nil || !strings.Contains(err.Error(), "scene of a test prompt") {
		t.Errorf("a test prompt passed: %v", err)
	}
	if _, err := Prompts(1e6, 5, map[string][]geneval.Metadata{}, nil); err == nil {
		t.Error("more prompts than there are")
	}
}

func ranking(dir string, prompts []geneval.Metadata, g cot.Generator) Ranking {
	return Ranking{Dir: dir, Prompts: prompts, Each: 5, Seed: 3, PartSize: 2, Generator: g, Evaluate: heads}
}

// TestNothingIsTrainedOnTestPrompts: data of test prompts say so, can be read to measure with, and no training takes them.
func TestNothingIsTrainedOnTestPrompts(t *testing.T) {
	train, test := t.TempDir(), t.TempDir()
	if err := errors.Join(ranking(train, trainPrompts(t, 2), &coin{}).Run(t.Context()), ranking(test, world.TestPrompts()[:2], &coin{}).Run(t.Context())); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{train: "no prompt asks for the scene of a test prompt", test: "to measure with"} {
		if card, err := os.ReadFile(filepath.Join(dir, "README.md")); err != nil || !strings.Contains(string(card), want) {
			t.Errorf("card %s (%v), want %q", card, err, want)
		}
	}
	if rows, err := ReadTraining[Image](train); err != nil || len(rows) != 10 {
		t.Errorf("%d rows of training prompts (%v)", len(rows), err)
	}
	if rows, err := Read[Image](test); err != nil || len(rows) != 10 {
		t.Errorf("%d rows to measure with (%v)", len(rows), err)
	}
	if _, err := ReadTraining[Image](train + "," + test); err == nil || !strings.Contains(err.Error(), "holds test prompts") {
		t.Errorf("error %v", err)
	}
	talks := Export{Dir: t.TempDir(), From: test, Format: LLaVA, PartSize: 4, Generator: &coin{}}
	if err := talks.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "holds test prompts") {
		t.Errorf("conversations to train with: error %v", err)
	}
	for _, m := range []geneval.Metadata{world.TestPrompts()[9], geneval.Official()[200]} {
		if scene := Scene(m); !Test(scene) || !LeftOut(scene, 0) || LeftOut(Scene(trainPrompts(t, 1)[0]), 0) {
			t.Errorf("%q is no test prompt, or a training prompt is left out", m.Prompt)
		}
	}
}

func TestRankingResumesAndLabels(t *testing.T) {
	prompts := trainPrompts(t, 5)
	whole, resumed := t.TempDir(), t.TempDir()
	if err := ranking(whole, prompts, &coin{}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ranking(resumed, prompts, &coin{stopAfter: 50}).Run(t.Context()); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if err := ranking(resumed, prompts, &coin{}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := Fingerprint(whole)
	b, err2 := Fingerprint(resumed)
	if err != nil || err2 != nil || a != b {
		t.Errorf("an interrupted build differs: %s %s %v %v", a, b, err, err2)
	}
	rows, err := Read[Image](whole)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 25 {
		t.Fatalf("%d rows, want 25", len(rows))
	}
	yes := 0
	for _, r := range rows {
		if r.Correct != (r.Final()[0] >= 9) || (r.Reason == "") != r.Correct {
			t.Errorf("row %+v", r)
		}
		if r.Correct {
			yes++
		}
		for s := 2; s <= 18; s++ {
			if d := r.Sample(s)[0] - r.Sample(s - 1)[0]; d < 0 || d > 1 {
				t.Fatalf("samples %v are no path", r.Samples)
			}
		}
	}
	if yes == 0 || yes == len(rows) {
		t.Errorf("%d of %d yes: the test sees one label only", yes, len(rows))
	}
	text, err := os.ReadFile(filepath.Join(whole, "README.md"))
	if err != nil || !strings.Contains(string(text), "| all | 25 |") {
		t.Errorf("card %s, error %v", text, err)
	}
	other := ranking(whole, prompts, &coin{})
	other.Seed++
	if err := other.Run(t.Context()); !errors.Is(err, ErrOtherData) {
		t.Errorf("error %v, want ErrOtherData", err)
	}
}

func TestStepsFollowRollouts(t *testing.T) {
	dir := t.TempDir()
	s := Steps{
		Dir: dir, Prompts: trainPrompts(t, 4), Each: 6, At: []int{3, 12, 18}, Rollouts: 4, Seed: 3, PartSize: 3,
		Generator: &coin{}, Evaluate: heads,
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := Read[Step](dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 4*6*3 {
		t.Fatalf("%d rows", len(rows))
	}
	mixed := 0
	for _, r := range rows {
		if r.Right > 0 && r.Right < 4 {
			mixed++
		}
		switch {
		case r.Sample[0] >= 9 && r.Right != 4:
			t.Errorf("step %d has %d heads already, but only %d roll-outs are right", r.Step, r.Sample[0], r.Right)
		case r.Sample[0]+18-r.Step < 9 && r.Right != 0:
			t.Errorf("step %d with %d heads cannot reach 9, but %d roll-outs are right", r.Step, r.Sample[0], r.Right)
		}
	}
	if mixed == 0 {
		t.Error("all roll-outs of a step agree: they do not differ in noise")
	}
	s.At = []int{12, 3}
	if err := s.Run(t.Context()); err == nil {
		t.Error("steps out of order passed")
	}
}

func TestParmLabels(t *testing.T) {
	from, dir := t.TempDir(), t.TempDir()
	if err := ranking(from, trainPrompts(t, 4), &coin{}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := (ParmData{Dir: dir, From: from, PartSize: 7}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	images, err := Read[Image](from)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := Read[Parm](dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(images) * 16; len(rows) != want { // steps 10 and 11 have no label
		t.Fatalf("%d rows, want %d", len(rows), want)
	}
	for _, r := range rows {
		i := slices.IndexFunc(images, func(i Image) bool { return i.Seed == r.Seed })
		correct := label(images[i].Correct)
		clarity, potential, outcome := No, NotAsked, NotAsked
		if r.Step > 11 {
			clarity, potential = Yes, correct
		}
		if r.Step == 18 {
			outcome = correct
		}
		if Label(r.Clarity) != clarity || Label(r.Potential) != potential || Label(r.Outcome) != outcome || !slices.Equal(r.Sample, images[i].Sample(int(r.Step))) {
			t.Errorf("step %d: %+v, want %d %d %d", r.Step, r, clarity, potential, outcome)
		}
	}
}

func TestPotentialMayBeLabelledEarlier(t *testing.T) {
	l := DefaultParmLabels(18)
	l.PotentialFrom = 6
	for step, want := range map[int][3]Label{5: {No, NotAsked, NotAsked}, 6: {No, Yes, NotAsked}, 10: {NotAsked, Yes, NotAsked}, 18: {Yes, Yes, Yes}} {
		c, p, o := l.Label(Image{Correct: true, Steps: 18}, step)
		if got := [3]Label{c, p, o}; got != want {
			t.Errorf("step %d: clarity, potential, outcome %v, want %v", step, got, want)
		}
	}
	l.PotentialFrom = 13
	if _, err := l.of(18); err == nil || !strings.Contains(err.Error(), "potential from 13") {
		t.Errorf("clear steps without potential: error %v", err)
	}
}

// TestParmLabelsFollowTheSteps: of 50 steps, as Show-o's larger images take, the paper's 11 of 18 are 31; of 4, 2.
func TestParmLabelsFollowTheSteps(t *testing.T) {
	for steps, want := range map[int]ParmLabels{18: {10, 11, 12}, 50: {28, 31, 32}, 4: {2, 2, 3}} {
		if got, err := (ParmLabels{}).of(steps); err != nil || got != want {
			t.Errorf("%d steps: %+v, want %+v (%v)", steps, got, want, err)
		}
	}
	for _, l := range []ParmLabels{{ClearAfter: 18}, {BlurredBefore: 1}, {BlurredBefore: 14}} {
		if _, err := l.of(18); err == nil {
			t.Errorf("%+v passes for 18 steps", l)
		}
	}
	from := t.TempDir()
	rows := []Image{{Prompt: "p", Seed: 1, Steps: 2, Samples: []int32{1, 2}}, {Prompt: "p", Seed: 2, Steps: 3, Samples: []int32{1, 2, 3}}}
	if err := rebuild(from, rows, 2); err != nil {
		t.Fatal(err)
	}
	if err := (ParmData{Dir: t.TempDir(), From: from, PartSize: 1}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "paths of 2 and of 3 steps") {
		t.Errorf("paths of different lengths: error %v", err)
	}
}

func TestDamagedPart(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, partName(0)), []byte("PAR1 but no more"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read[Image](dir); err == nil || !strings.Contains(err.Error(), "part-00000") {
		t.Errorf("error %v", err)
	}
	if _, err := Read[Image](t.TempDir()); err == nil {
		t.Error("an empty folder passed")
	}
}

func TestSeveralDataSets(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	for dir, prompt := range map[string]string{one: "a", two: "b"} {
		if err := writePart(dir, 0, []Image{final(prompt, 1, 1, true)}); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := Read[Image](one + "," + two)
	if err != nil || len(rows) != 2 || rows[0].Prompt != "a" || rows[1].Prompt != "b" {
		t.Errorf("%v, error %v", rows, err)
	}
	hashes := map[string]bool{}
	for _, from := range []string{one, two, one + "," + two, two + "," + one} {
		hash, err := Fingerprint(from)
		if err != nil {
			t.Fatal(err)
		}
		hashes[hash] = true
	}
	if len(hashes) != 4 {
		t.Errorf("%d different fingerprints of four", len(hashes))
	}
	if _, err := Read[Image](one + "," + filepath.Join(one, "nowhere")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "nowhere holds no data") {
		t.Errorf("error %v", err)
	}
}
