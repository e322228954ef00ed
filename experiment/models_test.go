package experiment

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/internal/prng"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/models/showo"
	"imagecot/tiny"
	"imagecot/world"
)

// untrained writes an image tokenizer, a generator and a judge of the tiny sizes with random weights.
func untrained(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	save := func(name string, config []byte, weights map[string]*tensors.Tensor) {
		t.Helper()
		var all []ckpt.Tensor
		for name, w := range weights {
			c, err := ckpt.FromTensor(name, w, ckpt.BF16)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		folder := filepath.Join(dir, name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, tiny.ConfigFile), config, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ckpt.Write(filepath.Join(folder, ckpt.ModelFile), all, nil); err != nil {
			t.Fatal(err)
		}
	}
	text, err := tiny.TextTokenizer()
	if err != nil {
		t.Fatal(err)
	}
	tok, err := bpe.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	rng := prng.New(1, 0, prng.Init).Rand()
	eos, _ := tok.TokenID("<|endoftext|>")
	gen, judge := showo.Tiny(tok.VocabSize(), eos), llavaov.Tiny(tok.VocabSize())
	weights, err := showo.Init(gen, rng, showo.InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	judgeConfig, err := judge.JSON()
	if err != nil {
		t.Fatal(err)
	}
	save("generator", marshal(t, gen), weights)
	save("generator/tokenizer", marshal(t, magvit.Tiny()), magvit.Init(magvit.Tiny(), rng))
	save("judge", judgeConfig, llavaov.Init(judge, rng))
	return dir
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func quiet(string, ...any) {}

// TestModelsFromFolders runs the whole way from files to report on the pure-Go engine, and refuses bad files.
func TestModelsFromFolders(t *testing.T) {
	if testing.Short() {
		t.Skip("runs models")
	}
	dir := untrained(t)
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
	g, err := p.Generate(t.Context(), cot.Prompt{Text: "a photo of a red circle left of a blue square"})
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
