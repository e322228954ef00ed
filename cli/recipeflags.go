package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"imagecot/experiment"
	"imagecot/verify/questions"
)

// recipeFlags adds the flags that every command with a pipeline has, on top of the defaults in r.
func (a *app) recipeFlags(cmd *cobra.Command, r *experiment.Recipe) {
	f := cmd.Flags()
	f.StringVar(&r.Strategy, "strategy", r.Strategy, "how to choose: "+strings.Join(experiment.Strategies(), ", "))
	f.IntVarP(&r.N, "n", "n", r.N, "candidates, the paths that start")
	a.generatorFlags(cmd, r)
	f.StringVar(&r.Judge, "judge", r.Judge, "who answers: a shipped model, a folder, or openai:MODEL@URL (default: the strategy's own)")
	f.StringVar(&r.Questions, "questions", r.Questions, "wording of the questions: "+strings.Join(questions.Names(), ", ")+" (default: the judge's own)")
}

// generatorFlags adds the flags that decide how paths are decoded.
func (a *app) generatorFlags(cmd *cobra.Command, r *experiment.Recipe) {
	f := cmd.Flags()
	f.Uint64Var(&r.Seed, "seed", r.Seed, "run seed; the same seed gives the same image")
	f.IntVar(&r.Steps, "steps", r.Steps, "decoding steps")
	f.Float64Var(&r.Guidance, "guidance", r.Guidance, "classifier-free guidance g: (1+g) conditional - g unconditional")
	f.Float64Var(&r.Temperature, "temperature", r.Temperature, "temperature of re-masking (the paper: 1); 0 always keeps the most confident tokens")
	f.StringVar(&r.Generator, "generator", r.Generator, "the generator: tiny or a folder")
	f.StringVar(&r.Tokenizer, "tokenizer", r.Tokenizer, "the image tokenizer: tiny or a folder (default: GENERATOR/tokenizer, or tiny)")
}

// open checks the recipe and loads its models.
func (a *app) open(cmd *cobra.Command, r experiment.Recipe) (*experiment.Pipeline, error) {
	r.Backend = a.backend
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return experiment.Open(cmd.Context(), r, a.note)
}
