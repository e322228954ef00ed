package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"imagecot/experiment"
	"imagecot/geneval"
	"imagecot/report"
)

func (a *app) compareCommand() *cobra.Command {
	var asJSON, faults bool
	var format string
	cmd := &cobra.Command{
		Use: "compare A B", Short: "Compare two scored runs prompt by prompt",
		Long: "A and B are results.jsonl files or the folders that hold them. Scores are compared on the prompts that\n" +
			"both hold: the difference is B minus A, with a 95 % bootstrap interval over prompts and a two-sided\n" +
			"p-value. --faults counts instead what is wrong with the images of each: objects that are not there, too\n" +
			"many, of another colour, in another place (the first that holds), and how many are right of those that\n" +
			"show all objects.",
		Args: exactArgs(2, "two runs"),
		RunE: func(_ *cobra.Command, args []string) error {
			left, err := experiment.ReadRows(args[0])
			if err != nil {
				return err
			}
			right, err := experiment.ReadRows(args[1])
			if err != nil {
				return err
			}
			if faults {
				return a.compareFaults(left, right, asJSON, format)
			}
			d, err := geneval.Compare(left, right)
			if err != nil {
				return err
			}
			if d.OnlyA+d.OnlyB > 0 {
				a.note("left out: %d prompts that only A holds, %d that only B holds", d.OnlyA, d.OnlyB)
			}
			if asJSON {
				return a.json(d)
			}
			return a.printTable(compareTable(d), format)
		},
	}
	cmd.Flags().BoolVar(&faults, "faults", false, "count what is wrong with the images")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().StringVar(&format, "format", "text", "table format: text, markdown, csv, html")
	return cmd
}

// compareFaults prints what is wrong with the images of two runs.
func (a *app) compareFaults(left, right []geneval.Row, asJSON bool, format string) error {
	var counts struct {
		A []geneval.Faults `json:"a"`
		B []geneval.Faults `json:"b"`
	}
	var err error
	if counts.A, err = geneval.CountFaults(left); err != nil {
		return err
	}
	if counts.B, err = geneval.CountFaults(right); err != nil {
		return err
	}
	if asJSON {
		return a.json(counts)
	}
	t := report.Table{Header: []string{"run", "task", "images", "right", "too few", "too many", "colour", "place", "right of those that show all"}}
	for _, run := range []struct {
		name string
		list []geneval.Faults
	}{{"A", counts.A}, {"B", counts.B}} {
		for _, f := range run.list {
			of := func(n int) string { return score(float64(n) / float64(f.Images)) }
			t.Rows = append(t.Rows, []string{
				run.name, f.Tag, strconv.Itoa(f.Images), of(f.Right), of(f.TooFew), of(f.TooMany), of(f.Colour), of(f.Position), score(f.RightOfShown()),
			})
		}
	}
	return a.printTable(t, format)
}

func compareTable(d geneval.Difference) report.Table {
	t := report.Table{Header: []string{"task", "A", "B", "B-A", "95 % interval", "p", "prompts"}}
	cells := func(name string, x geneval.Delta, prompts string) []string {
		return []string{name, score(x.A), score(x.B), fmt.Sprintf("%+.3f", x.Diff), fmt.Sprintf("%+.3f to %+.3f", x.CI95[0], x.CI95[1]), fmt.Sprintf("%.4f", x.P), prompts}
	}
	all := 0
	for _, x := range d.Tasks {
		t.Rows = append(t.Rows, cells(x.Tag, x.Delta, strconv.Itoa(x.Prompts)))
		all += x.Prompts
	}
	t.Footer = cells("overall", d.Overall, strconv.Itoa(all))
	return t
}
