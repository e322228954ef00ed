// Package policy is the generator as alignment sees it: weights to start from, and rows of masked image tokens whose
// log-probabilities are compared with those of a frozen reference. DPO and its variants stand on it. It knows neither
// losses nor judges.
package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/graphx"
	"imagecot/models/showo"
	"imagecot/train/objective"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
)

// Folders finds a model's folder by name; part says which shipped model the name "tiny" means.
type Folders func(name, part string) (fs.FS, error)

// Evaluators opens who judges final images against their prompts by the benchmark's rules; side is theirs in pixels. id tells
// detectors apart, and is "" for the tiny world's.
type Evaluators func(be compute.Backend, side int, prompts []geneval.Metadata) (evaluate curate.Evaluate, id string, err error)

// Sources are where alignment finds what is not in its recipe.
type Sources struct {
	Folders    Folders
	Evaluators Evaluators
	Wording    func(judge string) string // set of questions that a judge knows by its name; "" where the name does not tell
}

// Policy is a generator before it is trained on.
type Policy struct {
	Config    showo.Config
	Prompting showo.Prompting
	Text      *bpe.Tokenizer
	Parent    ckpt.Parent // role "init"

	dir   fs.FS
	name  string
	words map[string][]byte // files of the text tokenizer; nil where it is the tiny world's
}

// Open reads a generator's folder by name.
func Open(open Folders, name string) (*Policy, error) {
	if name == "" {
		return nil, errors.New("policy: init_from is missing: alignment starts from a trained generator")
	}
	dir, err := open(name, "generator")
	if err != nil {
		return nil, fmt.Errorf("policy: init_from: %w", err)
	}
	p := &Policy{dir: dir, name: name}
	text, err := fs.ReadFile(dir, "config.json")
	if err != nil {
		return nil, fmt.Errorf("policy: %s: %w", name, err)
	}
	if p.Config, err = showo.LoadConfig(text); err != nil {
		return nil, fmt.Errorf("policy: %s: %w", name, err)
	}
	p.Prompting = showo.NewPrompting(p.Config)
	if p.Text, err = Words(dir); err != nil {
		return nil, fmt.Errorf("policy: %s: %w", name, err)
	}
	if n := p.Text.VocabSize(); n > p.Config.LLMVocabSize {
		return nil, fmt.Errorf("policy: %s: its text tokenizer has %d tokens, its language model %d", name, n, p.Config.LLMVocabSize)
	}
	if p.words, err = WordFiles(dir); err != nil {
		return nil, fmt.Errorf("policy: %s: %w", name, err)
	}
	if p.words == nil && p.Text.VocabSize() != p.Config.LLMVocabSize {
		return nil, fmt.Errorf("policy: %s has no text tokenizer, and the tiny world's (%d tokens, not %d) is not its own: put its tokenizer.json into a folder with the weights",
			name, p.Text.VocabSize(), p.Config.LLMVocabSize)
	}
	if p.Parent, err = Parent(dir, "init", name); err != nil {
		return nil, err
	}
	f, err := ckpt.OpenModelFS(dir, ".")
	if err != nil {
		return nil, fmt.Errorf("policy: %s: %w", name, err)
	}
	defer f.Close()
	if err := showo.CheckFile(p.Config, f); err != nil {
		return nil, fmt.Errorf("policy: %s: %w", name, err)
	}
	return p, nil
}

// Words is the folder's text tokenizer, or the one that all tiny models share.
func Words(dir fs.FS) (*bpe.Tokenizer, error) {
	t, err := bpe.OpenFS(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	text, err := objective.Vocabulary()
	if err != nil {
		return nil, err
	}
	return bpe.Load(text)
}

// WordFiles are the files of a folder's text tokenizer, nil where no words are among them.
func WordFiles(dir fs.FS) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, name := range bpe.FileNames() {
		text, err := fs.ReadFile(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[name] = text
	}
	if out["tokenizer.json"] == nil && out["vocab.json"] == nil {
		return nil, nil
	}
	return out, nil
}

// TextTokenizer are the files of the generator's text tokenizer, which what is trained from it keeps; nil means the tiny
// world's.
func (p *Policy) TextTokenizer() map[string][]byte { return p.words }

// Parent names a model folder for a manifest.
func Parent(dir fs.FS, role, name string) (ckpt.Parent, error) {
	sum, err := ckpt.HashModel(dir)
	if err != nil {
		return ckpt.Parent{}, fmt.Errorf("policy: %s: %w", name, err)
	}
	if m, err := ckpt.ReadManifestFS(dir, "."); err == nil {
		name = m.Name
	}
	return ckpt.Parent{Role: role, Name: name, SHA256: sum}, nil
}

// Weights reads the starting weights, float32; they belong to the caller. A policy keeps none itself: of a large model every copy
// is gigabytes.
func (p *Policy) Weights() (map[string]*tensors.Tensor, error) {
	f, err := ckpt.OpenModelFS(p.dir, ".")
	if err != nil {
		return nil, fmt.Errorf("policy: %s: %w", p.name, err)
	}
	defer f.Close()
	out := map[string]*tensors.Tensor{}
	for _, name := range f.Names() {
		values, err := f.Float32(name)
		if err != nil {
			return nil, fmt.Errorf("policy: %s: %w", p.name, err)
		}
		info, _ := f.Info(name)
		out[name] = graphx.Tensor(values, info.Shape...)
	}
	return out, nil
}

// JSON is config.json.
func (p *Policy) JSON() ([]byte, error) { return json.MarshalIndent(p.Config, "", "  ") }

// CheckTokens reports a grid of the wrong size or tokens that do not exist.
func (p *Policy) CheckTokens(tokens []int32) error {
	if len(tokens) != p.Config.NumVQTokens {
		return fmt.Errorf("%d image tokens, want %d", len(tokens), p.Config.NumVQTokens)
	}
	for i, t := range tokens {
		if t < 0 || int(t) >= p.Config.CodebookSize {
			return fmt.Errorf("image token %d is %d, want 0 to %d", i, t, p.Config.CodebookSize-1)
		}
	}
	return nil
}
