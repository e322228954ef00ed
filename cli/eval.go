package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"imagecot/experiment"
	"imagecot/geneval"
	"imagecot/report"
	"imagecot/world"
)

// testPrompts reads a prompt file, or returns the shipped test set.
func testPrompts(path string) ([]geneval.Metadata, error) {
	if path == "" {
		return world.TestPrompts(), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cli: prompts: %w", err)
	}
	defer f.Close()
	list, err := geneval.ReadPrompts(f)
	if err != nil {
		return nil, &userError{err: fmt.Errorf("cli: prompts: %s: %w", path, err), code: exitUsage, hint: "`imagecot world prompts` prints prompts in this format"}
	}
	if len(list) == 0 {
		return nil, usage("", "%s holds no prompts", path)
	}
	return list, nil
}

// limitPrompts takes every k-th prompt so that about limit remain, the tasks in proportion.
func limitPrompts(list []geneval.Metadata, limit int) []geneval.Metadata {
	if limit <= 0 || limit >= len(list) {
		return list
	}
	out := make([]geneval.Metadata, 0, limit)
	for i := range limit {
		out = append(out, list[i*len(list)/limit])
	}
	return out
}

// promptsFor are the prompts that were named, or the generator's own: the shipped test set of the tiny world, GenEval's 553 for
// images of full size, which GenEval's own models then evaluate.
func promptsFor(p *experiment.Pipeline, named []geneval.Metadata, path string, limit int) ([]geneval.Metadata, error) {
	list := named
	if path == "" && !p.TinyWorld() {
		list = geneval.Official()
	}
	list = limitPrompts(list, limit)
	if err := p.UseGenEval(list); err != nil {
		return nil, err
	}
	return list, checkAll(p, list)
}

func checkAll(p *experiment.Pipeline, list []geneval.Metadata) error {
	for _, m := range list {
		if err := p.CheckPrompt(m.Prompt); err != nil {
			return &userError{err: err, code: exitUsage}
		}
	}
	return nil
}

func (a *app) evalCommand() *cobra.Command {
	r := experiment.Default()
	var prompts, out, format string
	var images, limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use: "eval", Short: "Run GenEval: images for every prompt, scores with intervals and cost",
		Long: "Chooses --images images for each prompt with the strategy, writes them in GenEval's layout with a trace\n" +
			"each, evaluates them and prints scores of each task and overall. A run that was stopped goes on where it\n" +
			"was; a finished one is only added up again. Without --prompts: the shipped test set of the tiny world,\n" +
			"or for a generator of full size GenEval's 553 prompts, evaluated by GenEval's own models (`imagecot pull\n" +
			"--allow-pickle geneval-detector clip-vit-l-14`).",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := testPrompts(prompts)
			if err != nil {
				return err
			}
			if images < 1 {
				return usage("", "--images is %d, want at least 1", images)
			}
			if r.Strategy == "single" {
				r.N = 1
			}
			p, err := a.open(cmd, r)
			if err != nil {
				return err
			}
			defer p.Close()
			if list, err = promptsFor(p, list, prompts, limit); err != nil {
				return err
			}
			arm, err := p.Arm(r.Strategy)
			if err != nil {
				return err
			}
			if err := writable(out); err != nil {
				return err
			}
			o, err := experiment.Evaluation{
				Recipe: p.Recipe, Models: p.Models, Engine: p.Engine, Prompts: list, Images: images, Dir: out, Generator: p.Generator, Arm: arm,
				Evaluate: p.Evaluate, Encode: p.EncodePNG, Progress: a.progress("images"),
			}.Run(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(newScoresJSON(o.Scores, &o.Cost))
			}
			if err := a.printTable(scoresTable(o.Scores), format); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, costLine(o.Cost))
			return err
		},
	}
	a.recipeFlags(cmd, &r)
	f := cmd.Flags()
	f.StringVar(&prompts, "prompts", "", "prompt file: one metadata object a line")
	f.IntVar(&images, "images", 1, "images a prompt, each chosen from n new paths")
	f.IntVar(&limit, "limit", 0, "use about this many of the prompts, tasks in proportion (0 = all)")
	f.StringVarP(&out, "out", "o", "out/eval", "folder to write to")
	f.StringVar(&format, "format", "text", "table format: text, markdown, csv, html")
	f.BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.AddCommand(a.curvesCommand(), a.judgeCommand(), a.evalCorrectionCommand())
	return cmd
}

func (a *app) curvesCommand() *cobra.Command {
	r := experiment.Default()
	r.Strategy, r.N = "single", 20
	var prompts, out, arms, ns, format string
	var limit int
	cmd := &cobra.Command{
		Use: "curves", Short: "Score several strategies over N from one bank of paths a prompt",
		Long: "Decodes a bank of n paths for each prompt and lets every strategy choose from groups of 1, 2, 4, ... of\n" +
			"them (Fig. 3 of the paper). STRATEGY@JUDGE names a judge, as in orm@judge for the zero-shot one. Writes\n" +
			"curves.csv, curves.svg and results-STRATEGY-N.jsonl for `imagecot compare`. A run that was stopped goes\n" +
			"on where it was.",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := testPrompts(prompts)
			if err != nil {
				return err
			}
			c := experiment.Curves{Dir: out, Progress: a.progress("prompts")}
			for s := range strings.SplitSeq(ns, ",") {
				n, err := strconv.Atoi(strings.TrimSpace(s))
				if err != nil {
					return usage("for example --ns 1,2,4,8", "--ns: %q is not a number", s)
				}
				c.Ns = append(c.Ns, n)
			}
			p, err := a.open(cmd, r)
			if err != nil {
				return err
			}
			defer p.Close()
			if c.Prompts, err = promptsFor(p, list, prompts, limit); err != nil {
				return err
			}
			for s := range strings.SplitSeq(arms, ",") {
				arm, err := p.Arm(strings.TrimSpace(s))
				if err != nil {
					return err
				}
				c.Arms = append(c.Arms, arm)
			}
			if err := writable(out); err != nil {
				return err
			}
			c.Recipe, c.Models, c.Engine, c.Generator, c.Evaluate = p.Recipe, p.Models, p.Engine, p.Generator, p.Evaluate
			res, err := c.Run(cmd.Context())
			if err != nil {
				return err
			}
			return a.writeCurves(out, format, res)
		},
	}
	a.generatorFlags(cmd, &r)
	a.strategyFlags(cmd, &r)
	f := cmd.Flags()
	f.IntVarP(&r.N, "n", "n", r.N, "size of the bank")
	f.StringVar(&arms, "strategies", "single,orm@judge,orm,prm,parm,oracle", "strategies, each with options and a judge if they are not its own, as in threshold:whole:threshold=0.8@orm")
	f.StringVar(&ns, "ns", "1,2,4,8,16,20", "values of N")
	f.StringVar(&prompts, "prompts", "", "prompt file: one metadata object a line")
	f.IntVar(&limit, "limit", 0, "use about this many of the prompts, tasks in proportion (0 = all)")
	f.StringVarP(&out, "out", "o", "out/curves", "folder to write to")
	f.StringVar(&format, "format", "text", "table format: text, markdown, csv, html")
	return cmd
}

// writeCurves writes the files of a finished measurement and prints its table.
func (a *app) writeCurves(out, format string, res experiment.CurveResult) error {
	text, err := report.CurvesCSV(res.Curves)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(out, "curves.csv"), []byte(text)); err != nil {
		return err
	}
	svg, err := report.CurvesSVG("GenEval score over N", res.Curves)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(out, "curves.svg"), svg); err != nil {
		return err
	}
	t := report.Table{Header: []string{"strategy", "N", "overall", "95 % interval"}}
	t.Header = append(append(t.Header, geneval.Tasks()...), "steps", "judge calls")
	for _, c := range res.Curves {
		for _, p := range c.Points {
			name := fmt.Sprintf("results-%s-%d.jsonl", strings.NewReplacer("@", "-", "/", "_", ":", "_").Replace(c.Name), p.N)
			if err := experiment.WriteRows(filepath.Join(out, name), res.Rows[c.Name][p.N]); err != nil {
				return err
			}
			s := res.Scores[c.Name][p.N]
			row := []string{c.Name, strconv.Itoa(p.N), score(p.Value), interval(s.CI95)}
			for _, task := range geneval.Tasks() {
				cell := ""
				if x, ok := s.Task(task); ok {
					cell = score(x.Score)
				}
				row = append(row, cell)
			}
			t.Rows = append(t.Rows, append(row, fmt.Sprintf("%.1f", p.DecodingSteps), fmt.Sprintf("%.1f", p.JudgeCalls)))
		}
	}
	return a.printTable(t, format)
}
