package experiment

import (
	"testing"

	"imagecot/world"
)

// The evaluator agrees with every label of a question about a render, and half of a task's questions are answered yes.
func TestRenderRowsAreTrue(t *testing.T) {
	yes, rows := map[string]int{}, RenderRows(40, 5)
	for _, r := range rows {
		m, err := world.ParsePrompt(r.Prompt)
		if err != nil {
			t.Fatal(err)
		}
		if m.Tag != r.Task {
			t.Errorf("%q is asked as %s", r.Prompt, r.Task)
		}
		verdict, err := world.Evaluator().Evaluate(t.Context(), r.Image, m)
		if err != nil {
			t.Fatal(err)
		}
		if verdict.Correct != r.Yes {
			t.Errorf("%q is labelled %t: %v", r.Prompt, r.Yes, verdict)
		}
		if r.Yes {
			yes[r.Task]++
		}
	}
	if len(rows) != 240 || len(yes) != 6 {
		t.Errorf("%d rows, tasks %v", len(rows), yes)
	}
	for task, n := range yes {
		if n != 20 {
			t.Errorf("%s: %d of 40 are yes", task, n)
		}
	}
}

// A judge that looks at the image alone is asked about renders without a decoder.
func TestCheckJudgeOnRenders(t *testing.T) {
	p := toyPipeline("orm")
	scores, _, err := p.CheckJudge(t.Context(), "orm", RenderRows(4, 5), nil)
	if err != nil {
		t.Fatal(err)
	}
	if last := scores[len(scores)-1]; last.Task != "all" || last.Rows != 24 {
		t.Errorf("%+v", scores)
	}
}

// The shipped PARM and PARM++ are asked from where their data call images clear, unless the recipe says otherwise; other
// judges from the first step on.
func TestClearFrom(t *testing.T) {
	for _, c := range []struct {
		judge            string
		asked, steps, at int
	}{{"parm", 0, 18, 11}, {"parmpp", 0, 9, 6}, {"parm", 1, 18, 1}, {"judge", 0, 18, 0}, {"folder/parm", 0, 18, 0}, {"judge", 4, 18, 4}} {
		if got := clearFrom(Recipe{ClearFrom: c.asked, Steps: c.steps}, c.judge); got != c.at {
			t.Errorf("%+v: step %d", c, got)
		}
	}
}
