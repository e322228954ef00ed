package experiment

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/internal/graphx"
	"imagecot/judge/openai"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/models/showo"
	"imagecot/tiny"
	"imagecot/world"
)

// ErrRefused says that a checkpoint is there but is not what it should be.
var ErrRefused = errors.New("checkpoint refused")

// ModelFolder finds a model by name: a shipped one (shipped maps "tiny" to its part), else a folder. A folder that is
// called like a shipped model is meant by a path with a separator, ./tiny for instance.
func ModelFolder(name, shipped string) (fs.FS, error) {
	if name == "tiny" {
		return tiny.Open(shipped)
	}
	if slices.ContainsFunc(tiny.Models(), func(m tiny.Model) bool { return m.Name == name }) {
		return tiny.Open(name)
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return os.DirFS(name), nil
	}
	if strings.ContainsAny(name, `/\`) {
		return nil, fmt.Errorf("experiment: model folder %s: %w", name, fs.ErrNotExist)
	}
	return tiny.Open(name)
}

// refuse marks an error of a checkpoint that is there.
func refuse(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("experiment: model %s is not complete: %w", name, err)
	}
	return fmt.Errorf("experiment: %w: model %s: %w", ErrRefused, name, err)
}

// identify is a model's name and the hash of its weights.
func identify(name string, dir fs.FS) (string, error) {
	f, err := dir.Open(ckpt.ModelFile)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = dir.Open(ckpt.IndexFile)
	}
	if err != nil {
		return "", refuse(name, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", refuse(name, err)
	}
	return name + " sha256:" + hex.EncodeToString(h.Sum(nil))[:16], nil
}

// textTokenizer is the folder's own, or else the one that all tiny models share.
func textTokenizer(dir fs.FS) (*bpe.Tokenizer, error) {
	t, err := bpe.OpenFS(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	text, err := tiny.TextTokenizer()
	if err != nil {
		return nil, err
	}
	return bpe.Load(text)
}

// openGenerator loads generator, image tokenizer and text tokenizer.
func (p *Pipeline) openGenerator() error {
	name := p.Recipe.Generator
	dir, err := ModelFolder(name, "generator")
	if err != nil {
		return err
	}
	images, err := p.openTokenizer(name, dir)
	if err != nil {
		return err
	}
	text, err := fs.ReadFile(dir, tiny.ConfigFile)
	if err != nil {
		return refuse(name, err)
	}
	cfg, err := showo.LoadConfig(text)
	if err != nil {
		return refuse(name, err)
	}
	if cfg.CodebookSize != images.Config().Codes() {
		return refuse(name, fmt.Errorf("the generator has %d codes, the image tokenizer %d", cfg.CodebookSize, images.Config().Codes()))
	}
	words, err := textTokenizer(dir)
	if err != nil {
		return refuse(name, err)
	}
	f, err := ckpt.OpenModelFS(dir, ".")
	if err != nil {
		return refuse(name, err)
	}
	defer f.Close()
	weights, err := f.Tensors()
	if err != nil {
		return refuse(name, err)
	}
	o := showo.PaperOptions()
	o.Steps, o.Guidance, o.Temperature, o.Official = p.Recipe.Steps, p.Recipe.Guidance, p.Recipe.Temperature, p.Recipe.Official
	if p.tinyWorld() && !o.Official {
		o.Rule = showo.TinyOptions().Rule
	}
	if err := o.Validate(); err != nil {
		return fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
	}
	w := graphx.NewWeights(weights)
	g, err := showo.NewGenerator(p.backend, cfg, w, words, images, o)
	if err != nil {
		return refuse(name, err)
	}
	p.Generator = g
	p.self = func() (cot.Judge, error) { return showo.NewSelfJudge(p.backend, cfg, w, words) }
	p.Models["generator"], err = identify(name, dir)
	return err
}

// openTokenizer loads the image tokenizer: the recipe's, else the one beside the generator, else the shipped one.
func (p *Pipeline) openTokenizer(generator string, dir fs.FS) (*magvit.Tokenizer, error) {
	name := p.Recipe.Tokenizer
	if name == "" {
		name = "tiny"
		if info, err := fs.Stat(dir, "tokenizer"); err == nil && info.IsDir() {
			name = filepath.Join(generator, "tokenizer")
		}
	}
	folder, err := ModelFolder(name, "tokenizer")
	if err != nil {
		return nil, err
	}
	t, err := magvit.OpenFS(p.backend, folder, ".", magvit.Options{})
	if err != nil {
		return nil, refuse(name, err)
	}
	p.side = t.Config().Encoder.Resolution
	p.Models["tokenizer"], err = identify(name, folder)
	return t, err
}

// selfJudge is the name of the generator as judge of its own images.
const selfJudge = "self"

// openJudge loads a judge by name and says which wording it understands and what it is.
func (p *Pipeline) openJudge(name string) (j cot.Judge, words, id string, err error) {
	if name == selfJudge {
		words = "paper"
		if p.tinyWorld() {
			words = "tiny"
		}
		if j, err = p.self(); err != nil {
			return nil, "", "", fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
		}
		return j, words, p.Models["generator"], nil
	}
	if spec, ok := strings.CutPrefix(name, "openai:"); ok {
		o, err := openai.ParseSpec(spec)
		if err != nil {
			return nil, "", "", fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
		}
		remote, err := openai.New(o)
		if err != nil {
			return nil, "", "", fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
		}
		return remote, "paper", name, nil
	}
	dir, err := ModelFolder(name, "judge")
	if err != nil {
		return nil, "", "", err
	}
	tok, err := textTokenizer(dir)
	if err != nil {
		return nil, "", "", refuse(name, err)
	}
	local, err := llavaov.OpenFS(p.backend, dir, ".", tok, llavaov.Options{Official: p.Recipe.Official})
	if err != nil {
		return nil, "", "", refuse(name, err)
	}
	words = "paper"
	if local.Model().Config().Vision.ImageSize == world.Side {
		words = "tiny"
	}
	if id, err = identify(name, dir); err != nil {
		return nil, "", "", err
	}
	return local, words, id, nil
}
