package experiment

import (
	"errors"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/experiment/untrained"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
)

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// randomDetector writes both models of GenEval's evaluator at toy size.
func randomDetector(t *testing.T) DetectorOptions {
	t.Helper()
	o := DetectorOptions{Weights: t.TempDir(), CLIP: t.TempDir(), Short: 40}
	if err := errors.Join(untrained.WriteDetector(o.Weights), untrained.WriteColours(o.CLIP)); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestGenEvalsOwnEvaluatorScoresAFolder(t *testing.T) {
	root := t.TempDir()
	for i, metadata := range []string{
		`{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}`,
		`{"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}], "prompt": "a photo of a red car"}`,
	} {
		samples := filepath.Join(root, geneval.FolderName(i), "samples")
		if err := os.MkdirAll(samples, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(root, geneval.FolderName(i), "metadata.jsonl"), metadata)
		img := image.NewRGBA(image.Rect(0, 0, 40, 32))
		for p := range 40 * 32 {
			img.SetRGBA(p%40, p/40, color.RGBA{uint8(p), uint8(p * p), uint8(i * 90), 255})
		}
		f, err := os.Create(filepath.Join(samples, geneval.ImageName(0)))
		if err != nil {
			t.Fatal(err)
		}
		if err := png.Encode(f, img); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if asks, err := AsksColours(root); err != nil || !asks {
		t.Errorf("a prompt asks for red: %t, %v", asks, err)
	}
	o := randomDetector(t)
	o.Given = []string{"threshold=0.001", "max_objects=3"}
	e, err := OpenDetector(enginetest.Go(t), o)
	if err != nil {
		t.Fatal(err)
	}
	// Every class is looked for: random weights find something, and the colour of what they find is asked.
	result, err := e.Evaluate(t.Context(), readPNG(t, filepath.Join(root, "00001/samples/0000.png")), geneval.Metadata{Tag: geneval.SingleObject})
	if err != nil || len(result.Kept) == 0 {
		t.Fatalf("%d classes kept, %v", len(result.Kept), err)
	}
	best := result.Kept[0]
	names, err := e.Colours.Classify(t.Context(), readPNG(t, filepath.Join(root, "00001/samples/0000.png")), best.Class, best.Objects)
	if err != nil || len(names) != len(best.Objects) || len(best.Objects) > 3 {
		t.Errorf("%d colours of %d objects, %v", len(names), len(best.Objects), err)
	}
	rows, err := Score(t.Context(), root, e.Evaluate, func(path string) (image.Image, error) { return readPNG(t, path), nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(root, "results.jsonl")
	if err := WriteRows(out, rows); err != nil {
		t.Fatal(err)
	}
	again, err := ReadRows(out)
	if err != nil || len(again) != 2 || again[1].Prompt != "a photo of a red car" || !strings.HasPrefix(again[0].Details, "{") {
		t.Errorf("rows are %+v, %v", again, err)
	}
}

func TestDetectorWithoutWeightsIsNamed(t *testing.T) {
	be := enginetest.Go(t)
	o := randomDetector(t)
	for name, test := range map[string]struct {
		change func(*DetectorOptions)
		want   string
	}{
		"detector": {func(o *DetectorOptions) { o.Weights = filepath.Join(t.TempDir(), "absent") }, "absent"},
		"clip":     {func(o *DetectorOptions) { o.CLIP = t.TempDir() }, "vocab.json"},
		"option":   {func(o *DetectorOptions) { o.Given = []string{"threshold=2"} }, "threshold"},
		"swapped":  {func(o *DetectorOptions) { o.Weights, o.CLIP = o.CLIP, o.Weights }, "mask2former"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := o
			test.change(&changed)
			if _, err := OpenDetector(be, changed); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}

func readPNG(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}
