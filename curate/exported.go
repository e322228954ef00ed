package curate

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"imagecot/cot"
	"imagecot/verify/questions"
)

// exported is a row of any data set on its way to another format.
type exported struct {
	tokens []int32
	good   []int32 // of the good image, where the row is a couple and tokens are the bad image's
	row    pictureRow
	talks  []answered // conversations about the image
}

// exportable reads a data set, whatever kind its recipe.json says it is.
func exportable(dir string) ([]exported, error) {
	kind, err := kindOf(dir)
	if err != nil {
		return nil, fmt.Errorf("curate: export: %w", err)
	}
	var rows []exported
	switch kind {
	case "ranking":
		rows, err = convert(dir, Image.export)
	case "steps":
		rows, err = convert(dir, Step.export)
	case "parm":
		rows, err = convert(dir, Parm.export)
	case "reflection":
		rows, err = convert(dir, Reflected.export)
	case "pairs":
		rows, err = convert(dir, func(p Pair) exported {
			return exported{tokens: p.Rejected, good: p.Chosen, row: pictureRow{Task: p.Task, Prompt: p.Prompt, Metadata: p.Metadata}}
		})
	case "correction":
		rows, err = convert(dir, func(c Correction) exported {
			return exported{tokens: c.Bad, good: c.Good, row: pictureRow{Task: c.Task, Prompt: c.Prompt, Metadata: c.Metadata, Reason: c.Reason}}
		})
	default:
		return nil, fmt.Errorf("curate: export: %s is a data set of kind %q, want ranking, steps, parm, reflection, pairs or correction", dir, kind)
	}
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("curate: export: %s holds no rows", dir)
	}
	return rows, err
}

// kindOf is the kind of a data set, as its recipe.json says.
func kindOf(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "recipe.json"))
	if err != nil {
		return "", err
	}
	var id struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(text, &id); err != nil {
		return "", fmt.Errorf("%s/recipe.json: %w", dir, err)
	}
	return id.Kind, nil
}

func convert[Row any](dir string, one func(Row) exported) ([]exported, error) {
	rows, err := Read[Row](dir)
	if err != nil {
		return nil, err
	}
	out := make([]exported, len(rows))
	for i, r := range rows {
		out[i] = one(r)
	}
	return out, nil
}

// wording puts labels into conversations.
type wording struct{ set questions.Set }

// answered is a conversation before it is put into words: its last question with the answer.
type answered struct {
	kind   cot.QuestionKind
	answer string
}

// talk is a conversation: a question with its answer, after the turns that precede it.
func (w wording) talk(prompt string, a answered) []Turn {
	p := cot.Prompt{Text: prompt}
	var out []Turn
	for _, t := range w.set.After(a.kind, p) {
		out = append(out, Turn{precedes[a.kind], t})
	}
	return append(out, Turn{a.kind, cot.Turn{Text: w.set.Text(a.kind, p), Answer: a.answer}})
}

// precedes names the question whose answer a kind of question follows.
var precedes = map[cot.QuestionKind]cot.QuestionKind{cot.Potential: cot.Clarity, cot.Reason: cot.Reflection}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// word is a label as it is answered, "" for one that was not asked.
func word(l Label) string {
	switch l {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return ""
}

func (i Image) export() exported {
	label := yesNo(i.Correct)
	var tokens []int32
	if i.Steps > 0 {
		tokens = i.Final()
	}
	return exported{
		tokens: tokens,
		row:    pictureRow{Task: i.Task, Prompt: i.Prompt, Metadata: i.Metadata, Path: i.Path, Step: i.Steps, Outcome: label},
		talks:  []answered{{cot.Outcome, label}},
	}
}

func (s Step) export() exported {
	label := yesNo(s.Yes())
	return exported{
		tokens: s.Sample,
		row:    pictureRow{Task: s.Task, Prompt: s.Prompt, Metadata: s.Metadata, Path: s.Path, Step: s.Step, Process: label},
		talks:  []answered{{cot.Process, label}},
	}
}

// export asks clarity and, after a yes, potential in one conversation; the outcome is another one. An image that is not clear is
// asked for nothing more, even where its potential is labelled (Deviation D26): the conversation would call it clear.
func (r Parm) export() exported {
	x := exported{tokens: r.Sample, row: pictureRow{
		Task: r.Task, Prompt: r.Prompt, Metadata: r.Metadata, Path: r.Path, Step: r.Step,
		Clear: word(Label(r.Clarity)), Hope: word(Label(r.Potential)), Outcome: word(Label(r.Outcome)),
	}}
	switch {
	case x.row.Clear == "no":
		x.talks = append(x.talks, answered{cot.Clarity, x.row.Clear})
	case x.row.Hope != "":
		x.talks = append(x.talks, answered{cot.Potential, x.row.Hope})
	case x.row.Clear != "":
		x.talks = append(x.talks, answered{cot.Clarity, x.row.Clear})
	}
	if x.row.Outcome != "" {
		x.talks = append(x.talks, answered{cot.Outcome, x.row.Outcome})
	}
	return x
}

func (r Reflected) export() exported {
	x := exported{tokens: r.Image, row: pictureRow{
		Task: r.Task, Prompt: r.Prompt, Metadata: r.Metadata, Path: r.Path, Outcome: yesNo(r.Correct), Reason: r.Reason,
	}}
	if r.Correct {
		x.talks = []answered{{cot.Reflection, "yes"}}
	} else {
		x.talks = []answered{{cot.Reason, r.Reason}}
	}
	return x
}
