package experiment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/hub"
	"imagecot/preset"
)

// Published finds a published checkpoint in the hub's cache: a preset by its name or YAML file, or hf:ORG/NAME[@REVISION].
// ok is false if the name is neither. A checkpoint that is not there is an error that says how to bring it.
func Published(name string) (dir string, ok bool, err error) {
	if id, found := strings.CutPrefix(name, "hf:"); found {
		r, err := hub.ParseRepo(id)
		if err != nil {
			return "", true, fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
		}
		h, err := hub.FromEnv()
		if err != nil {
			return "", true, err
		}
		if dir, err = h.Snapshot(r); errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w; `imagecot pull %s` brings it", err, id)
		}
		return dir, true, err
	}
	p, err := preset.Find(name)
	if errors.Is(err, preset.ErrUnknown) {
		return "", false, nil
	}
	if err != nil {
		return "", true, err
	}
	h, err := hub.FromEnv()
	if err != nil {
		return "", true, err
	}
	dir, err = p.Dir(h)
	return dir, true, err
}

// presetOf is the preset of that name; ok is false if there is none.
func presetOf(name string) (p preset.Preset, ok bool) {
	p, err := preset.Find(name)
	return p, err == nil
}

// withWords is the folder of a published checkpoint together with the text tokenizer that its preset names, where it has none
// of its own: Show-o's words are Phi-1.5's.
func withWords(name string, dir fs.FS) (fs.FS, error) {
	p, ok := presetOf(name)
	if !ok || p.Text == "" {
		return dir, nil
	}
	if _, err := bpe.OpenFS(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	words, _, err := Published(p.Text)
	if err != nil {
		return nil, err
	}
	return besides{dir, os.DirFS(words)}, nil
}

// besides are the files of one folder, and text tokenizers of another.
type besides struct {
	fs.FS
	words fs.FS
}

var _ fs.ReadLinkFS = besides{}

// Open implements fs.FS.
func (b besides) Open(name string) (fs.File, error) {
	if slices.Contains(bpe.FileNames(), name) {
		return b.words.Open(name)
	}
	return b.FS.Open(name)
}

// ReadLink implements fs.ReadLinkFS: files of the hub's cache are links, whose names are hashes.
func (b besides) ReadLink(name string) (string, error) { return fs.ReadLink(b.FS, name) }

// Lstat implements fs.ReadLinkFS.
func (b besides) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(b.FS, name) }

// Wording is the set of questions that a judge was trained with, as its preset or its manifest tells; "" if neither does.
func Wording(judge string) string {
	if p, ok := presetOf(judge); ok && p.Questions != "" {
		return p.Questions
	}
	dir, err := ModelFolder(judge, "judge")
	if err != nil {
		return ""
	}
	set, _ := trainedWith(dir).Questions.(string)
	return set
}

// IsPreset reports whether a name is a preset's.
func IsPreset(name string) bool {
	_, ok := presetOf(name)
	return ok
}

// ApplyPreset puts the decoding defaults of a generator that is a preset into the recipe, where keep does not say that the
// user chose a value. The recipe's keys are "steps", "guidance" and "temperature".
func (r *Recipe) ApplyPreset(keep func(key string) bool) {
	p, ok := presetOf(r.Generator)
	if !ok || p.Decoding == nil {
		return
	}
	if !keep("steps") {
		r.Steps = p.Decoding.Steps
	}
	if !keep("guidance") {
		r.Guidance = p.Decoding.Guidance
	}
	if !keep("temperature") {
		r.Temperature = p.Decoding.Temperature
	}
}

// publishedJudges are the judges that the paper asks, by what they were tuned for, for generators that are not of the tiny
// world. PARM++ was not released; PARM stands in for it.
var publishedJudges = map[string]string{"orm": "cot-orm", "prm": "llava-onevision-7b", "parm": "cot-parm", "parmpp": "cot-parm"}

// identify is a model's name and the hash of its weights.
func identify(name string, dir fs.FS) (string, error) {
	sum, err := ckpt.HashModel(dir)
	if err != nil {
		return "", refuse(name, err)
	}
	return name + " sha256:" + sum[:16], nil
}
