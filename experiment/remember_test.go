package experiment

import (
	"context"
	"errors"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"imagecot/geneval"
)

func TestScoringGoesOnFromMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.jsonl.unfinished")
	stop := errors.New("stopped")
	want := geneval.Result{
		Reasons: []string{"expected car>=2, found 1"},
		Kept: []geneval.Kept{{Class: "car", Objects: []geneval.Detection{
			{Class: "car", Box: [4]float32{1, 2, 3.25, 1e-7}, Score: .9}, {Class: "car", Score: .3000001},
		}}},
	}
	calls := 0
	evaluate := func(_ context.Context, img image.Image, _ geneval.Metadata) (geneval.Result, error) {
		if calls++; img.Bounds().Dx() == 3 {
			return geneval.Result{}, stop
		}
		return want, nil
	}
	picture := func(width int, grey uint8) image.Image {
		img := image.NewRGBA(image.Rect(0, 0, width, 2))
		img.SetRGBA(1, 1, color.RGBA{grey, 0, 0, 255})
		return img
	}
	meta, err := geneval.ParseMetadata([]byte(`{"tag": "counting", "include": [{"class": "car", "count": 2}], "prompt": "a photo of two cars"}`))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(evaluator string, img image.Image) (geneval.Result, error) {
		m, err := OpenMemory(path, evaluator)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		return m.Remember(evaluate)(t.Context(), img, meta)
	}
	for i, step := range []struct {
		evaluator string
		img       image.Image
		calls     int
	}{
		{"a", picture(4, 1), 1},
		{"a", picture(4, 1), 1}, // known
		{"a", picture(4, 2), 2}, // another picture
		{"b", picture(4, 1), 3}, // another evaluator
		{"b", picture(4, 1), 3},
		{"a", picture(4, 1), 3}, // still known
	} {
		r, err := ask(step.evaluator, step.img)
		if err != nil || calls != step.calls || geneval.Details(r.Kept) != geneval.Details(want.Kept) || !reflect.DeepEqual(r.Reasons, want.Reasons) || r.Correct {
			t.Errorf("step %d: %d calls, want %d: %+v, %v", i, calls, step.calls, r, err)
		}
	}
	for range 2 { // a failure is not kept
		if _, err := ask("a", picture(3, 0)); !errors.Is(err, stop) {
			t.Errorf("error %v", err)
		}
	}
	if calls != 5 {
		t.Errorf("%d calls, want 5", calls)
	}
	// A line that a kill cut short is asked again, the others are not.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text[:len(text)-9], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("b", picture(4, 1)); err != nil || calls != 6 {
		t.Errorf("after a cut: %d calls, want 6, %v", calls, err)
	}
	if _, err := ask("a", picture(4, 2)); err != nil || calls != 6 {
		t.Errorf("after a cut: %d calls, want 6, %v", calls, err)
	}
	m, err := OpenMemory(path, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Done(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left behind: %v", err)
	}
}
