package cli

import (
	"github.com/spf13/cobra"

	"imagecot/curate"
)

func (a *app) curatePairsCommand() *cobra.Command {
	var d curate.PairData
	cmd := &cobra.Command{
		Use: "pairs", Short: "Preference pairs, a right and a wrong image of one prompt, from ranking data (DPO)",
		Args:    exactArgs(0, "no arguments"),
		Example: "  imagecot curate pairs --from runs/ranking --out runs/pairs",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.PerPrompt < 1 || d.PartSize < 1 {
				return usage("", "--per-prompt is %d and --part %d, want at least 1", d.PerPrompt, d.PartSize)
			}
			d.Progress = a.progress("parts")
			if err := d.Run(cmd.Context()); err != nil {
				return err
			}
			return a.printCard(d.Dir)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.From, "from", "out/ranking", "folder of ranking data (imagecot curate ranking), or several: A,B")
	f.IntVar(&d.PerPrompt, "per-prompt", 8, "most pairs of a prompt")
	f.BoolVar(&d.Nearest, "nearest", false, "pair the images first that resemble each other (an extension)")
	f.BoolVar(&d.Present, "present", false, "reject images that show all objects, with wrong colours or places, where the prompt asks for such (an extension)")
	f.BoolVar(&d.Balance, "balance", false, "more pairs a prompt for tasks with fewer prompts, until tasks have equally many")
	f.Uint64Var(&d.Seed, "seed", 1, "the same seed makes the same pairs")
	f.IntVar(&d.PartSize, "part", 512, "pairs a part")
	f.StringVarP(&d.Dir, "out", "o", "out/pairs", "folder to write to")
	return cmd
}
