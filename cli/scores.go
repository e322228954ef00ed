package cli

import (
	"fmt"
	"strconv"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/stats"
	"imagecot/report"
)

// scoresJSON is the object that eval and score print with --json.
type scoresJSON struct {
	Overall float64             `json:"overall"`
	CI95    stats.Interval      `json:"ci95"`
	Tasks   map[string]taskJSON `json:"tasks"`
	Images  int                 `json:"images"`
	Prompts int                 `json:"prompts"`
	Cost    *costJSON           `json:"cost,omitempty"`
}

type taskJSON struct {
	Score float64        `json:"score"`
	CI95  stats.Interval `json:"ci95"`
	N     int            `json:"n"`
}

type costJSON struct {
	DecodingSteps int     `json:"decoding_steps"`
	JudgeCalls    int     `json:"judge_calls"`
	ImagesDecoded int     `json:"images_decoded"`
	Seconds       float64 `json:"seconds"`
}

func newScoresJSON(s geneval.Scores, cost *cot.Cost) scoresJSON {
	out := scoresJSON{Overall: s.Overall, CI95: s.CI95, Tasks: map[string]taskJSON{}, Images: s.Images, Prompts: s.Prompts}
	for _, t := range s.Tasks {
		out.Tasks[t.Tag] = taskJSON{t.Score, t.CI95, t.N}
	}
	if cost != nil {
		c := costJSON(*cost)
		out.Cost = &c
	}
	return out
}

// scoresTable shows scores in the order of the benchmark's tasks, then others, then the overall score.
func scoresTable(s geneval.Scores) report.Table {
	t := report.Table{Header: []string{"task", "score", "95 % interval", "right", "images", "prompts"}}
	add := func(x geneval.TaskScore) {
		t.Rows = append(t.Rows, []string{x.Tag, score(x.Score), interval(x.CI95), strconv.Itoa(x.Correct), strconv.Itoa(x.N), strconv.Itoa(x.Prompts)})
	}
	known := map[string]bool{}
	for _, tag := range geneval.Tasks() {
		known[tag] = true
		if x, ok := s.Task(tag); ok {
			add(x)
		}
	}
	for _, x := range s.Tasks {
		if !known[x.Tag] {
			add(x)
		}
	}
	t.Footer = []string{"overall", score(s.Overall), interval(s.CI95), "", strconv.Itoa(s.Images), strconv.Itoa(s.Prompts)}
	return t
}

func score(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }

func interval(i stats.Interval) string { return fmt.Sprintf("%.3f-%.3f", i[0], i[1]) }

// costLine says what a run spent, for people.
func costLine(c cot.Cost) string {
	return fmt.Sprintf("cost: %d decoding steps, %d judge calls, %d step images decoded, %.1f s", c.DecodingSteps, c.JudgeCalls, c.ImagesDecoded, c.Seconds)
}

// printTable writes a table to standard output in the format that a flag names.
func (a *app) printTable(t report.Table, format string) error {
	s, err := t.Render(report.Format(format))
	if err != nil {
		return usage("formats are text, markdown, csv, html", "%w", err)
	}
	_, err = fmt.Fprint(a.stdout, s)
	return err
}
