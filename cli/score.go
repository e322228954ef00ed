package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"imagecot/experiment"
	"imagecot/geneval"
	"imagecot/world"
)

func (a *app) scoreCommand() *cobra.Command {
	var asJSON bool
	var format, out string
	cmd := &cobra.Command{
		Use: "score DIR", Short: "Score a folder of images in GenEval's layout",
		Long: "Evaluates DIR/00000/samples/*.png against DIR/00000/metadata.jsonl with the tiny world's detector, writes\n" +
			"results.jsonl and prints the scores of each task and overall.",
		Args: exactArgs(1, "one folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			rows, err := experiment.Score(cmd.Context(), args[0], world.Evaluator().Evaluate, readImage, a.progress("images"))
			if err != nil {
				return err
			}
			if out == "" {
				out = filepath.Join(args[0], "results.jsonl")
			}
			if err := experiment.WriteRows(out, rows); err != nil {
				return err
			}
			s, err := geneval.Score(rows)
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(newScoresJSON(s, nil))
			}
			return a.printTable(scoresTable(s), format)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().StringVar(&format, "format", "text", "table format: text, markdown, csv, html")
	cmd.Flags().StringVarP(&out, "out", "o", "", "results file (default DIR/results.jsonl)")
	return cmd
}
