package experiment

import (
	"context"
	"errors"
	"fmt"
	"image"
	"slices"
	"strings"

	"imagecot/cot"
	"imagecot/curate"
	"imagecot/tiny"
	"imagecot/verify/beam"
	"imagecot/verify/bestofn"
	"imagecot/verify/orm"
	"imagecot/verify/parm"
	"imagecot/verify/parmpp"
	"imagecot/verify/prm"
	"imagecot/verify/questions"
	"imagecot/verify/search"
	"imagecot/verify/selfverify"
	"imagecot/verify/single"
	"imagecot/verify/threshold"
	"imagecot/world"
)

// Arm makes a strategy from its name, which may be followed by options of its own and a judge of its own instead of the
// recipe's: threshold:whole:threshold=0.8@orm.
func (p *Pipeline) Arm(spec string) (Arm, error) {
	strategy, judgeName, own := strings.Cut(spec, "@")
	r, err := p.Recipe.with(strategy)
	if err != nil {
		return Arm{}, err
	}
	name := r.Strategy
	switch name {
	case "single":
		return Arm{Name: spec, Strategy: single.Strategy{}, WholePaths: true, OnePath: true}, nil
	case "oracle":
		if !p.tinyWorld() {
			return Arm{}, fmt.Errorf("experiment: %w: the oracle knows the tiny world only", ErrRecipe)
		}
		return Arm{Name: spec, Strategy: bestofn.Strategy{Name: "oracle", Score: p.oracle}, WholePaths: true}, nil
	}
	if !own {
		judgeName = r.Judge
	}
	if judgeName == "" {
		judgeName = p.ownJudge(r)
	}
	j, err := p.judge(judgeName)
	if err != nil {
		return Arm{}, err
	}
	set := r.Questions
	if set == "" {
		set = j.questions
	}
	words, err := questions.Get(set)
	if err != nil {
		return Arm{}, fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
	}
	a := Arm{
		Name: spec, judge: j.memoJudge, WholePaths: name == "orm" || name == "self",
		Forks: name == "prm" || name == "beam" || name == "search" || name == "parmpp",
	}
	r.ClearFrom = clearFrom(r, j.trained)
	a.Strategy, err = p.judged(r, j, words)
	if s, ok := a.Strategy.(parmpp.Strategy); ok && s.Corrector != nil {
		a.corrector = p.corrector
	}
	return a, err
}

// clearFrom is the first step that PARM asks about, 0 for the first of all: the recipe's, or for judges that were trained as PARM
// or PARM++ here the one after which their data call images clear (11 of 18, Deviation D6).
func clearFrom(r Recipe, trained string) int {
	if r.ClearFrom > 0 || trained != "parm" && trained != "parmpp" {
		return r.ClearFrom
	}
	return curate.DefaultParmLabels(r.Steps).ClearAfter
}

// judged makes a strategy that asks a judge.
func (p *Pipeline) judged(r Recipe, j openedJudge, words questions.Set) (cot.Strategy, error) {
	if j.tokens && r.Strategy != "self" {
		return nil, fmt.Errorf("experiment: %w: the judge self reads tokens; it belongs to the strategy self", ErrRecipe)
	}
	judge := j.memoJudge
	switch r.Strategy {
	case "orm":
		return orm.Strategy{Judge: judge, Questions: words}, nil
	case "prm":
		return prm.Strategy{Judge: judge, Questions: words}, nil
	case "parm":
		return parm.Strategy{Judge: judge, Questions: words, From: r.ClearFrom}, nil
	case "parmpp":
		return p.parmpp(r, judge, words)
	case "beam":
		return beam.Strategy{Judge: judge, Questions: words, Width: r.Width}, nil
	case "search":
		return search.Strategy{Judge: judge, Questions: words, From: r.ClearFrom}, nil
	case "threshold":
		return threshold.Strategy{Judge: judge, Questions: words, Threshold: r.Threshold, Wave: r.Wave, Whole: r.Whole, From: r.ClearFrom}, nil
	case "self":
		if !j.tokens {
			return nil, fmt.Errorf("experiment: %w: the strategy self asks the generator, no other judge", ErrRecipe)
		}
		return selfverify.Strategy{Judge: judge, Questions: words}, nil
	}
	return nil, fmt.Errorf("experiment: %w: no strategy %q asks a judge", ErrRecipe, r.Strategy)
}

// parmpp needs a judge that writes and a generator that corrects, unless it does not reflect.
func (p *Pipeline) parmpp(r Recipe, judge *memoJudge, words questions.Set) (cot.Strategy, error) {
	s := parmpp.Strategy{Judge: judge, Questions: words, Rounds: r.Rounds, From: r.ClearFrom, NoReflection: r.NoReflection}
	if r.NoReflection {
		return s, nil
	}
	if _, ok := judge.Judge.(cot.Explainer); !ok {
		return nil, fmt.Errorf("experiment: %w: this judge gives no reasons in words, which PARM++ needs", ErrRecipe)
	}
	corrector, ok := p.Generator.(cot.Corrector)
	if !ok {
		return nil, fmt.Errorf("experiment: %w: the generator %s does not correct images, which PARM++ needs: take the generator correction",
			ErrRecipe, r.Generator)
	}
	shipped := slices.ContainsFunc(tiny.Models(), func(m tiny.Model) bool { return m.Name == r.Generator })
	if r.Generator == "tiny" || shipped && r.Generator != "correction" {
		p.note("the generator %s was not tuned to correct its images; the generator correction is", r.Generator)
	}
	if p.corrector == nil {
		p.corrector = newMemoCorrector(corrector)
	}
	s.Explainer, s.Corrector = judge, p.corrector
	return s, nil
}

// ownJudge is the judge that a strategy asks if none is named: the shipped one that was fine-tuned for it, or for images of
// full size the paper's. A build without it falls back to the zero-shot judge, and says so.
func (p *Pipeline) ownJudge(r Recipe) string {
	name := r.Strategy
	switch {
	case name == "self":
		return selfJudge
	case name == "threshold" && r.Whole:
		name = "orm"
	case name == "beam" || name == "search" || name == "threshold":
		name = "parm"
	}
	if published, ok := publishedJudges[name]; ok && !p.tinyWorld() {
		return published
	}
	if _, err := tiny.Open(name); !errors.Is(err, tiny.ErrMissing) {
		return name
	}
	if _, err := tiny.Open("judge"); err != nil {
		return name // whose absence is then the error
	}
	if !p.told[name] {
		p.told[name] = true
		p.note("no judge in this build was fine-tuned for %s; asking the zero-shot judge", r.Strategy)
	}
	return "judge"
}

// oracle scores a final image by the benchmark itself. Best of N by it is the most that any choice among the N paths
// could reach: an upper bound, never a method.
func (p *Pipeline) oracle(ctx context.Context, prompt cot.Prompt, img image.Image) (float64, error) {
	m, err := world.ParsePrompt(prompt.Text)
	if err != nil {
		return 0, err
	}
	r, err := p.Evaluate(ctx, img, m)
	if err != nil || !r.Correct {
		return 0, err
	}
	return 1, nil
}
