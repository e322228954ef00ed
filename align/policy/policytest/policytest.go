// Package policytest makes very small generators for tests of alignment: one layer, four image tokens, eight codes.
package policytest

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"imagecot/align/policy"
	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/showo"
	"imagecot/train/objective"

	"github.com/gomlx/gomlx/core/tensors"
)

// Sizes of the generator.
const (
	Tokens = 4
	Codes  = 8
)

// Folder writes a model folder of a very small generator with random weights, which change may alter, and returns its path.
func Folder(t testing.TB, change func(map[string]*tensors.Tensor)) string {
	t.Helper()
	cfg := Tiny(t)
	cfg.VocabSize += Codes - cfg.CodebookSize
	cfg.CodebookSize, cfg.NumVQTokens, cfg.MaskTokenID = Codes, Tokens, int32(cfg.VocabSize-1)
	cfg.LLM.HiddenSize, cfg.LLM.IntermediateSize, cfg.LLM.Layers, cfg.LLM.Heads, cfg.LLM.KeyValueHeads = 16, 32, 1, 2, 2
	return Write(t, cfg, change)
}

// Tiny is the architecture of the tiny world's generator.
func Tiny(t testing.TB) showo.Config {
	t.Helper()
	text, err := objective.Vocabulary()
	if err != nil {
		t.Fatal(err)
	}
	words, err := bpe.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	eos, _ := words.TokenID("<|endoftext|>")
	return showo.Tiny(words.VocabSize(), eos)
}

// Write is Folder for any architecture.
func Write(t testing.TB, cfg showo.Config, change func(map[string]*tensors.Tensor)) string {
	t.Helper()
	weights, err := showo.Init(cfg, prng.New(3, 0, prng.Init).Rand(), showo.InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(weights)
	}
	dir := t.TempDir()
	var all []ckpt.Tensor
	for name, w := range weights {
		c, err := ckpt.FromTensor(name, w, ckpt.F32)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if err := ckpt.Write(filepath.Join(dir, ckpt.ModelFile), all, nil); err != nil {
		t.Fatal(err)
	}
	p := policy.Policy{Config: cfg}
	config, err := p.JSON()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Folders finds models by path alone.
func Folders(name, _ string) (fs.FS, error) { return os.DirFS(name), nil }

// Moved are weights with noise, the same for the same weights: a policy that is no longer its reference.
func Moved(weights map[string]*tensors.Tensor) map[string]*tensors.Tensor {
	rng := prng.New(3, 0, prng.Init).Rand()
	out := map[string]*tensors.Tensor{}
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		values := tensors.MustCopyFlatData[float32](weights[name])
		for i := range values {
			values[i] += .2 * float32(rng.NormFloat64())
		}
		out[name] = graphx.Tensor(values, weights[name].Shape().Dimensions...)
	}
	return out
}
