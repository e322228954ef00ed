// Package train moves weights: a loop over an Objective with AdamW or Muon, cosine schedule, clipping, moving
// average, accumulation, and checkpoints from which a run continues bit for bit. It knows no model: an Objective brings
// weights, batches and loss.
package train

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"go.yaml.in/yaml/v4"
)

// Recipe is a training run as a YAML file; unknown keys are errors. Field names follow the usual trainers.
type Recipe struct {
	Kind      string  `yaml:"kind" json:"kind"` // tokenizer, generator, judge, dpo, iterdpo, guide, correction or sft
	Name      string  `yaml:"name" json:"name"`
	Seed      uint64  `yaml:"seed" json:"seed"`
	MaxSteps  int     `yaml:"max_steps" json:"max_steps"`
	Batch     int     `yaml:"batch_size" json:"batch_size"`                                   // rows of one forward pass
	Accum     int     `yaml:"gradient_accumulation_steps" json:"gradient_accumulation_steps"` // passes an update, at least 1
	LR        float64 `yaml:"learning_rate" json:"learning_rate"`
	Warmup    int     `yaml:"warmup_steps" json:"warmup_steps"`
	Beta1     float64 `yaml:"adam_beta1" json:"adam_beta1"`
	Beta2     float64 `yaml:"adam_beta2" json:"adam_beta2"`
	Epsilon   float64 `yaml:"adam_epsilon" json:"adam_epsilon"`
	Decay     float64 `yaml:"weight_decay" json:"weight_decay"`
	Clip      float64 `yaml:"max_grad_norm" json:"max_grad_norm"` // global norm; 0 does not clip
	EMA       float64 `yaml:"ema" json:"ema"`                     // decay of the moving average; 0 keeps none
	Groups    []Group `yaml:"groups" json:"groups,omitempty"`     // the first that matches a name decides
	SaveEvery int     `yaml:"save_steps" json:"save_steps"`
	// Recompute keeps the inputs of layers only and computes their insides again for the gradient: a third more time, and of
	// the layers' memory a small part.
	Recompute bool   `yaml:"gradient_checkpointing" json:"gradient_checkpointing,omitempty"`
	LogEvery  int    `yaml:"logging_steps" json:"logging_steps"`
	LoRA      *LoRA  `yaml:"lora" json:"lora,omitempty"`           // trains an adapter in place of the weights
	InitFrom  string `yaml:"init_from" json:"init_from,omitempty"` // checkpoint folder; for alignment also a shipped model or a preset by name
	// Model is the architecture (config.json); Data is read by the objective. Both are checked there.
	Model map[string]any `yaml:"model" json:"model,omitempty"`
	Data  map[string]any `yaml:"data" json:"data,omitempty"`
}

// Group treats the weights whose name matches the regular expression in its own way.
type Group struct {
	Match  string   `yaml:"match" json:"match"`
	Muon   bool     `yaml:"muon" json:"muon,omitempty"`                 // orthogonalised momentum for matrices
	Scale  *float64 `yaml:"lr_scale" json:"lr_scale,omitempty"`         // factor on the learning rate, 1 if absent
	Decay  *float64 `yaml:"weight_decay" json:"weight_decay,omitempty"` // instead of the recipe's
	Freeze bool     `yaml:"freeze" json:"freeze,omitempty"`             // not trained
}

// ErrRecipe marks a recipe that cannot be trained as it is written.
var ErrRecipe = errors.New("recipe")

// RecipeError marks an error of a recipe's content as an ErrRecipe and leaves its words; nil stays nil.
func RecipeError(err error) error {
	if err == nil {
		return nil
	}
	return recipeError{err}
}

type recipeError struct{ error }

func (e recipeError) Unwrap() error        { return e.error }
func (e recipeError) Is(target error) bool { return target == ErrRecipe }

// ReadRecipe reads and checks a recipe file.
func ReadRecipe(path string) (Recipe, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Recipe{}, fmt.Errorf("train: %w", err)
	}
	r, err := ParseRecipe(text)
	if err != nil {
		return r, RecipeError(fmt.Errorf("train: %s: %w", path, err))
	}
	return r, nil
}

// ParseRecipe fills in the defaults, reads the text over them and checks the result.
func ParseRecipe(text []byte) (Recipe, error) {
	r := Recipe{Accum: 1, Beta1: .9, Beta2: .999, Epsilon: 1e-8, Clip: 1, SaveEvery: 500, LogEvery: 50}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&r); err != nil {
		return r, err
	}
	return r, r.check()
}

func (r Recipe) check() error {
	for _, f := range []struct {
		ok   bool
		what string
	}{
		{r.MaxSteps > 0, "max_steps must be positive"},
		{r.Batch > 0, "batch_size must be positive"},
		{r.Accum > 0, "gradient_accumulation_steps must be positive"},
		{r.LR > 0, "learning_rate must be positive"},
		{r.Warmup >= 0 && r.Warmup < r.MaxSteps, "warmup_steps must lie in 0..max_steps-1"},
		{r.Beta1 >= 0 && r.Beta1 < 1 && r.Beta2 >= 0 && r.Beta2 < 1, "adam betas must lie in [0, 1)"},
		{r.Epsilon > 0, "adam_epsilon must be positive"}, // a gradient of exactly 0 would be divided by 0
		{r.EMA >= 0 && r.EMA < 1, "ema must lie in [0, 1)"},
		{r.SaveEvery > 0 && r.LogEvery > 0, "save_steps and logging_steps must be positive"},
	} {
		if !f.ok {
			return fmt.Errorf("%s", f.what)
		}
	}
	return r.LoRA.check()
}
