package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"imagecot/experiment"
	"imagecot/report"
)

// evalCorrectionCommand is eval correction: how well a generator corrects images whose faults are known.
func (a *app) evalCorrectionCommand() *cobra.Command {
	r := experiment.Default()
	r.Strategy, r.Generator = "single", "correction"
	var from string
	var share float64
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use: "correction --from DIR", Short: "Measure a generator's self-correction on curated data that training leaves out",
		Long: "Corrects wrong images of scenes that training leaves out, once each, with the reason that the data\n" +
			"give. Prints how many are right then, how many without a reason, how many if drawn anew from the prompt\n" +
			"alone, and the share of tokens kept. Data of test prompts (imagecot curate ranking --test) are taken whole.",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.open(cmd, r)
			if err != nil {
				return err
			}
			defer p.Close()
			scores, err := p.CheckCorrection(cmd.Context(), from, share, limit, a.progress("images"))
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(scores)
			}
			t := report.Table{Header: []string{"task", "images", "corrected", "without a reason", "drawn anew", "tokens kept"}}
			for _, s := range scores {
				of := func(n int) string { return score(float64(n) / float64(s.Images)) }
				t.Rows = append(t.Rows, []string{s.Task, strconv.Itoa(s.Images), of(s.Corrected), of(s.Silent), of(s.Plain), score(s.Kept)})
			}
			return a.printTable(t, "text")
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "out/correction", "folder of self-correction data (imagecot curate correction)")
	f.Float64Var(&share, "validation", .1, "share of the scenes that training leaves out; test prompts always are")
	f.IntVar(&limit, "limit", 100, "correct at most this many images (0 = all)")
	a.generatorFlags(cmd, &r)
	f.BoolVar(&asJSON, "json", false, "one JSON list")
	return cmd
}

// checkReasons asks a judge for reasons.
func (a *app) checkReasons(cmd *cobra.Command, p *experiment.Pipeline, judge, from string, share float64, limit int) (*experiment.ReasonScore, error) {
	rows, err := experiment.ReasonRows(from, share, limit)
	if err != nil {
		return nil, err
	}
	score, err := p.CheckReasons(cmd.Context(), judge, rows, a.progress("reasons"))
	return &score, err
}

// printReasons says how well a judge tells what is wrong.
func (a *app) printReasons(s experiment.ReasonScore) error {
	of := func(n int) float64 { return float64(n) / float64(max(s.Rows, 1)) }
	_, err := fmt.Fprintf(a.stdout, "reasons of %d wrong images: %.3f as the data say, %.3f with a clause of it\n", s.Rows, of(s.Same), of(s.Partly))
	return err
}
