package experiment

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/hub"
	"imagecot/internal/fetch"
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

// weightFiles are the files of a model folder that hold its weights, and the index of shards.
func weightFiles(dir fs.FS) ([]string, error) {
	for _, name := range []string{ckpt.ModelFile, ckpt.IndexFile, ckpt.PublishedFile} {
		if _, err := fs.Stat(dir, name); err != nil {
			continue
		}
		if name != ckpt.IndexFile {
			return []string{name}, nil
		}
		shards, err := fs.Glob(dir, "*.safetensors")
		return append([]string{name}, shards...), err
	}
	return nil, fmt.Errorf("no weights: %w", fs.ErrNotExist)
}

// identify is a model's name and the hash of its weights; of shards it is the hash of their hashes.
func identify(name string, dir fs.FS) (string, error) {
	files, err := weightFiles(dir)
	if err != nil {
		return "", refuse(name, err)
	}
	sums := make([]string, len(files))
	for i, file := range files {
		if sums[i], err = hashOf(dir, file); err != nil {
			return "", refuse(name, err)
		}
	}
	sum := sums[0]
	if len(sums) > 1 {
		slices.Sort(sums)
		all := sha256.Sum256([]byte(strings.Join(sums, " ")))
		sum = hex.EncodeToString(all[:])
	}
	return name + " sha256:" + sum[:16], nil
}

// hashOf is the SHA-256 of a file. In a hub's cache it is the name of the blob that the file links to.
func hashOf(dir fs.FS, name string) (string, error) {
	if to, err := fs.ReadLink(dir, name); err == nil {
		if blob := path.Base(to); len(blob) == 64 && fetch.KnownHash(blob) {
			return blob, nil
		}
	}
	f, err := dir.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
