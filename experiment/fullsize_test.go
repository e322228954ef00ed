package experiment

import (
	"context"
	"fmt"
	"image"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"imagecot/align"
	"imagecot/align/policy"
	"imagecot/backend"
	"imagecot/ckpt"
	"imagecot/curate"
	"imagecot/experiment/untrained"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
	"imagecot/maskgit"
	"imagecot/train"
)

// publish fills a hub's cache with the models of toy size, and has imagecot find them.
func publish(t *testing.T) {
	t.Helper()
	home, cache := t.TempDir(), t.TempDir()
	t.Setenv("IMAGECOT_HOME", home)
	t.Setenv("HF_HUB_CACHE", cache)
	t.Setenv("HF_HUB_OFFLINE", "1")
	if err := untrained.Publish(home, cache); err != nil {
		t.Fatal(err)
	}
}

// Images of full size are labelled by GenEval's own models, whose hashes the data name.
func TestRankingDataOfFullSize(t *testing.T) {
	publish(t)
	r := Default()
	r.Generator, r.Strategy, r.Backend, r.Steps = "small", "single", "go", 3
	p, err := Open(t.Context(), r, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	list := []geneval.Metadata{geneval.Templates{}.Colour("red", "bench")}
	if err := p.UseGenEval(list); err != nil {
		t.Fatal(err)
	}
	if id := p.Models["detector"]; strings.Count(id, "sha256:") != 2 {
		t.Errorf("the detector is %q, want two hashes", id)
	}
	dir := filepath.Join(t.TempDir(), "ranking")
	if err := (curate.Ranking{Dir: dir, Prompts: list, Each: 2, Seed: 1, PartSize: 1, Generator: p.Generator, Evaluate: p.Evaluate}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := curate.ReadTraining[curate.Image](dir)
	if err != nil || len(rows) != 2 || len(rows[0].Samples) != 3*untrained.Tokens {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		if row.Correct == (row.Reason != "") || row.Reason != "" && !strings.Contains(row.Reason, "bench") {
			t.Errorf("correct %t because of %q", row.Correct, row.Reason)
		}
	}
}

// A recipe names published models, and the whole of alignment runs on them: GenEval's evaluator where the tiny world has its
// own, the text tokenizer that the preset names, weights under their published file name.
func TestAlignmentOfFullSize(t *testing.T) {
	publish(t)
	prompts := filepath.Join(t.TempDir(), "prompts.jsonl")
	var text strings.Builder
	for i, class := range []string{"bench", "car", "dog", "cup", "bed", "cow", "kite", "vase"} {
		text.WriteString(geneval.Templates{}.Colour(geneval.Colours()[i], class).Dump() + "\n")
	}
	writeFile(t, prompts, text.String())
	be := enginetest.Go(t)
	var asked []int
	sources := policy.Sources{
		Folders: ModelFolder, Wording: Wording,
		Evaluators: func(_ compute.Backend, side int, list []geneval.Metadata) (curate.Evaluate, string, error) {
			asked = append(asked, side)
			n := 0
			return func(_ context.Context, img image.Image, _ geneval.Metadata) (geneval.Result, error) {
				n++
				if got := img.Bounds().Dx(); got != side || len(list) == 0 {
					t.Errorf("an image of %d pixels for %d prompts, want %d", got, len(list), side)
				}
				return geneval.Result{Correct: n%2 == 0, Reasons: []string{"odd"}}, nil
			}, "a detector", nil
		},
	}
	drawing := "tokenizer: small-images, temperature_rule: compound, steps: 3, prompts: " + prompts
	for kind, data := range map[string]string{
		"iterdpo": "rounds: 1, each: 4, " + drawing,
		"guide":   "dpo_coef: 0, judge: judge, groups: 2, each: 2, min_gap: 0, watch: {every: 1, prompts: 2, each: 1}, " + drawing,
	} {
		t.Run(kind, func(t *testing.T) {
			asked = nil
			r, err := train.ParseRecipe(fmt.Appendf(nil, "{kind: %s, name: small, init_from: small, max_steps: 1, batch_size: 2, learning_rate: 0.001, save_steps: 1, data: {%s}}", kind, data))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := align.Run(t.Context(), be, sources, r, dir, io.Discard); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(asked, []int{untrained.Side}) {
				t.Errorf("evaluators of %v pixels were opened, want one of 16", asked)
			}
			if kind == "iterdpo" {
				text, err := os.ReadFile(filepath.Join(dir, "round-1", "ranking", "recipe.json"))
				if err != nil || !strings.Contains(string(text), `"detector": "a detector"`) {
					t.Errorf("a round's images do not say who labelled them (%v)", err)
				}
			}
			own, _, err := Published("small-words")
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(own, "tokenizer.json"))
			if err != nil {
				t.Fatal(err)
			}
			words, err := os.ReadFile(filepath.Join(dir, "final", "tokenizer.json"))
			if err != nil || string(words) != string(want) {
				t.Errorf("the result has not the text tokenizer of its preset: %v", err)
			}
			m, err := ckpt.ReadManifest(filepath.Join(dir, "final"))
			if err != nil || m.Parents[0].Name != "small" || len(m.Parents[0].SHA256) != 64 {
				t.Errorf("parents %+v, %v", m.Parents, err)
			}
		})
	}
}

func TestDrawingOfTheTinyWorldIsNotForFullSize(t *testing.T) {
	publish(t)
	p, err := policy.Open(ModelFolder, "small")
	if err != nil {
		t.Fatal(err)
	}
	d := policy.DefaultDrawing()
	d.Tokenizer = "small-images"
	if _, err := p.OpenImages(enginetest.Go(t), ModelFolder, d); err == nil || !strings.Contains(err.Error(), "prompts is missing") {
		t.Errorf("error %v", err)
	}
	d.Prompts = "prompts.jsonl"
	if _, err := p.OpenImages(enginetest.Go(t), ModelFolder, d); err == nil || !strings.Contains(err.Error(), "temperature_rule is missing") {
		t.Errorf("error %v", err)
	}
	d.Rule = maskgit.Compound
	if _, err := p.OpenImages(enginetest.Go(t), ModelFolder, d); err != nil {
		t.Error(err)
	}
}

// The tiny world has its exact detector, whatever else is installed; other sizes need GenEval's own models.
func TestEvaluatorsBySize(t *testing.T) {
	be, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer be.Finalize()
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	if _, id, err := OpenEvaluator(be, 64, nil); err != nil || id != "" {
		t.Error(id, err)
	}
	if _, _, err := OpenEvaluator(be, 256, geneval.Official()); err == nil || !strings.Contains(err.Error(), "pull --allow-pickle geneval-detector") {
		t.Errorf("error %v", err)
	}
}
