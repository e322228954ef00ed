package experiment

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/experiment/untrained"
	"imagecot/tiny"
	"imagecot/train"
	"imagecot/world"
)

func quiet(string, ...any) {}

// TestModelsAreTrainedByRecipesThatAreThere: the command of every shipped model names the very recipe
// that its manifest says it was made by.
func TestModelsAreTrainedByRecipesThatAreThere(t *testing.T) {
	for _, m := range tiny.Models() {
		recipe := regexp.MustCompile(`-f (recipes/\S+) --out runs/` + m.Name + "$").FindStringSubmatch(m.Command())
		if recipe == nil {
			t.Errorf("%s: %s", m.Name, m.Command())
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", recipe[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		r, err := train.ParseRecipe(text)
		if err != nil {
			t.Errorf("%s: %v", recipe[1], err)
			continue
		}
		dir, err := tiny.Open(m.Name)
		if errors.Is(err, tiny.ErrMissing) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		manifest, err := ckpt.ReadManifestFS(dir, ".")
		if err != nil {
			t.Fatal(err)
		}
		if want, err := json.Marshal(r); err != nil || !jsonEqual(t, want, manifest.Recipe) {
			t.Errorf("%s was made by the recipe\n%s\nits command runs\n%s (%v)", m.Name, manifest.Recipe, want, err)
		}
	}
}

// jsonEqual compares two objects whatever the order of their keys.
func jsonEqual(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

// TestModelsFromFolders runs the whole way from files to report on the pure-Go engine, and refuses bad files.
func TestModelsFromFolders(t *testing.T) {
	if testing.Short() {
		t.Skip("runs models")
	}
	dir := t.TempDir()
	if err := untrained.Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	r := Default()
	r.Backend, r.N, r.Steps = "go", 2, 2
	r.Generator, r.Judge = filepath.Join(dir, "generator"), filepath.Join(dir, "judge")
	p, err := Open(t.Context(), r, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.CheckPrompt("a photo of a zebra"); err == nil || !strings.Contains(err.Error(), "zebra") {
		t.Errorf("unknown word: error %v", err)
	}
	arm, err := p.Arm(r.Strategy)
	if err != nil {
		t.Fatal(err)
	}
	g, err := p.Generate(t.Context(), arm, cot.Prompt{Text: "a photo of a red circle left of a blue square"})
	if err != nil {
		t.Fatal(err)
	}
	if b := g.Image.Bounds(); b.Dx() != world.Side || b.Dy() != world.Side {
		t.Errorf("image of %v", b)
	}
	if g.Selection.Cost.JudgeCalls == 0 || len(p.Models) != 3 {
		t.Errorf("cost %+v, models %v", g.Selection.Cost, p.Models)
	}
	if err := g.Write(t.Context(), filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}

	weights := filepath.Join(dir, "generator", ckpt.ModelFile)
	text, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(weights, text[:len(text)-7], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), r, quiet); !errors.Is(err, ErrRefused) {
		t.Errorf("truncated weights: error %v, want ErrRefused", err)
	}
	if err := os.Remove(weights); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), r, quiet); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing weights: error %v, want ErrNotExist", err)
	}
	r.Generator = filepath.Join(dir, "nowhere")
	if _, err := Open(t.Context(), r, quiet); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing folder: error %v, want ErrNotExist", err)
	}
}
