// Package tiny holds the checkpoints of the tiny world that are shipped inside the program: the image tokenizer, the
// generator and its aligned variants (DPO, iterative DPO, guided by a reward model, self-correction), the zero-shot judge
// and the fine-tuned judges of the paper (ORM, PRM, PARM, PARM++), with a text tokenizer for all of them. File formats and tensor names are those of the official models; only config.json is smaller. The
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
	Name string // folder name
	Kind string // of its recipe (Command)
	Role string // what it does, in words
}

// Models lists what a complete build holds, in the order in which they are trained.
func Models() []Model {
	return []Model{
		{"tokenizer", "tokenizer", "image tokenizer (MAGVIT-v2): image <-> tokens"},
		{"generator", "generator", "generator (Show-o): prompt -> tokens, step by step"},
		{"judge", "judge", "zero-shot judge (LLaVA-OneVision), trained on rendered scenes only"},
		{"orm", "judge", "outcome reward model: the judge fine-tuned on ranking data"},
		{"prm", "judge", "process reward model: the judge fine-tuned on step data"},
		{"parm", "judge", "potential assessment reward model: clarity, potential, outcome"},
		{"parmpp", "judge", "PARM++: clarity, potential, outcome, and reflection with reasons"},
		{"dpo", "dpo", "the generator after DPO on preference pairs"},
		{"iterdpo", "iterdpo", "the generator after iterative DPO: two more rounds on its own images"},
		{"guided-orm", "guide", "the generator after DPO guided online by the ORM"},
		{"guided-parm", "guide", "the generator after DPO guided online by PARM"},
		{"grpo", "guide", "the generator after group-relative policy optimisation, an extension"},
		{"correction", "correction", "the generator fine-tuned to correct its own images"},
	}
}

// Part is what the model is in a pipeline: tokenizer, generator or judge.
func (m Model) Part() string {
	if m.Kind == "tokenizer" || m.Kind == "judge" {
		return m.Kind
	}
	return "generator"
}

// Command is the command that trains the model.
func (m Model) Command() string {
	recipe := m.Name
	if m.Name == "judge" {
		recipe = "judge-mixed" // the last of its three stages
	}
	return fmt.Sprintf("imagecot train %s -f recipes/tiny/%s.yaml --out runs/%s", m.Kind, recipe, m.Name)
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
	at := slices.IndexFunc(all, func(m Model) bool { return m.Name == name })
	if at < 0 {
		names := make([]string, len(all))
		for i, m := range all {
			names[i] = m.Name
		}
		return nil, fmt.Errorf("tiny: no model %q (there are: %s): %w", name, strings.Join(names, ", "), fs.ErrNotExist)
	}
	for _, file := range []string{ConfigFile, WeightsFile} {
		if _, err := fs.Stat(files, name+"/"+file); err != nil {
			return nil, fmt.Errorf("tiny: %s/%s is %w; train it with `%s` and build again", name, file, ErrMissing, all[at].Command())
		}
	}
	return fs.Sub(files, name)
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
