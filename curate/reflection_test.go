package curate

import (
	"context"
	"errors"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/verify/questions"
)

// tellHeads puts the verdict of heads into words.
func tellHeads(_ geneval.Metadata, r geneval.Result) (string, error) {
	return strings.Join(r.Reasons, " and "), nil
}

func reasonsBy(a Annotate) Reasons {
	return Reasons{Generator: &coin{}, Annotate: a, Name: "test", Workers: 3}
}

// ranked is ranking data of n prompts.
func ranked(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	if err := ranking(dir, trainPrompts(t, n), &coin{}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func reflection(dir, from string, r Reasons) ReflectionData {
	return ReflectionData{Dir: dir, From: from, Seed: 4, PartSize: 10, Reasons: r}
}

func TestReflectionIsFourToOneAndTrue(t *testing.T) {
	from, dir := ranked(t, 30), t.TempDir()
	if err := reflection(dir, from, reasonsBy(ByEvaluator(heads, tellHeads))).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := Read[Reflected](dir)
	if err != nil {
		t.Fatal(err)
	}
	no, yes := 0, 0
	for _, r := range rows {
		if r.Correct != (r.Image[0] >= 9) || r.Correct != (r.Reason == "") {
			t.Fatalf("row %+v", r)
		}
		if r.Correct {
			yes++
		} else {
			no++
		}
	}
	if no < 20 || yes != (no+2)/4 {
		t.Errorf("%d wrong and %d right images", no, yes)
	}
	text, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil || !strings.Contains(string(text), "0 images got none") {
		t.Errorf("card %s, error %v", text, err)
	}
	few := t.TempDir()
	d := reflection(few, from, reasonsBy(ByEvaluator(heads, tellHeads)))
	if d.Count = 10; d.Run(t.Context()) != nil {
		t.Fatal("a smaller count failed")
	}
	if rows, err := Read[Reflected](few); err != nil || len(rows) != 10 {
		t.Errorf("%d rows, error %v, want 10", len(rows), err)
	}
}

func TestOneSidedDataAreRefused(t *testing.T) {
	from := t.TempDir()
	right := ranking(from, trainPrompts(t, 3), &coin{})
	right.Evaluate = func(context.Context, image.Image, geneval.Metadata) (geneval.Result, error) {
		return geneval.Result{Correct: true}, nil
	}
	if err := right.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	reasons := reasonsBy(ByEvaluator(heads, tellHeads))
	if err := reflection(t.TempDir(), from, reasons).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "0 images labelled no and 15 labelled yes") {
		t.Errorf("error %v", err)
	}
	c := CorrectionData{Dir: t.TempDir(), From: from, PerImage: 1, PerPrompt: 1, PartSize: 1, Reasons: reasons}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "none of 3 prompts") {
		t.Errorf("error %v", err)
	}
	if err := reflection(t.TempDir(), t.TempDir(), reasons).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "holds no data") {
		t.Errorf("error %v", err)
	}
}

// An image that the evaluator now finds right was decoded with another tokenizer, and a reason would be a lie.
func TestLabelsThatDoNotHoldAreRefused(t *testing.T) {
	silent := func(context.Context, image.Image, geneval.Metadata) (string, error) { return "", nil }
	err := reflection(t.TempDir(), ranked(t, 4), reasonsBy(silent)).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "finds nothing wrong") {
		t.Errorf("error %v", err)
	}
}

// Away from the tiny world an evaluator may change its mind about some images, or have no words for them.
func TestDoubtfulLabelsAreSetAside(t *testing.T) {
	from, dir := ranked(t, 30), t.TempDir()
	doubtful := func(ctx context.Context, img image.Image, m geneval.Metadata) (geneval.Result, error) {
		r, err := heads(ctx, img, m)
		switch img.(*image.Gray).GrayAt(0, 0).Y {
		case 7:
			return geneval.Result{Correct: true}, err
		case 6:
			r.Reasons = []string{"unspeakable"}
		}
		return r, err
	}
	tell := func(m geneval.Metadata, r geneval.Result) (string, error) {
		if slices.Contains(r.Reasons, "unspeakable") {
			return "", errors.New("no words")
		}
		return tellHeads(m, r)
	}
	if err := reflection(t.TempDir(), from, reasonsBy(ByEvaluator(doubtful, tell))).Run(t.Context()); err == nil || errors.Is(err, ErrNoReason) {
		t.Errorf("error %v: an exact evaluator changed its mind", err)
	}
	if err := reflection(dir, from, reasonsBy(ByEvaluator(doubtful, OrAside(tell)))).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := Read[Reflected](dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, asideFile))
	aside := strings.Count(string(text), "\n")
	if err != nil || !strings.Contains(string(text), "nothing wrong on a second look") || !strings.Contains(string(text), "no words") {
		t.Errorf("set aside: %s, error %v", text, err)
	}
	if slices.ContainsFunc(rows, func(r Reflected) bool { return r.Image[0] == 6 || r.Image[0] == 7 }) {
		t.Error("an image without a reason is in the data")
	}
	card, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil || !strings.Contains(string(card), fmt.Sprintf("; %d images got none", aside)) {
		t.Errorf("card %s, error %v, want %d set aside", card, err, aside)
	}
	blind := func(context.Context, image.Image, geneval.Metadata) (geneval.Result, error) {
		return geneval.Result{Correct: true}, nil
	}
	if err := reflection(t.TempDir(), from, reasonsBy(ByEvaluator(blind, OrAside(tell)))).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "annotated none of the first") {
		t.Errorf("error %v of an evaluator that finds nothing wrong", err)
	}
	broken := errors.New("no such detector")
	failing := func(context.Context, image.Image, geneval.Metadata) (geneval.Result, error) {
		return geneval.Result{}, broken
	}
	if err := reflection(t.TempDir(), from, reasonsBy(ByEvaluator(failing, OrAside(tell)))).Run(t.Context()); !errors.Is(err, broken) || errors.Is(err, ErrNoReason) {
		t.Errorf("error %v of an evaluator that fails", err)
	}
}

// A build that is stopped, or whose annotator fails, goes on where it stood and asks nothing twice.
func TestAnnotationResumes(t *testing.T) {
	from, whole, dir := ranked(t, 30), t.TempDir(), t.TempDir()
	honest := ByEvaluator(heads, tellHeads)
	if err := reflection(whole, from, reasonsBy(honest)).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	broken := errors.New("no such model")
	flaky := func(ctx context.Context, img image.Image, m geneval.Metadata) (string, error) {
		if asked.Add(1) > 21 {
			return "", broken
		}
		return honest(ctx, img, m)
	}
	if err := reflection(dir, from, reasonsBy(flaky)).Run(t.Context()); !errors.Is(err, broken) {
		t.Fatalf("error %v", err)
	}
	journal := filepath.Join(dir, reasonsFile)
	text, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	kept := strings.Count(string(text), "\n")
	if kept < 18 {
		t.Fatalf("%d reasons kept of 21", kept)
	}
	if err := os.WriteFile(journal, append(text, `{"prompt":"cut`...), 0o600); err != nil {
		t.Fatal(err)
	}
	asked.Store(0)
	counted := func(ctx context.Context, img image.Image, m geneval.Metadata) (string, error) {
		asked.Add(1)
		return honest(ctx, img, m)
	}
	if err := reflection(dir, from, reasonsBy(counted)).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(journal)
	if err != nil || int(asked.Load())+kept != strings.Count(string(text), "\n") {
		t.Errorf("asked %d more, %d were kept, error %v, of %d", asked.Load(), kept, err, strings.Count(string(text), "\n"))
	}
	a, err := Fingerprint(whole)
	b, err2 := Fingerprint(dir)
	if err != nil || err2 != nil || a != b {
		t.Errorf("an interrupted build differs: %s %s %v %v", a, b, err, err2)
	}
}

// moody is a remote explainer that fails for a while on some images.
type moody struct{ sick atomic.Bool }

var errBusy = errors.New("busy")

func (m *moody) Explain(_ context.Context, q cot.Question) (string, error) {
	n := q.Image.(*image.Gray).GrayAt(0, 0).Y
	if len(q.After) != 1 || q.After[0].Answer != "no" || q.Kind != cot.Reason {
		return "", fmt.Errorf("question %+v", q)
	}
	if n == 7 && m.sick.Load() {
		return "", errBusy
	}
	return fmt.Sprint("only ", n, " heads"), nil
}

func TestImagesWithoutReasonAreSetAsideAndCounted(t *testing.T) {
	from, dir := ranked(t, 30), t.TempDir()
	set, err := questions.Get("paper")
	if err != nil {
		t.Fatal(err)
	}
	m := &moody{}
	m.sick.Store(true)
	reasons := reasonsBy(ByExplainer(m, set, func(err error) bool { return errors.Is(err, errBusy) }))
	build := func() []Reflected {
		t.Helper()
		if err := reflection(dir, from, reasons).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		rows, err := Read[Reflected](dir)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	rows := build()
	seven := func(r Reflected) bool { return r.Image[0] == 7 }
	if slices.ContainsFunc(rows, seven) {
		t.Error("an image without a reason is in the data")
	}
	text, err := os.ReadFile(filepath.Join(dir, asideFile))
	if err != nil || !strings.Contains(string(text), "busy") {
		t.Fatalf("aside %s, error %v", text, err)
	}
	aside := strings.Count(string(text), "\n")
	card, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil || !strings.Contains(string(card), fmt.Sprintf("; %d images got none", aside)) {
		t.Errorf("card %s, error %v, want %d set aside", card, err, aside)
	}
	m.sick.Store(false)
	if again := build(); !slices.ContainsFunc(again, seven) || len(again) <= len(rows) {
		t.Errorf("%d rows after %d: images that were set aside are not asked about again", len(again), len(rows))
	}
	if _, err := os.Stat(filepath.Join(dir, asideFile)); err == nil {
		t.Error("the list of images set aside stays although there are none")
	}
	dead := func(context.Context, image.Image, geneval.Metadata) (string, error) {
		return "", fmt.Errorf("%w: busy", ErrNoReason)
	}
	if err := reflection(t.TempDir(), from, reasonsBy(dead)).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "annotated none of the first") {
		t.Errorf("error %v", err)
	}
}

func TestCorrectionGroups(t *testing.T) {
	from, dir := ranked(t, 20), t.TempDir()
	d := CorrectionData{Dir: dir, From: from, PerImage: 2, PerPrompt: 5, Seed: 1, PartSize: 7, Reasons: reasonsBy(ByEvaluator(heads, tellHeads))}
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := Read[Correction](dir)
	if err != nil {
		t.Fatal(err)
	}
	images, err := Read[Image](from)
	if err != nil {
		t.Fatal(err)
	}
	perPrompt, perBad := map[string]int{}, map[uint64]int{}
	for _, r := range rows {
		if r.Bad[0] >= 9 || r.Good[0] < 9 || r.Reason != "too few heads" {
			t.Errorf("row %+v", r)
		}
		for _, img := range images {
			if (img.Seed == r.BadSeed || img.Seed == r.GoodSeed) && img.Prompt != r.Prompt {
				t.Errorf("images of %q in a group of %q", img.Prompt, r.Prompt)
			}
		}
		perPrompt[r.Prompt]++
		perBad[r.BadSeed]++
	}
	most := 0
	for _, n := range perBad {
		most = max(most, n)
	}
	for prompt, n := range perPrompt {
		if n > 5 {
			t.Errorf("%d groups of %q", n, prompt)
		}
	}
	if most != 2 || len(perPrompt) < 10 {
		t.Errorf("%d good images for a bad one, %d prompts", most, len(perPrompt))
	}
	refused := d
	refused.PerImage = 0
	if err := refused.Run(t.Context()); err == nil {
		t.Error("no good image for a bad one passed")
	}
}

// The good image is the one most like the bad one.
func TestCorrectionTakesTheNearestImage(t *testing.T) {
	row := func(seed uint64, correct bool, tokens ...int32) Image {
		return Image{Prompt: "p", Seed: seed, Steps: 1, Samples: tokens, Correct: correct}
	}
	d := CorrectionData{PerImage: 1, PerPrompt: 9}
	couples, bad, err := d.match([]Image{
		row(1, true, 1, 2, 3, 4), row(2, true, 5, 6, 7, 8), row(3, false, 5, 6, 3, 9), row(4, false, 1, 2, 3, 0),
	})
	if err != nil || len(couples) != 2 || len(bad) != 2 {
		t.Fatalf("%d couples, error %v", len(couples), err)
	}
	for _, c := range couples {
		if want := map[uint64]uint64{3: 2, 4: 1}[c.bad.Seed]; c.good.Seed != want {
			t.Errorf("image %d is to become %d, want %d", c.bad.Seed, c.good.Seed, want)
		}
	}
}

// Reasons that reflection data hold already are not asked for again.
func TestKnownReasonsAreTakenOver(t *testing.T) {
	from, reflected := ranked(t, 20), t.TempDir()
	if err := reflection(reflected, from, reasonsBy(ByEvaluator(heads, tellHeads))).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := reasonsBy(func(context.Context, image.Image, geneval.Metadata) (string, error) { return "asked again", nil })
	r.Known = reflected
	dir := t.TempDir()
	if err := (CorrectionData{Dir: dir, From: from, PerImage: 1, PerPrompt: 50, PartSize: 50, Reasons: r}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	known, err := Read[Reflected](reflected)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := Read[Correction](dir)
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for _, row := range rows {
		has := slices.ContainsFunc(known, func(k Reflected) bool { return !k.Correct && k.Seed == row.BadSeed })
		if has != (row.Reason == "too few heads") {
			t.Errorf("row %+v, known %v", row, has)
		}
		if has {
			taken++
		}
	}
	if taken == 0 {
		t.Error("nothing was known")
	}
}
