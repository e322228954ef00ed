package cli

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imagecot/experiment"
	"imagecot/recipes"
	"imagecot/train"
)

// TestTrainAllGoesOn runs commands in the output folder, skips finished ones and stops at one that fails.
func TestTrainAllGoesOn(t *testing.T) {
	dir := t.TempDir()
	var log strings.Builder
	a := &app{stderr: &log, backend: "go"}
	steps := []experiment.TrainStep{
		{Name: "words", Run: "imagecot train vocabulary -o words.json"},
		{Name: "bad", Run: "imagecot train tokenizer -f recipes/tiny/judge.yaml"},
		{Name: "never", Run: "imagecot train vocabulary -o never.json"},
	}
	if err := a.trainAll(t.Context(), steps, dir); err == nil || !strings.Contains(err.Error(), "judge.yaml") {
		t.Fatalf("error %v, want that of the second command", err)
	}
	for name, want := range map[string]bool{"words.json": true, "never.json": false, "recipes/tiny/dpo.yaml": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !strings.Contains(log.String(), "not for a tokenizer") {
		t.Errorf("the command's own words are lost:\n%s", log.String())
	}
	if err := os.Remove(filepath.Join(dir, "words.json")); err != nil {
		t.Fatal(err)
	}
	steps[1].Run = "imagecot version"
	if err := a.trainAll(t.Context(), steps, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "words.json")); err == nil {
		t.Error("a finished command ran again")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	steps[2].Name = "again"
	if err := a.trainAll(ctx, steps, dir); err == nil {
		t.Error("a stopped training ended well")
	}
}

// TestTrainListFollowsTheRecipes: every command is one of ours, names an existing recipe of its kind, and reads only what
// an earlier one wrote.
func TestTrainListFollowsTheRecipes(t *testing.T) {
	for _, file := range []string{"tiny/tables/scale.yaml", "full/scale.yaml"} {
		scale, err := experiment.ReadScale(recipes.Files, file)
		if err != nil || len(scale.Train) < 15 {
			t.Fatalf("%s trains %d models, %v", file, len(scale.Train), err)
		}
		followsTheRecipes(t, scale)
	}
}

func followsTheRecipes(t *testing.T, scale experiment.Scale) {
	t.Helper()
	made := map[string]bool{}
	for _, s := range scale.Train {
		words := strings.Fields(s.Run)
		root := (&app{}).root()
		cmd, rest, err := root.Find(words[1:])
		if err != nil || cmd.RunE == nil || cmd.ParseFlags(rest) != nil {
			t.Errorf("%s: no such command: %v", s.Run, err)
			continue
		}
		out, _ := cmd.Flags().GetString("out")
		for _, flag := range []string{"from", "generator", "tokenizer", "prompts", "reasons"} {
			f := cmd.Flags().Lookup(flag)
			if f != nil && f.Changed && !experiment.IsPreset(f.Value.String()) && !made[strings.TrimSuffix(f.Value.String(), "/final")] {
				t.Errorf("%s: --%s %s is not made before", s.Run, flag, f.Value)
			}
		}
		if file := cmd.Flags().Lookup("file"); file != nil {
			r, err := train.ReadRecipe(filepath.Join("..", file.Value.String()))
			if err != nil || r.Kind != cmd.Name() || out != "runs/"+s.Name {
				t.Errorf("%s: a recipe for a %s, %v", s.Run, r.Kind, err)
			}
			text, _ := os.ReadFile(filepath.Join("..", file.Value.String()))
			for line := range strings.Lines(string(text)) {
				for _, from := range regexp.MustCompile(`runs/[\w-]+`).FindAllString(line, -1) {
					if !strings.HasPrefix(line, "#") && !made[from] {
						t.Errorf("%s: %s is not made before", s.Run, from)
					}
				}
			}
		}
		made[out] = true
	}
}
