package cli

import (
	"github.com/spf13/cobra"

	"imagecot/curate"
	"imagecot/experiment"
	"imagecot/geneval"
)

func (a *app) curateRelabelCommand() *cobra.Command {
	var d curate.Relabelled
	recipe := experiment.Default()
	cmd := &cobra.Command{
		Use: "relabel", Short: "Ranking data again, with images that were drawn for other prompts (an extension)",
		Long: "Judges the images of ranking data by the other prompts of the data: an image that is wrong for its own prompt is often\n" +
			"right for another. Each prompt gets images that are right for it, and images that show all its objects and are wrong.\n" +
			"Pairs are made of both: `imagecot curate pairs --from RANKING,RELABELLED`.",
		Args:    exactArgs(0, "no arguments"),
		Example: "  imagecot curate relabel --from runs/ranking --out runs/relabelled",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.PerPrompt < 1 || d.PartSize < 1 {
				return usage("", "--per-prompt is %d and --part %d, want at least 1", d.PerPrompt, d.PartSize)
			}
			if err := writable(d.Dir); err != nil {
				return err
			}
			recipe.Strategy = "single"
			p, err := a.open(cmd, recipe)
			if err != nil {
				return err
			}
			defer p.Close()
			if err := p.UseGenEval(geneval.Official()); err != nil {
				return err
			}
			d.Generator, d.Judge, d.Progress = p.Generator, p.Look, a.progress("images")
			d.Options = struct {
				Tokenizer string `json:"tokenizer"`
				Detector  string `json:"detector,omitempty"`
			}{p.Models["tokenizer"], p.Models["detector"]}
			if err := d.Run(cmd.Context()); err != nil {
				return err
			}
			return a.printCard(d.Dir)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.From, "from", "out/ranking", "folder of ranking data (imagecot curate ranking), or several: A,B")
	f.IntVar(&d.PerPrompt, "per-prompt", 12, "most images of each label that a prompt gets")
	f.Uint64Var(&d.Seed, "seed", 1, "the same seed looks at the images in the same order")
	f.IntVar(&d.PartSize, "part", 512, "rows a part")
	f.StringVar(&recipe.Generator, "generator", recipe.Generator, "the generator that drew the images; its tokenizer decodes them")
	f.StringVar(&recipe.Tokenizer, "tokenizer", recipe.Tokenizer, "the image tokenizer: tiny or a folder (default: GENERATOR/tokenizer, or tiny)")
	f.StringVarP(&d.Dir, "out", "o", "out/relabelled", "folder to write to")
	return cmd
}
