package experiment

import (
	"context"
	"fmt"
	"image"
	"slices"
	"strings"

	"imagecot/cot"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/prng"
	"imagecot/verify/questions"
	"imagecot/world"
)

// CheckRow is one labelled step image that a judge is asked about.
type CheckRow struct {
	Kind   cot.QuestionKind
	Task   string
	Prompt string
	Step   int
	Tokens []int32
	Yes    bool
	Image  image.Image // instead of Tokens; renders
}

// CheckRows reads the rows of curated data that training leaves out: ranking data ask the outcome, step data the process, PARM data
// clarity, potential and outcome, reflection data the reflection. Training leaves these scenes out, so models may be chosen by them; data of test prompts
// are read whole, and measure only.
func CheckRows(dir, reward string, share float64) ([]CheckRow, error) {
	var out []CheckRow
	add := func(scene string, row CheckRow) {
		if curate.LeftOut(scene, share) {
			out = append(out, row)
		}
	}
	switch reward {
	case "orm":
		rows, err := curate.Read[curate.Image](dir)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			add(r.Scene(), CheckRow{Kind: cot.Outcome, Task: r.Task, Prompt: r.Prompt, Step: int(r.Steps), Tokens: r.Final(), Yes: r.Correct})
		}
	case "prm":
		rows, err := curate.Read[curate.Step](dir)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			add(r.Scene(), CheckRow{Kind: cot.Process, Task: r.Task, Prompt: r.Prompt, Step: int(r.Step), Tokens: r.Sample, Yes: r.Yes()})
		}
	case "parm":
		rows, err := curate.Read[curate.Parm](dir)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			for _, q := range []struct {
				kind  cot.QuestionKind
				label int32
			}{{cot.Clarity, r.Clarity}, {cot.Potential, r.Potential}, {cot.Outcome, r.Outcome}} {
				if l := curate.Label(q.label); l != curate.NotAsked {
					add(r.Scene(), CheckRow{Kind: q.kind, Task: r.Task, Prompt: r.Prompt, Step: int(r.Step), Tokens: r.Sample, Yes: l == curate.Yes})
				}
			}
		}
	case "parmpp":
		rows, err := curate.Read[curate.Reflected](dir)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			add(r.Scene(), CheckRow{Kind: cot.Reflection, Task: r.Task, Prompt: r.Prompt, Tokens: r.Image, Yes: r.Correct})
		}
	default:
		return nil, fmt.Errorf("experiment: %w: %q is no reward model (orm, prm, parm, parmpp)", ErrRecipe, reward)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("experiment: %w: no validation prompt in %s at a share of %v", ErrRecipe, dir, share)
	}
	return out, nil
}

// RenderRows are outcome questions about rendered scenes as the zero-shot judge's later stages see them, n a task: in turn a
// prompt that the scene satisfies, and one that it misses by one attribute.
func RenderRows(n int, seed uint64) []CheckRow {
	rng := prng.New(seed, 0, prng.Scene).Rand()
	var out []CheckRow
	for _, task := range geneval.Tasks() {
		for kept := 0; kept < n; {
			scene, yes := world.JudgeMix.Draw(rng), kept%2 == 0
			draw := world.HardNegative
			if yes {
				draw = world.TruePrompt
			}
			if m, ok := draw(rng, scene, task); ok {
				out = append(out, CheckRow{Kind: cot.Outcome, Task: task, Prompt: m.Prompt, Yes: yes, Image: world.Render(scene)})
				kept++
			}
		}
	}
	return out
}

// CheckScore is how well a judge answers one kind of question, over one task or all.
type CheckScore struct {
	Kind     cot.QuestionKind `json:"question"`
	Task     string           `json:"task"` // "all" for all
	Rows     int              `json:"rows"`
	Accuracy float64          `json:"accuracy"` // share of right answers
	AUC      *float64         `json:"auc_inside_prompt,omitempty"`
	Groups   int              `json:"groups"` // prompts (and steps) with both labels, over which the AUC is a mean
}

// StepRate is the share of yes to one kind of question at one step.
type StepRate struct {
	Kind cot.QuestionKind `json:"question"`
	Step int              `json:"step"`
	Rows int              `json:"rows"`
	Yes  float64          `json:"yes"`
	True float64          `json:"true"` // share of yes among the labels
}

// CheckJudge asks a judge about every row and compares with the labels.
func (p *Pipeline) CheckJudge(ctx context.Context, judge string, rows []CheckRow, progress func(done, total int)) ([]CheckScore, []StepRate, error) {
	j, err := p.judge(judge)
	if err != nil {
		return nil, nil, err
	}
	set := p.Recipe.Questions
	if set == "" {
		set = j.questions
	}
	words, err := questions.Get(set)
	if err != nil {
		return nil, nil, fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
	}
	verdicts := make([]cot.Verdict, 0, len(rows))
	for chunk := range slices.Chunk(rows, 64) {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		paths := make([]*cot.Path, len(chunk))
		for i, r := range chunk {
			paths[i] = &cot.Path{Index: i, Prompt: cot.Prompt{Text: r.Prompt}, Step: r.Step, Sample: r.Tokens}
		}
		imgs := make([]image.Image, len(chunk))
		if chunk[0].Image == nil {
			if imgs, err = p.Generator.Decode(ctx, paths); err != nil {
				return nil, nil, err
			}
		}
		qs := make([]cot.Question, len(chunk))
		for i, r := range chunk {
			qs[i] = words.Ask(r.Kind, paths[i])
			qs[i].Image = imgs[i]
			if r.Image != nil {
				qs[i].Image = r.Image
			}
		}
		vs, err := j.Judge.Ask(ctx, qs)
		if err != nil {
			return nil, nil, err
		}
		if verdicts = append(verdicts, vs...); progress != nil {
			progress(len(verdicts), len(rows))
		}
	}
	return checkScores(rows, verdicts), stepRates(rows, verdicts), nil
}

func checkScores(rows []CheckRow, verdicts []cot.Verdict) []CheckScore {
	var out []CheckScore
	for _, kind := range []cot.QuestionKind{cot.Clarity, cot.Potential, cot.Process, cot.Outcome, cot.Reflection} {
		for _, task := range append(geneval.Tasks(), "all") {
			s := CheckScore{Kind: kind, Task: task}
			var items []curate.Item
			var scores []float64
			right := 0
			for i, r := range rows {
				if r.Kind != kind || (task != "all" && r.Task != task) {
					continue
				}
				group := fmt.Sprint(r.Prompt, "@", r.Step)
				if kind == cot.Clarity {
					group = r.Prompt
				}
				items = append(items, curate.Item{Task: r.Task, Group: group, Yes: r.Yes})
				scores = append(scores, verdicts[i].LogPYes-verdicts[i].LogPNo)
				if verdicts[i].Yes() == r.Yes {
					right++
				}
			}
			if s.Rows = len(items); s.Rows == 0 {
				continue
			}
			s.Accuracy = float64(right) / float64(s.Rows)
			auc, groups := curate.InsideAUC(items, scores)
			if s.Groups = groups; groups > 0 {
				s.AUC = &auc
			}
			out = append(out, s)
		}
	}
	return out
}

func stepRates(rows []CheckRow, verdicts []cot.Verdict) []StepRate {
	type key struct {
		kind cot.QuestionKind
		step int
	}
	type tally struct{ n, yes, truth int }
	by := map[key]*tally{}
	for i, r := range rows {
		k := key{r.Kind, r.Step}
		if by[k] == nil {
			by[k] = &tally{}
		}
		t := by[k]
		t.n++
		if verdicts[i].Yes() {
			t.yes++
		}
		if r.Yes {
			t.truth++
		}
	}
	var out []StepRate
	for k, t := range by {
		out = append(out, StepRate{k.kind, k.step, t.n, float64(t.yes) / float64(t.n), float64(t.truth) / float64(t.n)})
	}
	slices.SortFunc(out, func(a, b StepRate) int {
		if a.Kind != b.Kind {
			return strings.Compare(string(a.Kind), string(b.Kind))
		}
		return a.Step - b.Step
	})
	return out
}
