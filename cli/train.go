package cli

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"imagecot/align"
	"imagecot/align/policy"
	"imagecot/backend"
	"imagecot/experiment"
	"imagecot/train"
	"imagecot/train/objective"
)

func (a *app) trainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "train", Short: "Train models: those of the tiny world, and reward models of full size", Args: exactArgs(0, "a subcommand"),
		Long: "Trains what a recipe says. Checkpoints, metrics.jsonl and TensorBoard events go to the output folder; a\n" +
			"run that was stopped goes on from its last checkpoint. The result is OUT/final.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, kind := range []struct{ name, short string }{
		{"tokenizer", "Train the image tokenizer (MAGVIT-v2)"},
		{"generator", "Train the generator (Show-o)"},
		{"dpo", "Move the generator by preference pairs (DPO)"},
		{"iterdpo", "Move the generator by pairs of its own images, in rounds (iterative DPO)"},
		{"correction", "Teach the generator to correct its images (PARM++)"},
		{"guide", "Move the generator by pairs and by a reward model's scores of fresh images"},
		{"sft", "Fine-tune any LLaVA-OneVision into an ORM, PRM, PARM or PARM++ on full-size images"},
		{"judge", "Train a judge (LLaVA-OneVision): zero-shot, ORM, PRM, PARM or PARM++, as the recipe says"},
	} {
		cmd.AddCommand(a.trainKindCommand(kind.name, kind.short))
	}
	cmd.AddCommand(a.trainVocabularyCommand())
	return cmd
}

func (a *app) trainVocabularyCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "vocabulary", Short: "Build the text tokenizer that the tiny generator and judges share",
		Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			text, err := objective.Vocabulary()
			if err != nil {
				return err
			}
			if out == "" {
				_, err := a.stdout.Write(text)
				return err
			}
			return writeFile(out, text)
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to write (default: standard output)")
	return cmd
}

func (a *app) trainKindCommand(kind, short string) *cobra.Command {
	var file, out string
	example := "tiny/" + kind
	switch kind {
	case "guide":
		example = "tiny/guided-orm"
	case "sft":
		example = "full/orm"
	}
	cmd := &cobra.Command{
		Use: kind + " -f RECIPE", Short: short, Args: exactArgs(0, "no arguments"),
		Example: "  imagecot train " + kind + " -f recipes/" + example + ".yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usage("recipes lie in recipes/tiny and recipes/full", "-f is missing: which recipe?")
			}
			r, err := train.ReadRecipe(file)
			if err != nil {
				return missing(cmd.Context(), err, "recipes lie in recipes/tiny and recipes/full")
			}
			if r.Kind != kind {
				return usage("use `imagecot train "+r.Kind+"`", "%s is a recipe for a %s, not for a %s", file, r.Kind, kind)
			}
			if out == "" {
				out = filepath.Join("out", "train", r.Name)
			}
			if err := resolvePresets(&r); err != nil {
				return err
			}
			if err := writable(out); err != nil {
				return err
			}
			backend.KeepMemory()
			be, info, err := backend.Open(a.backend)
			if err != nil {
				return err
			}
			defer be.Finalize()
			if info.Note != "" {
				a.note("%s", info.Note)
			}
			from := policy.Sources{Folders: experiment.ModelFolder, Evaluators: experiment.OpenEvaluator, Wording: experiment.Wording}
			if err := align.Run(cmd.Context(), be, from, r, out, a.stderr); err != nil {
				return missing(cmd.Context(), err, "init_from names a model, data the folders that `imagecot curate` made, from where you are now")
			}
			_, err = fmt.Fprintln(a.stdout, filepath.Join(out, "final"))
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "recipe (YAML)")
	cmd.Flags().StringVarP(&out, "out", "o", "", "folder to write to (default out/train/NAME)")
	return cmd
}

// resolvePresets puts folders in the place of presets that a training from renders starts from or learns with.
func resolvePresets(r *train.Recipe) error {
	if !slices.Contains([]string{"judge", "generator", "tokenizer"}, r.Kind) {
		return nil // found by name, with the text tokenizer of the preset
	}
	dir, ok, err := experiment.Published(r.InitFrom)
	if err != nil {
		return err
	}
	if ok {
		r.InitFrom = dir
	}
	for key, value := range r.Data {
		name, isText := value.(string)
		if !isText || name == "" {
			continue
		}
		if dir, ok, err = experiment.Published(name); err != nil {
			return err
		}
		if ok {
			r.Data[key] = dir
		}
	}
	return nil
}
