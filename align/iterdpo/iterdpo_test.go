package iterdpo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/align/policy"
	"imagecot/align/policy/policytest"
	"imagecot/ckpt"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
	"imagecot/models/showo"
	"imagecot/train"
	"imagecot/train/objective"
)

// grey shows the first token of an image as a shade.
type grey struct{}

func (grey) Decode(_ context.Context, tokens [][]int32) ([]*image.RGBA, error) {
	out := make([]*image.RGBA, len(tokens))
	for i, t := range tokens {
		out[i] = image.NewRGBA(image.Rect(0, 0, 1, 1))
		out[i].Set(0, 0, color.Gray{Y: uint8(t[0])})
	}
	return out, nil
}

// even finds an image right whose first token is even.
func even(_ context.Context, img image.Image, _ geneval.Metadata) (geneval.Result, error) {
	shade, _, _, _ := img.At(0, 0).RGBA()
	return geneval.Result{Correct: shade>>8%2 == 0}, nil
}

// newRun is a run of grey images that evaluate judges.
func newRun(t *testing.T, r train.Recipe, dir string, show io.Writer, evaluate curate.Evaluate) *run {
	t.Helper()
	d := &run{backend: enginetest.Go(t), from: policy.Sources{Folders: policytest.Folders}, recipe: r, data: Defaults(), dir: dir, show: show}
	d.images = func(*policy.Policy, []geneval.Metadata) (showo.ImageDecoder, curate.Evaluate, string, error) {
		return grey{}, evaluate, "", nil
	}
	return d
}

func start(t *testing.T, ctx context.Context, r train.Recipe, dir string, show io.Writer) error {
	t.Helper()
	return newRun(t, r, dir, show, even).rounds(ctx)
}

func recipe(t *testing.T, init, data string) train.Recipe {
	t.Helper()
	r, err := train.ParseRecipe(fmt.Appendf(nil, `
kind: iterdpo
name: small
seed: 2
init_from: %s
max_steps: 2
batch_size: 2
learning_rate: 0.001
save_steps: 1
logging_steps: 1
data: {count: 8, each: 3, steps: 4, temperature: 3, %s}
`, init, data))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// stopper ends a run once it has said a text a number of times.
type stopper struct {
	text string
	left int
	stop func()
}

func (s *stopper) Write(b []byte) (int, error) {
	if s.left -= strings.Count(string(b), s.text); s.left <= 0 {
		s.stop()
	}
	return len(b), nil
}

func TestRoundsFollowOneAnotherAndResume(t *testing.T) {
	init := policytest.Folder(t, nil)
	words, err := objective.Vocabulary()
	if err != nil {
		t.Fatal(err)
	}
	words = append(words, '\n') // a text tokenizer of its own, by its bytes
	if err := os.WriteFile(filepath.Join(init, "tokenizer.json"), words, 0o600); err != nil {
		t.Fatal(err)
	}
	r := recipe(t, init, "rounds: 2, per_prompt: 2")
	whole, parts := t.TempDir(), t.TempDir()
	if err := start(t, t.Context(), r, whole, io.Discard); err != nil {
		t.Fatal(err)
	}
	m, err := ckpt.ReadManifest(filepath.Join(whole, "final"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := ckpt.ReadManifest(filepath.Join(whole, "round-1", "dpo", "final"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := ckpt.ReadManifest(filepath.Join(whole, "round-2", "dpo", "final"))
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != "iterdpo" || m.Steps != 4 || len(m.Parents) != 3 || m.Parents[0] != first.Parents[0] || second.Parents[0].SHA256 != m.Parents[1].SHA256 || m.DataHash != second.DataHash {
		t.Errorf("lineage %+v after %+v and %+v", m, first.Parents, second.Parents)
	}
	if !bytes.Equal(read(t, filepath.Join(whole, "final", "tokenizer.json")), words) {
		t.Error("the generator's own text tokenizer is lost")
	}
	if first.DataHash == second.DataHash {
		t.Error("both rounds have the same pairs")
	}
	if bytes.Equal(read(t, filepath.Join(whole, "final", ckpt.ModelFile)), read(t, filepath.Join(whole, "round-1", "dpo", "final", ckpt.ModelFile))) {
		t.Error("the second round moved nothing")
	}
	for _, stop := range []stopper{{text: "drawing: ", left: 1}, {text: "small-round-1: steps", left: 1}, {text: "round 2 of 2: ", left: 1}} {
		ctx, cancel := context.WithCancel(t.Context())
		stop.stop = cancel
		if err := start(t, ctx, r, parts, &stop); !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at %q: error %v", stop.text, err)
		}
		cancel()
	}
	if err := start(t, t.Context(), r, parts, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, filepath.Join(whole, "round-2", "ranking", "part-00000.parquet")), read(t, filepath.Join(parts, "round-2", "ranking", "part-00000.parquet"))) {
		t.Error("a run that was stopped draws other images")
	}
	if !bytes.Equal(read(t, filepath.Join(whole, "final", ckpt.ModelFile)), read(t, filepath.Join(parts, "final", ckpt.ModelFile))) {
		t.Error("a run that was stopped ends with other weights")
	}
}

func TestBadRecipesAreNamed(t *testing.T) {
	init := policytest.Folder(t, nil)
	for data, want := range map[string]string{
		"rounds: 0":                "0 rounds",
		"dpo: {from: x}":           "makes its own pairs",
		"dpo: {beta: 0}":           "beta is 0",
		"dpo: {betta: 1}":          "unknown field",
		"prompts: nowhere":         "nowhere",
		"tokenizer: ''":            "tokenizer is missing",
		"guidance: -1":             "guidance is -1",
		"rounds: 1, per_prompt: 0": "0 pairs a prompt",
	} {
		if err := start(t, t.Context(), recipe(t, init, data), t.TempDir(), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", data, err, want)
		}
	}
}

func TestARoundWithoutAPairSaysSo(t *testing.T) {
	r := recipe(t, policytest.Folder(t, nil), "rounds: 1")
	d := newRun(t, r, t.TempDir(), io.Discard, func(context.Context, image.Image, geneval.Metadata) (geneval.Result, error) {
		return geneval.Result{}, nil
	})
	if err := d.rounds(t.Context()); err == nil || !strings.Contains(err.Error(), "round 1 of 1") || !strings.Contains(err.Error(), "8 only no") {
		t.Errorf("error %v", err)
	}
}
