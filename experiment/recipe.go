// Package experiment turns a recipe into a pipeline (generator, judge, strategy, evaluator) and a pipeline into rows of
// a table: one prompt with its whole reasoning (generate), GenEval over a prompt file (eval, Tables 1 to 3 of the
// paper), and scores over N (Fig. 3). Long runs keep a journal of finished images on disk and continue after a kill.
// Strategies stay unaware of all this.
package experiment

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Recipe is everything that decides the outcome of a selection, and Backend, which does not.
type Recipe struct {
	Strategy    string  `yaml:"strategy" json:"strategy"`
	N           int     `yaml:"n" json:"n"`               // candidates a selection
	Seed        uint64  `yaml:"seed" json:"seed"`         // run seed
	Steps       int     `yaml:"steps" json:"steps"`       // decoding steps T
	Guidance    float64 `yaml:"guidance" json:"guidance"` // (1+g) conditional - g unconditional
	Temperature float64 `yaml:"temperature" json:"temperature"`
	Generator   string  `yaml:"generator" json:"generator"` // name of a shipped model or a folder
	Tokenizer   string  `yaml:"tokenizer" json:"tokenizer"` // image tokenizer; "" = the one beside the generator, or the shipped one
	Judge       string  `yaml:"judge" json:"judge"`         // the same, or openai:MODEL@URL; "" = the strategy's own
	Questions   string  `yaml:"questions" json:"questions"` // wording; "" = the one that the judge was trained on
	Backend     string  `yaml:"backend" json:"-"`

	// DType is how generator and judges keep their matrices: f32, bf16 or auto (bf16 for large models); "" means auto.
	DType string `yaml:"dtype" json:"dtype,omitempty"`
	// Aspect is how local judges see images: pad, or anyres_max_N (cut into at most N tiles besides); "" means pad (Deviation D12).
	Aspect string `yaml:"aspect" json:"aspect,omitempty"`

	// Options of single strategies; zero values are their defaults.
	ClearFrom    int     `yaml:"clear_from" json:"clear_from,omitempty"`       // parm and what builds on it: first step asked about; 0 means 1, or where the data of judges trained here call images clear
	Rounds       int     `yaml:"rounds" json:"rounds,omitempty"`               // parmpp: corrections at most; 0 means the paper's 3
	NoReflection bool    `yaml:"no_reflection" json:"no_reflection,omitempty"` // parmpp: end with PARM's choice
	Width        int     `yaml:"width" json:"width,omitempty"`                 // beam: paths kept; 0 means the square root of n
	Threshold    float64 `yaml:"threshold" json:"threshold,omitempty"`         // threshold: P(yes) at which it stops; 0 means .9
	Wave         int     `yaml:"wave" json:"wave,omitempty"`                   // threshold: paths decoded together; 0 means 4
	Whole        bool    `yaml:"whole" json:"whole,omitempty"`                 // threshold: finish every path, as the ORM does

	// Official decodes and reads verdicts as the released code does: the re-masking temperature compounds over the steps
	// and is not reset between candidates; one spelling of yes and no counts (deviations D1, D3).
	Official bool `yaml:"official" json:"official,omitempty"`
}

var aspectForm = regexp.MustCompile(`^(pad|anyres_max_[1-9][0-9]{0,2})?$`)

// Strategies lists the names that Recipe.Strategy may have: the paper's, the upper bound, and the extensions.
func Strategies() []string {
	return []string{"single", "orm", "prm", "parm", "parmpp", "oracle", "beam", "search", "threshold", "self"}
}

// Default is the recipe of the tiny world: Show-o's 18 steps, guidance 1.75, re-masking temperature 4.
func Default() Recipe {
	return Recipe{Strategy: "parm", N: 8, Steps: 18, Guidance: 1.75, Temperature: 4, Generator: "tiny", Backend: "auto"}
}

// with is the recipe for a strategy with options: NAME:KEY=VALUE:KEY, keys as in YAML, without a value for true.
func (r Recipe) with(strategy string) (Recipe, error) {
	name, options, _ := strings.Cut(strategy, ":")
	r.Strategy = name
	for option := range strings.SplitSeq(options, ":") {
		key, value, valued := strings.Cut(option, "=")
		var err error
		switch {
		case option == "":
		case key == "clear_from":
			r.ClearFrom, err = strconv.Atoi(value)
		case key == "rounds":
			r.Rounds, err = strconv.Atoi(value)
		case key == "width":
			r.Width, err = strconv.Atoi(value)
		case key == "wave":
			r.Wave, err = strconv.Atoi(value)
		case key == "threshold":
			r.Threshold, err = strconv.ParseFloat(value, 64)
		case key == "whole" && !valued:
			r.Whole = true
		case key == "no_reflection" && !valued:
			r.NoReflection = true
		default:
			err = errors.New("options are clear_from=, rounds=, width=, wave=, threshold=, whole, no_reflection")
		}
		if err != nil {
			return r, fmt.Errorf("experiment: %w: strategy %s: option %q: %w", ErrRecipe, name, option, err)
		}
	}
	return r, r.Validate()
}

// ErrRecipe marks a recipe that cannot be run as it is written.
var ErrRecipe = errors.New("recipe")

// Validate says what is wrong with the recipe, as an ErrRecipe.
func (r Recipe) Validate() error {
	switch {
	case !slices.Contains(Strategies(), r.Strategy):
		return fmt.Errorf("experiment: %w: unknown strategy %q (known: %s)", ErrRecipe, r.Strategy, strings.Join(Strategies(), ", "))
	case r.N < 1:
		return fmt.Errorf("experiment: %w: n is %d, want at least 1", ErrRecipe, r.N)
	case r.N > 1000:
		return fmt.Errorf("experiment: %w: n is %d, want at most 1000", ErrRecipe, r.N)
	case r.Steps < 1 || r.Steps > 1000:
		return fmt.Errorf("experiment: %w: steps is %d, want 1 to 1000", ErrRecipe, r.Steps)
	case !(r.Guidance >= 0 && r.Guidance <= 100):
		return fmt.Errorf("experiment: %w: guidance is %v, want 0 to 100", ErrRecipe, r.Guidance)
	case !(r.Temperature >= 0 && r.Temperature <= 1000):
		return fmt.Errorf("experiment: %w: temperature is %v, want 0 to 1000", ErrRecipe, r.Temperature)
	case !slices.Contains([]string{"", "auto", "f32", "bf16"}, r.DType):
		return fmt.Errorf("experiment: %w: dtype is %q, want auto, f32 or bf16", ErrRecipe, r.DType)
	case !aspectForm.MatchString(r.Aspect):
		return fmt.Errorf("experiment: %w: aspect is %q, want pad or anyres_max_N", ErrRecipe, r.Aspect)
	case r.ClearFrom < 0 || r.ClearFrom > r.Steps:
		return fmt.Errorf("experiment: %w: clear_from is %d, want 1 to %d", ErrRecipe, r.ClearFrom, r.Steps)
	case r.Rounds < 0 || r.Width < 0 || r.Wave < 0:
		return fmt.Errorf("experiment: %w: rounds %d, width %d, wave %d: want at least 0 each", ErrRecipe, r.Rounds, r.Width, r.Wave)
	case !(r.Threshold >= 0):
		return fmt.Errorf("experiment: %w: threshold is %v, want a probability", ErrRecipe, r.Threshold)
	case r.Generator == "":
		return fmt.Errorf("experiment: %w: no generator named", ErrRecipe)
	}
	return nil
}

// ReadRecipe reads a YAML file on top of the given defaults. Unknown keys and further documents are errors.
func ReadRecipe(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("experiment: recipe: %w", err)
	}
	return decodeYAML(path, text, into)
}
