package cli

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"imagecot/cot"
	"imagecot/experiment"
)

// generatedJSON is what generate prints for one prompt with --json.
type generatedJSON struct {
	Prompt    string   `json:"prompt"`
	Image     string   `json:"image"`
	Trace     string   `json:"trace"`
	Report    string   `json:"report"`
	Winner    int      `json:"winner"` // index of the path
	Reason    string   `json:"reason,omitempty"`
	Paths     int      `json:"paths"`
	Truncated int      `json:"truncated"`
	Cost      costJSON `json:"cost"`
}

func (a *app) generateCommand() *cobra.Command {
	r := experiment.Default()
	var out string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "generate PROMPT...", Short: "Generate an image and keep the whole reasoning",
		Long: "Starts N decoding paths for each prompt, lets the strategy judge and truncate them, and writes the\n" +
			"chosen image with its recipe (image.png), everything that was asked and answered (trace.json) and a page\n" +
			"to look at (report.html). A prompt may also be a file with one prompt a line, or - for standard input;\n" +
			"several prompts get one folder each.",
		Example: `  imagecot generate "a photo of a red circle left of a blue square" --strategy parm -n 8`,
		Args:    atLeast(1, "at least one prompt"),
		RunE: func(cmd *cobra.Command, args []string) error {
			prompts, err := a.readPrompts(args)
			if err != nil {
				return err
			}
			if r.Strategy == "single" {
				r.N = 1
			}
			p, err := a.open(cmd, r)
			if err != nil {
				return err
			}
			defer p.Close()
			for _, text := range prompts { // before the first second is spent
				if err := p.CheckPrompt(text); err != nil {
					return &userError{err: err, code: exitUsage}
				}
			}
			arm, err := p.Arm(r.Strategy)
			if err != nil {
				return err
			}
			if err := writable(out); err != nil {
				return err
			}
			var list []generatedJSON
			for i, text := range prompts {
				dir := out
				if len(prompts) > 1 {
					dir = filepath.Join(out, fmt.Sprintf("%05d", i))
				}
				g, err := a.generateOne(cmd, p, arm, text, dir)
				if err != nil {
					return err
				}
				if list = append(list, g); !asJSON {
					if _, err := fmt.Fprintln(a.stdout, g.Image); err != nil {
						return err
					}
				}
			}
			switch {
			case asJSON && len(list) == 1:
				return a.json(list[0])
			case asJSON:
				return a.json(struct {
					Images []generatedJSON `json:"images"`
				}{list})
			}
			return nil
		},
	}
	a.recipeFlags(cmd, &r)
	cmd.Flags().StringVarP(&out, "out", "o", "out", "folder to write to")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

func (a *app) generateOne(cmd *cobra.Command, p *experiment.Pipeline, arm experiment.Arm, text, dir string) (generatedJSON, error) {
	g, err := p.Generate(cmd.Context(), arm, cot.Prompt{Text: text})
	if err != nil {
		return generatedJSON{}, err
	}
	start := time.Now()
	if err := g.Write(cmd.Context(), dir); err != nil {
		return generatedJSON{}, err
	}
	sel := g.Selection
	w := sel.Traces[sel.WinnerAt]
	res := generatedJSON{
		Prompt: text, Image: filepath.Join(dir, "image.png"), Trace: filepath.Join(dir, "trace.json"), Report: filepath.Join(dir, "report.html"),
		Winner: w.Index, Reason: w.Reason, Paths: len(sel.Traces), Cost: costJSON(sel.Cost),
	}
	for _, t := range sel.Traces {
		if t.TruncatedAt > 0 {
			res.Truncated++
		}
	}
	a.note("%s: path %d of %d, %d truncated; %s (+ %.1f s for the report %s)", sel.Strategy, w.Index, len(sel.Traces), res.Truncated,
		costLine(sel.Cost), time.Since(start).Seconds(), res.Report)
	return res, nil
}
