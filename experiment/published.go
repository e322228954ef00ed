package experiment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/hub"
	"imagecot/preset"
	"imagecot/tiny"
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

// textTokenizer is the folder's own, or else the one that its preset names, or else the one that all tiny models share.
func textTokenizer(name string, dir fs.FS) (*bpe.Tokenizer, error) {
	t, err := bpe.OpenFS(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	if p, ok := presetOf(name); ok && p.Text != "" {
		folder, _, err := Published(p.Text)
		if err != nil {
			return nil, err
		}
		return bpe.OpenFS(os.DirFS(folder))
	}
	text, err := tiny.TextTokenizer()
	if err != nil {
		return nil, err
	}
	return bpe.Load(text)
}

// identify is a model's name and the hash of its weights.
func identify(name string, dir fs.FS) (string, error) {
	sum, err := ckpt.HashModel(dir)
	if err != nil {
		return "", refuse(name, err)
	}
	return name + " sha256:" + sum[:16], nil
}
