package cli

import (
	"slices"
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
	a.strategyFlags(cmd, r)
	f.StringVar(&r.Judge, "judge", r.Judge, "who answers: a shipped model, a preset, a folder, or openai:MODEL@URL (default: the strategy's own)")
	f.StringVar(&r.Aspect, "aspect", r.Aspect, "how local judges see images: pad, or anyres_max_N, cut into at most N tiles besides (default pad, as the paper asks)")
	f.StringVar(&r.Questions, "questions", r.Questions, "wording of the questions: "+strings.Join(questions.Names(), ", ")+" (default: the judge's own)")
}

// generatorFlags adds the flags that decide how paths are decoded.
func (a *app) generatorFlags(cmd *cobra.Command, r *experiment.Recipe) {
	f := cmd.Flags()
	f.Uint64Var(&r.Seed, "seed", r.Seed, "run seed; the same seed gives the same image")
	f.IntVar(&r.Steps, "steps", r.Steps, "decoding steps")
	f.Float64Var(&r.Guidance, "guidance", r.Guidance, "classifier-free guidance g: (1+g) conditional - g unconditional")
	f.Float64Var(&r.Temperature, "temperature", r.Temperature, "temperature of re-masking (the paper: 1); 0 always keeps the most confident tokens")
	f.StringVar(&r.Generator, "generator", r.Generator, "the generator: tiny, one of its variants (dpo, correction, ...; see imagecot models list), a preset (see imagecot models presets), hf:ORG/NAME or a folder; parmpp, which corrects images, takes correction if none is named")
	f.StringVar(&r.DType, "dtype", r.DType, "how generator and judge keep their matrices: f32, bf16 or auto (bf16 for large models; half the memory, products of bf16 with float32 sums)")
	f.StringVar(&r.Tokenizer, "tokenizer", r.Tokenizer, "the image tokenizer: tiny, a preset or a folder (default: the generator's own)")
}

// strategyFlags adds the options of single strategies, and --official.
func (a *app) strategyFlags(cmd *cobra.Command, r *experiment.Recipe) {
	f := cmd.Flags()
	f.IntVar(&r.ClearFrom, "clear-from", r.ClearFrom, "for parm and what builds on it: the first step whose image is judged (default: 11 of 18 for judges trained here as parm or parmpp, where their data call images clear; else 1)")
	f.IntVar(&r.Rounds, "rounds", r.Rounds, "for parmpp: corrections at most (default 3)")
	f.BoolVar(&r.NoReflection, "no-reflection", r.NoReflection, "for parmpp: end with PARM's choice")
	f.IntVar(&r.Width, "width", r.Width, "beam: paths that are kept (default the square root of n)")
	f.Float64Var(&r.Threshold, "threshold", r.Threshold, "threshold: P(yes) at which it stops (default 0.9)")
	f.IntVar(&r.Wave, "wave", r.Wave, "threshold: paths decoded together (default 4)")
	f.BoolVar(&r.Whole, "whole", r.Whole, "threshold: finish every path and ask the ORM, instead of truncating as PARM does")
	f.BoolVar(&r.Official, "official", r.Official, "as the authors' code: re-masking temperature 1 that compounds and is never set back, one spelling of yes and no")
}

// officialTemperature is the authors' re-masking temperature.
const officialTemperature = 1

// correctingGenerator is the shipped generator that was tuned to correct its images, the default of PARM++.
const correctingGenerator = "correction"

// open checks the recipe and loads its models. A preset's decoding does not touch the keys in own, for which the command has
// defaults of its own.
func (a *app) open(cmd *cobra.Command, r experiment.Recipe, own ...string) (*experiment.Pipeline, error) {
	r.Backend = a.backend
	if r.Strategy == "parmpp" && !r.NoReflection && !cmd.Flags().Changed("generator") {
		r.Generator = correctingGenerator
	}
	r.ApplyPreset(func(key string) bool { return cmd.Flags().Changed(key) || slices.Contains(own, key) })
	if f := cmd.Flags().Lookup("temperature"); r.Official && f != nil && !f.Changed {
		r.Temperature = officialTemperature
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return experiment.Open(cmd.Context(), r, a.note)
}
