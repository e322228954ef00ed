package experiment

import (
	"context"
	"fmt"
	"image"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/world"

	"github.com/parquet-go/parquet-go"
)

// sketcher draws what its one token says: 0 a red circle, 1 a blue square. It corrects to what the reason names.
type sketcher struct{ toy }

func (*sketcher) Start(_ context.Context, p cot.Prompt, seeds []uint64) ([]*cot.Path, error) {
	return []*cot.Path{{Seed: seeds[0], Prompt: p, Tokens: []int32{0, 0}, Sample: []int32{0, 0}}}, nil
}

func (*sketcher) Advance(_ context.Context, paths []*cot.Path) error {
	for _, p := range paths {
		p.Step++
	}
	return nil
}

func (s *sketcher) Correct(_ context.Context, p cot.Prompt, bad *cot.Path, reason string, seed uint64) (*cot.Path, error) {
	if bad.Step != s.Steps() {
		return nil, fmt.Errorf("the bad path stands at step %d", bad.Step)
	}
	tokens := []int32{0, bad.Tokens[1]}
	if strings.Contains(reason, "square is missing") {
		tokens[0] = 1
	}
	return &cot.Path{Seed: seed, Prompt: p, Step: s.Steps(), Tokens: tokens, Sample: tokens}, nil
}

func (*sketcher) Decode(_ context.Context, paths []*cot.Path) ([]image.Image, error) {
	var out []image.Image
	for _, p := range paths {
		o := []world.Object{{Shape: world.Circle, Colour: world.Red}, {Shape: world.Square, Colour: world.Blue}}[p.Sample[0]]
		o.Col, o.Row = 2, 2
		out = append(out, world.Render(world.Scene{Objects: []world.Object{o}}))
	}
	return out, nil
}

// teller gives one reason for everything.
type teller struct{ lightMeter }

func (*teller) Explain(context.Context, cot.Question) (string, error) {
	return "the square is missing and it is too dark", nil
}

func checked() *Pipeline {
	return &Pipeline{
		Generator: &sketcher{}, verdicts: map[verdictKey]geneval.Result{}, Models: map[string]string{}, evaluate: world.Evaluator().Evaluate,
		judges: map[string]openedJudge{"teller": {memoJudge: newMemoJudge(&teller{}), questions: "tiny"}},
	}
}

func TestCheckCorrection(t *testing.T) {
	m, err := world.ParsePrompt("a photo of a square")
	if err != nil {
		t.Fatal(err)
	}
	var rows []curate.Correction
	for i := range 6 { // three bad images, each with two good ones
		rows = append(rows, curate.Correction{
			Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), BadSeed: uint64(i / 2), Bad: []int32{0, 5}, Good: []int32{1, 5}, Reason: "the square is missing",
		})
	}
	rows[0].Reason = "it is wrong"
	dir := t.TempDir()
	if err := parquet.WriteFile(filepath.Join(dir, "part-00000.parquet"), rows); err != nil {
		t.Fatal(err)
	}
	scores, err := checked().CheckCorrection(t.Context(), dir, 1, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := CorrectionScore{Task: geneval.SingleObject, Images: 3, Corrected: 2, Silent: 0, Plain: 0, Kept: (.5 + .5 + 1) / 3}
	if len(scores) != 2 || scores[0].Kept-want.Kept > 1e-9 || want.Kept-scores[0].Kept > 1e-9 {
		t.Fatalf("scores %+v", scores)
	}
	if want.Kept = scores[0].Kept; scores[0] != want || scores[1].Images != 3 || scores[1].Task != "all" {
		t.Errorf("scores %+v, want %+v first", scores, want)
	}
	if few, err := checked().CheckCorrection(t.Context(), dir, 1, 2, nil); err != nil || few[0].Images != 2 {
		t.Errorf("scores %+v, error %v", few, err)
	}
	m = world.TrainPrompts(geneval.ColorAttr)[0]
	trained := t.TempDir()
	if err := parquet.WriteFile(filepath.Join(trained, "part-00000.parquet"), []curate.Correction{{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump()}}); err != nil {
		t.Fatal(err)
	}
	if _, err := checked().CheckCorrection(t.Context(), trained, 0, 0, nil); err == nil || !strings.Contains(err.Error(), "no validation prompt") {
		t.Errorf("error %v", err)
	}
}

func TestCheckReasons(t *testing.T) {
	m, err := world.ParsePrompt("a photo of a square")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var rows []curate.Reflected
	for i, reason := range []string{"", "the square is missing", "the square is missing and it is too dark", "there are no squares"} {
		rows = append(rows, curate.Reflected{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Seed: uint64(i), Image: []int32{0, 0}, Correct: reason == "", Reason: reason})
	}
	if err := parquet.WriteFile(filepath.Join(dir, "part-00000.parquet"), rows); err != nil {
		t.Fatal(err)
	}
	wrong, err := ReasonRows(dir, 1, 0)
	if err != nil || len(wrong) != 3 {
		t.Fatalf("%d rows, error %v", len(wrong), err)
	}
	score, err := checked().CheckReasons(t.Context(), "teller", wrong, nil)
	if err != nil || score != (ReasonScore{Rows: 3, Same: 1, Partly: 2}) {
		t.Errorf("score %+v, error %v", score, err)
	}
	asked, err := CheckRows(dir, "parmpp", 1)
	if err != nil || len(asked) != 4 || asked[0].Kind != cot.Reflection || !asked[0].Yes || asked[1].Yes {
		t.Errorf("questions %+v, error %v", asked, err)
	}
}
