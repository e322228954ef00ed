package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"imagecot/experiment"
	"imagecot/report"
)

// judgeCommand is eval judge: how well a judge tells right from wrong on data that it was not trained on.
func (a *app) judgeCommand() *cobra.Command {
	r := experiment.Default()
	r.Strategy = "single"
	var judge, reward, from string
	var share float64
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use: "judge NAME --from DIR", Short: "Measure a judge on curated data that training leaves out",
		Long: "Asks the judge about the step images of scenes that training leaves out, and prints its accuracy and\n" +
			"the AUC inside a prompt: how often a right image scores higher than a wrong one of the same prompt (and\n" +
			"step). --reward renders asks about rendered scenes instead, 400 questions a task, half of them with one\n" +
			"attribute changed. Data of test prompts (imagecot curate ranking --test) are asked about whole.",
		Args: exactArgs(1, "one judge"),
		RunE: func(cmd *cobra.Command, args []string) error {
			judge = args[0]
			var rows []experiment.CheckRow
			if reward == "renders" {
				rows = experiment.RenderRows(400, r.Seed)
			} else {
				var err error
				if rows, err = experiment.CheckRows(from, reward, share); err != nil {
					return err
				}
			}
			if limit > 0 && limit < len(rows) {
				every := make([]experiment.CheckRow, limit)
				for i := range every {
					every[i] = rows[i*len(rows)/limit]
				}
				rows = every
			}
			p, err := a.open(cmd, r)
			if err != nil {
				return err
			}
			defer p.Close()
			scores, rates, err := p.CheckJudge(cmd.Context(), judge, rows, a.progress("questions"))
			if err != nil {
				return err
			}
			var reasons *experiment.ReasonScore
			if reward == "parmpp" {
				if reasons, err = a.checkReasons(cmd, p, judge, from, share, limit); err != nil {
					return err
				}
			}
			if asJSON {
				return a.json(struct {
					Scores  []experiment.CheckScore `json:"scores"`
					Steps   []experiment.StepRate   `json:"steps"`
					Reasons *experiment.ReasonScore `json:"reasons,omitempty"`
				}{scores, rates, reasons})
			}
			if err := a.printCheck(scores, rates); err != nil || reasons == nil {
				return err
			}
			return a.printReasons(*reasons)
		},
	}
	f := cmd.Flags()
	f.StringVar(&reward, "reward", "orm", "what the data are for: orm (ranking), prm (steps), parm, parmpp (reflection); or renders, which need none")
	f.StringVar(&from, "from", "out/ranking", "folder of curated data")
	f.Float64Var(&share, "validation", .1, "share of the scenes that training leaves out; test prompts always are")
	f.IntVar(&limit, "limit", 0, "ask at most this many questions (0 = all)")
	f.StringVar(&r.Generator, "generator", r.Generator, "the generator, whose tokenizer shows the images")
	f.StringVar(&r.Tokenizer, "tokenizer", r.Tokenizer, "the image tokenizer (default: GENERATOR/tokenizer, or tiny)")
	f.StringVar(&r.Questions, "questions", "", "wording of the questions (default: the judge's own)")
	f.BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

func (a *app) printCheck(scores []experiment.CheckScore, rates []experiment.StepRate) error {
	t := report.Table{Header: []string{"question", "task", "rows", "accuracy", "AUC inside", "groups"}}
	for _, s := range scores {
		auc := ""
		if s.AUC != nil {
			auc = score(*s.AUC)
		}
		t.Rows = append(t.Rows, []string{string(s.Kind), s.Task, strconv.Itoa(s.Rows), score(s.Accuracy), auc, strconv.Itoa(s.Groups)})
	}
	if err := a.printTable(t, "text"); err != nil {
		return err
	}
	t = report.Table{Header: []string{"question", "step", "rows", "says yes", "is yes"}}
	for _, s := range rates {
		t.Rows = append(t.Rows, []string{string(s.Kind), strconv.Itoa(s.Step), strconv.Itoa(s.Rows), score(s.Yes), score(s.True)})
	}
	return a.printTable(t, "text")
}
