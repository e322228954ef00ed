package experiment

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imagecot/align/policy"
	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/internal/graphx"
	"imagecot/judge/openai"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/models/showo"
	"imagecot/preset"
	"imagecot/tiny"
	"imagecot/verify/questions"
)

// ErrRefused says that a checkpoint is there but is not what it should be.
var ErrRefused = errors.New("checkpoint refused")

// ModelFolder finds a model by name: a shipped one (shipped maps "tiny" to its part), a published one in the hub's cache
// with its text tokenizer, else a folder. A folder that is called like one of those is meant by a path with a separator, ./tiny for instance.
func ModelFolder(name, shipped string) (fs.FS, error) {
	if name == "tiny" {
		return tiny.Open(shipped)
	}
	if slices.ContainsFunc(tiny.Models(), func(m tiny.Model) bool { return m.Name == name }) {
		return tiny.Open(name)
	}
	if dir, ok, err := Published(name); err != nil {
		return nil, err
	} else if ok {
		return withWords(name, os.DirFS(dir))
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return os.DirFS(name), nil
	}
	return nil, &UnknownModelError{name, shipped}
}

// UnknownModelError says that no model has a name.
type UnknownModelError struct {
	Name string
	Part string // what it was to be: generator, tokenizer or judge
}

// Error implements error and lists the names that there are.
func (e *UnknownModelError) Error() string {
	if strings.ContainsAny(e.Name, `/\`) {
		return fmt.Sprintf("experiment: there is no folder %s to take the %s from", e.Name, e.Part)
	}
	names := []string{"tiny"}
	for _, m := range tiny.Models() {
		if part := m.Part(); part == e.Part && m.Name != part {
			names = append(names, m.Name)
		}
	}
	if all, err := preset.All(); err == nil { // else Published has said so
		for _, p := range all {
			if p.Role == e.Part {
				names = append(names, p.Name)
			}
		}
	}
	return fmt.Sprintf("experiment: there is no %s %q (there are: %s, hf:ORG/NAME, and folders)", e.Part, e.Name, strings.Join(names, ", "))
}

// Unwrap makes it an fs.ErrNotExist.
func (e *UnknownModelError) Unwrap() error { return fs.ErrNotExist }

// refuse marks an error of a checkpoint that is there.
func refuse(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("experiment: model %s is not complete: %w", name, err)
	}
	if _, ok := presetOf(name); ok && errors.Is(err, ckpt.ErrPickle) {
		return fmt.Errorf("experiment: %w: model %s: %w: `imagecot pull --allow-pickle %s` makes a safetensors file of them", ErrRefused, name, ckpt.ErrPickle, name)
	}
	return fmt.Errorf("experiment: %w: model %s: %w", ErrRefused, name, err)
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
	if p.side, err = checkResolution(name, cfg, images.Config()); err != nil {
		return refuse(name, err)
	}
	if cfg.CodebookSize != images.Config().Codes() {
		return refuse(name, fmt.Errorf("the generator has %d codes, the image tokenizer %d", cfg.CodebookSize, images.Config().Codes()))
	}
	words, err := policy.Words(dir)
	if err != nil {
		return refuse(name, err)
	}
	if words.VocabSize() > cfg.LLMVocabSize {
		return refuse(name, fmt.Errorf("the text tokenizer has %d tokens, config.json says %d", words.VocabSize(), cfg.LLMVocabSize))
	}
	f, err := ckpt.OpenModelFS(dir, ".")
	if err != nil {
		return refuse(name, err)
	}
	defer f.Close()
	if err := showo.CheckFile(cfg, f); err != nil {
		return refuse(name, err)
	}
	place := ckpt.Place{Engine: p.backend}
	if place.Float, err = f.Kept(p.Recipe.DType); err != nil {
		return fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
	}
	weights, err := f.TensorsFor(place)
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
		if published, ok := presetOf(generator); ok && published.Tokenizer != "" {
			name = published.Tokenizer
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
	p.Models["tokenizer"], err = identify(name, folder)
	return t, err
}

// selfJudge is the name of the generator as judge of its own images.
const selfJudge = "self"

// checkResolution returns the side of the generator's images in pixels, and compares it with what the preset promises.
func checkResolution(name string, cfg showo.Config, images magvit.Config) (int, error) {
	grid := int(math.Round(math.Sqrt(float64(cfg.NumVQTokens))))
	side := grid * images.Factor()
	switch p, ok := presetOf(name); {
	case grid*grid != cfg.NumVQTokens:
		return 0, fmt.Errorf("num_vq_tokens %d is no square grid", cfg.NumVQTokens)
	case ok && p.Resolution != 0 && p.Resolution != side:
		return 0, fmt.Errorf("num_vq_tokens %d are a %d-pixel checkpoint, want one of %d pixels", cfg.NumVQTokens, side, p.Resolution)
	}
	return side, nil
}

// openJudge loads a judge by name and says which wording it understands and what it is.
func (p *Pipeline) openJudge(name string) (j openedJudge, id string, err error) {
	if name == selfJudge {
		self, err := p.self()
		if err != nil {
			return openedJudge{}, "", fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
		}
		return openedJudge{newMemoJudge(self), questions.Usual(p.side), true, ""}, p.Models["generator"], nil
	}
	if spec, ok := strings.CutPrefix(name, "openai:"); ok {
		o, err := openai.ParseSpec(spec)
		if err != nil {
			return openedJudge{}, "", fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
		}
		remote, err := openai.New(o)
		if err != nil {
			return openedJudge{}, "", fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
		}
		return openedJudge{newMemoJudge(remote), "paper", false, ""}, name, nil
	}
	dir, err := ModelFolder(name, "judge")
	if err != nil {
		return openedJudge{}, "", err
	}
	tok, err := policy.Words(dir)
	if err != nil {
		return openedJudge{}, "", refuse(name, err)
	}
	o := llavaov.Options{Official: p.Recipe.Official, DType: p.Recipe.DType, Aspect: p.Recipe.Aspect, Batch: p.questions}
	if p.tinyWorld() {
		o.CacheImages = 512 // small ones; those of several prompts that come together
	}
	local, err := llavaov.OpenFS(p.backend, dir, ".", tok, o)
	if err != nil {
		return openedJudge{}, "", refuse(name, err)
	}
	words := cmp.Or(Wording(name), questions.Usual(local.Model().Config().Vision.ImageSize))
	if id, err = identify(name, dir); err != nil {
		return openedJudge{}, "", err
	}
	return openedJudge{newMemoJudge(local), words, false, trainedAs(dir)}, id, nil
}

// trainedAs is the reward model that a judge's manifest names, "" without one.
func trainedAs(dir fs.FS) string { return trainedWith(dir).Reward }

// judgeData is what a judge's recipe says of its data: as which reward model it was trained, and in which words.
type judgeData struct {
	Reward    string `json:"reward"`
	Questions any    `json:"questions"` // a wording, or in the tiny world a number of questions
}

// trainedWith is the data part of a judge's manifest, empty without one.
func trainedWith(dir fs.FS) judgeData {
	var recipe struct {
		Data judgeData `json:"data"`
	}
	m, err := ckpt.ReadManifestFS(dir, ".")
	if err == nil && json.Unmarshal(m.Recipe, &recipe) == nil {
		return recipe.Data
	}
	return judgeData{}
}
