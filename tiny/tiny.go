// Package tiny holds the checkpoints of the tiny world that are shipped inside the program: the image tokenizer, the
// generator, the zero-shot judge and the three fine-tuned judges of the paper (ORM, PRM, PARM), with a text tokenizer
// for all of them. File formats and tensor names are those of the official models; only config.json is smaller. The
// package knows files only; models/* read them.
package tiny

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed README.md */*
var files embed.FS

// ErrMissing marks a model that this build does not hold.
var ErrMissing = errors.New("not in this build")

// Model describes one shipped checkpoint.
type Model struct {
	Name string // folder name: tokenizer, generator, judge, orm, prm, parm
	Role string // what it does, in words
}

// Models lists what a complete build holds, in the order in which they are trained.
func Models() []Model {
	return []Model{
		{"tokenizer", "image tokenizer (MAGVIT-v2): image <-> tokens"},
		{"generator", "generator (Show-o): prompt -> tokens, step by step"},
		{"judge", "zero-shot judge (LLaVA-OneVision), trained on rendered scenes only"},
		{"orm", "outcome reward model: the judge fine-tuned on ranking data"},
		{"prm", "process reward model: the judge fine-tuned on step data"},
		{"parm", "potential assessment reward model: clarity, potential, outcome"},
	}
}

// Weights and configuration files that every model folder holds.
const (
	ConfigFile   = "config.json"
	WeightsFile  = "model.safetensors"
	ManifestFile = "manifest.json"
	CardFile     = "README.md"
)

// Open returns the folder of a model. An unknown name is an error that lists the names; a model that was not trained
// when the program was built is ErrMissing with the command that trains it.
func Open(name string) (fs.FS, error) {
	all := Models()
	if !slices.ContainsFunc(all, func(m Model) bool { return m.Name == name }) {
		names := make([]string, len(all))
		for i, m := range all {
			names[i] = m.Name
		}
		return nil, fmt.Errorf("tiny: no model %q (there are: %s): %w", name, strings.Join(names, ", "), fs.ErrNotExist)
	}
	for _, file := range []string{ConfigFile, WeightsFile} {
		if _, err := fs.Stat(files, name+"/"+file); err != nil {
			return nil, fmt.Errorf("tiny: %s/%s is %w; train it with `imagecot train %s -f recipes/tiny/%s.yaml` and build again",
				name, file, ErrMissing, command(name), name)
		}
	}
	return fs.Sub(files, name)
}

// command is the training command that makes a model.
func command(name string) string {
	switch name {
	case "tokenizer", "generator":
		return name
	}
	return "judge"
}

// Size is the number of bytes that the weights of a model take, 0 when it is missing.
func Size(name string) int64 {
	info, err := fs.Stat(files, name+"/"+WeightsFile)
	if err != nil {
		return 0
	}
	return info.Size()
}

// TextTokenizer is the tokenizer.json that all tiny models share.
func TextTokenizer() ([]byte, error) {
	b, err := files.ReadFile("bpe/tokenizer.json")
	if err != nil {
		return nil, fmt.Errorf("tiny: bpe/tokenizer.json is %w", ErrMissing)
	}
	return b, nil
}
