package tables

import (
	"fmt"
	"strconv"
	"strings"

	"imagecot/geneval"
	"imagecot/internal/stats"
	"imagecot/report"
)

// columns of the six tasks, shorter than their tags.
var columns = []string{"single", "two", "counting", "colours", "position", "binding"}

func number(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

func between(i stats.Interval) string { return number(i[0]) + " to " + number(i[1]) }

func signed(v float64) string { return fmt.Sprintf("%+.3f", v) }

func signedBetween(i stats.Interval) string { return signed(i[0]) + " to " + signed(i[1]) }

// Layout is the table for people: two lines a row, ours and the paper's.
func (t Table) Layout() report.Table {
	out := report.Table{Header: []string{"row"}}
	out.Header = append(append(out.Header, columns...), "overall", "95 % interval", "against baseline", "95 % interval of it", "steps", "judge calls", "seconds", "images")
	for _, r := range t.Rows {
		out.Rows = append(out.Rows, r.ours(len(out.Header)))
		if r.Paper != nil {
			out.Rows = append(out.Rows, r.papers(len(out.Header)))
		}
	}
	return out
}

// ours is the line of what was measured.
func (r Row) ours(width int) []string {
	cells := make([]string, width)
	if cells[0] = r.Title; r.Extension {
		cells[0] += " (extension)"
	}
	if r.found == nil {
		why := "not in this build"
		if r.Absent != "" {
			why = r.Absent
		}
		cells[0] += ": " + why
		return cells
	}
	for i, task := range geneval.Tasks() {
		if x, ok := r.Scores.Task(task); ok {
			cells[1+i] = number(x.Score)
		}
	}
	cells[7], cells[8] = number(r.Scores.Overall), between(r.Scores.CI95)
	if r.Against != nil {
		cells[9], cells[10] = signed(r.Against.Diff), signedBetween(r.Against.CI95)
	}
	cells[11], cells[12], cells[13] = fmt.Sprintf("%.1f", r.Cost.DecodingSteps), fmt.Sprintf("%.1f", r.Cost.JudgeCalls), fmt.Sprintf("%.2f", r.Cost.Seconds)
	cells[14] = strconv.Itoa(r.Images)
	return cells
}

// papers is the line of the paper's numbers.
func (r Row) papers(width int) []string {
	cells := make([]string, width)
	cells[0] = "  the paper"
	for i, v := range r.Paper.Tasks {
		if v != nil {
			cells[1+i] = number(*v)
		}
	}
	cells[7] = number(r.Paper.Overall)
	return cells
}

// Data is the table for programs: one line a row and N, intervals and the paper's numbers in columns of their own.
func (t Table) Data() report.Table {
	out := report.Table{Header: []string{"table", "row", "title", "generator", "strategy", "n", "status"}}
	tasks := append(geneval.Tasks(), "overall")
	for _, kind := range []string{"", "_low", "_high"} {
		for _, task := range tasks {
			out.Header = append(out.Header, task+kind)
		}
	}
	out.Header = append(out.Header, "against_baseline", "against_low", "against_high", "decoding_steps", "judge_calls", "images_decoded", "seconds", "images")
	for _, task := range tasks {
		out.Header = append(out.Header, "paper_"+task)
	}
	exact := func(v float64) string { return strconv.FormatFloat(v, 'f', 4, 64) }
	for _, r := range t.Rows {
		cells := []string{t.Name, r.Name, r.Title, r.Generator, r.Strategy, "", r.status()}
		if r.found == nil {
			cells = append(cells, make([]string, 3*len(tasks)+8)...)
		} else {
			cells[5] = strconv.Itoa(r.found.N)
			var low, high []string
			for _, task := range geneval.Tasks() {
				x, ok := r.Scores.Task(task)
				if !ok {
					cells, low, high = append(cells, ""), append(low, ""), append(high, "")
					continue
				}
				cells, low, high = append(cells, exact(x.Score)), append(low, exact(x.CI95[0])), append(high, exact(x.CI95[1]))
			}
			s := r.Scores
			cells = append(append(cells, exact(s.Overall)), append(append(low, exact(s.CI95[0])), append(high, exact(s.CI95[1]))...)...)
			if r.Against == nil {
				cells = append(cells, "", "", "")
			} else {
				cells = append(cells, exact(r.Against.Diff), exact(r.Against.CI95[0]), exact(r.Against.CI95[1]))
			}
			c := r.Cost
			cells = append(cells, exact(c.DecodingSteps), exact(c.JudgeCalls), exact(c.ImagesDecoded), exact(c.Seconds), strconv.Itoa(r.Images))
		}
		out.Rows = append(out.Rows, append(cells, r.paperCells(exact)...))
	}
	return out
}

func (r Row) paperCells(exact func(float64) string) []string {
	cells := make([]string, 7)
	if r.Paper == nil {
		return cells
	}
	for i, v := range r.Paper.Tasks {
		if v != nil {
			cells[i] = exact(*v)
		}
	}
	cells[6] = exact(r.Paper.Overall)
	return cells
}

func (r Row) status() string {
	switch {
	case r.Absent != "":
		return "not run"
	case r.found == nil:
		return "not in this build"
	}
	return "measured"
}

// Curves are the rows as curves over N.
func (t Table) Curves() []report.Curve {
	var out []report.Curve
	for _, r := range t.Rows {
		c := report.Curve{Name: r.Title}
		for _, x := range r.Curve {
			c.Points = append(c.Points, report.Point{
				N: x.N, Value: x.Overall, Lo: x.CI95[0], Hi: x.CI95[1], DecodingSteps: x.Cost.DecodingSteps, JudgeCalls: x.Cost.JudgeCalls,
			})
		}
		if c.Points != nil {
			out = append(out, c)
		}
	}
	return out
}

// CurveLayout shows every point of a figure.
func (t Table) CurveLayout() report.Table {
	out := report.Table{Header: []string{"curve", "N", "overall", "95 % interval", "steps", "judge calls", "seconds", "images", "the paper"}}
	for _, r := range t.Rows {
		if r.found == nil {
			out.Rows = append(out.Rows, []string{r.ours(15)[0], "", "", "", "", "", "", "", ""})
			continue
		}
		for i, x := range r.Curve {
			p := ""
			if i == len(r.Curve)-1 && r.Paper != nil {
				p = number(r.Paper.Overall)
			}
			out.Rows = append(out.Rows, []string{
				r.Title, strconv.Itoa(x.N), number(x.Overall), between(x.CI95),
				fmt.Sprintf("%.1f", x.Cost.DecodingSteps), fmt.Sprintf("%.1f", x.Cost.JudgeCalls), fmt.Sprintf("%.2f", x.Cost.Seconds), strconv.Itoa(x.Images), p,
			})
		}
	}
	return out
}

// ClaimsLayout is the table of verdicts: one line a claim, one a comparison.
func (r Results) ClaimsLayout() report.Table {
	out := report.Table{Header: []string{"claim", "verdict", "A - B", "95 % interval", "asked for", "the paper", "prompts", "steps A, B", "judge calls A, B"}}
	for _, c := range r.Claims {
		why := c.Untested
		out.Rows = append(out.Rows, []string{c.Claim.Claim + " (" + c.Source + ")", string(c.Verdict), "", "", why, "", "", "", ""})
		for _, e := range c.Evidence {
			cells := []string{"  " + e.A + " - " + e.B, string(e.Verdict), "", "", e.Condition, "", "", "", ""}
			if e.Paper != nil {
				cells[5] = fmt.Sprintf("%+.2f", *e.Paper)
			}
			if e.Missing != "" {
				cells[4] += "; not in this build: " + strings.SplitN(e.Missing, ":", 2)[0]
			} else {
				cells[2], cells[3] = signed(e.Diff), signedBetween(e.CI95)
				cells[6] = strconv.Itoa(e.Prompts)
				cells[7], cells[8] = fmt.Sprintf("%.1f, %.1f", e.StepsA, e.StepsB), fmt.Sprintf("%.1f, %.1f", e.CallsA, e.CallsB)
			}
			out.Rows = append(out.Rows, cells)
		}
	}
	return out
}
