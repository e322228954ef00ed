package experiment

import (
	"context"
	"errors"
	"fmt"
	"image"
	"maps"
	"strings"
	"sync"

	"github.com/gomlx/compute"

	"imagecot/backend"
	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/tiny"
	"imagecot/verify/bestofn"
	"imagecot/verify/orm"
	"imagecot/verify/parm"
	"imagecot/verify/prm"
	"imagecot/verify/questions"
	"imagecot/verify/single"
	"imagecot/world"
)

// Pipeline is an opened recipe: models are loaded, nothing is running. One goroutine uses it at a time.
type Pipeline struct {
	Recipe    Recipe
	Generator cot.Generator
	Models    map[string]string // role -> name and hash of the checkpoint
	Engine    string            // for people
	backend   compute.Backend
	judges    map[string]openedJudge // by name, shared by arms
	evaluated sync.Mutex             // guards verdicts
	verdicts  map[verdictKey]geneval.Result
	note      func(format string, args ...any)
	told      map[string]bool // strategies whose missing judge was noted
	side      int             // pixels of a side of an image
}

// Open loads the generator; judges are loaded by Arm. Notes for people go to note.
func Open(ctx context.Context, r Recipe, note func(format string, args ...any)) (*Pipeline, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	p := &Pipeline{Recipe: r, Models: map[string]string{}, judges: map[string]openedJudge{}, verdicts: map[verdictKey]geneval.Result{}, note: note, told: map[string]bool{}}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	be, info, err := backend.Open(r.Backend)
	if err != nil {
		return nil, err
	}
	if p.backend, p.Engine = be, info.Engine+" "+info.Device; info.Note != "" {
		note("%s", info.Note)
	}
	if err := p.openGenerator(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close frees the engine. The pipeline must not be used afterwards.
func (p *Pipeline) Close() { p.backend.Finalize() }

// tinyWorld says whether the generator draws the tiny world's images.
func (p *Pipeline) tinyWorld() bool { return p.side == world.Side }

// CheckPrompt refuses a prompt that the generator cannot know, before anything is spent on it.
func (p *Pipeline) CheckPrompt(text string) error {
	if strings.TrimSpace(text) == "" {
		return fmt.Errorf("experiment: %w: the prompt is empty", ErrRecipe)
	}
	if !p.tinyWorld() {
		return nil
	}
	_, err := world.ParsePrompt(text)
	return err
}

// Evaluate judges a final image with the tiny world's detector. Verdicts are remembered for a while: several strategies
// end with the same images. Safe for concurrent use.
func (p *Pipeline) Evaluate(ctx context.Context, img image.Image, m geneval.Metadata) (geneval.Result, error) {
	key := verdictKey{hashImage(img), m.Dump()}
	p.evaluated.Lock()
	r, ok := p.verdicts[key]
	p.evaluated.Unlock()
	if ok {
		return r, nil
	}
	r, err := world.Evaluator().Evaluate(ctx, img, m)
	if err != nil {
		return r, err
	}
	p.evaluated.Lock()
	defer p.evaluated.Unlock()
	if len(p.verdicts) >= 1024 {
		clear(p.verdicts)
	}
	p.verdicts[key] = r
	return r, nil
}

type verdictKey struct {
	image    digest
	metadata string
}

// Arm makes a strategy from its name, or name@judge with a judge of its own instead of the recipe's.
func (p *Pipeline) Arm(spec string) (Arm, error) {
	name, judgeName, own := strings.Cut(spec, "@")
	r := p.Recipe
	r.Strategy = name
	if err := r.Validate(); err != nil {
		return Arm{}, err
	}
	a := Arm{Name: spec, WholePaths: name == "single" || name == "orm" || name == "oracle"}
	switch name {
	case "single":
		a.OnePath, a.Strategy = true, single.Strategy{}
		return a, nil
	case "oracle":
		if !p.tinyWorld() {
			return Arm{}, fmt.Errorf("experiment: %w: the oracle knows the tiny world only", ErrRecipe)
		}
		a.Strategy = bestofn.Strategy{Name: "oracle", Score: p.oracle}
		return a, nil
	}
	if !own {
		judgeName = r.Judge
	}
	if judgeName == "" {
		judgeName = p.ownJudge(name)
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
	a.judge = j.memoJudge
	switch name {
	case "orm":
		a.Strategy = orm.Strategy{Judge: a.judge, Questions: words}
	case "prm":
		a.Strategy = prm.Strategy{Judge: a.judge, Questions: words}
	case "parm":
		a.Strategy = parm.Strategy{Judge: a.judge, Questions: words}
	}
	return a, nil
}

// ownJudge is the shipped judge that was fine-tuned for a strategy. A build without it falls back to the zero-shot judge,
// and says so.
func (p *Pipeline) ownJudge(strategy string) string {
	if _, err := tiny.Open(strategy); !errors.Is(err, tiny.ErrMissing) {
		return strategy
	}
	if _, err := tiny.Open("judge"); err != nil {
		return strategy // whose absence is then the error
	}
	if !p.told[strategy] {
		p.told[strategy] = true
		p.note("no judge in this build was fine-tuned for %s; asking the zero-shot judge", strategy)
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

// openedJudge is a judge, and the wording that it understands.
type openedJudge struct {
	*memoJudge
	questions string
}

// judge opens a judge, or returns the one that is open under that name.
func (p *Pipeline) judge(name string) (openedJudge, error) {
	if j, ok := p.judges[name]; ok {
		return j, nil
	}
	j, words, id, err := p.openJudge(name)
	if err != nil {
		return openedJudge{}, err
	}
	p.judges[name] = openedJudge{newMemoJudge(j), words}
	models := maps.Clone(p.Models) // runs that were started keep theirs
	models["judge "+name] = id
	p.Models = models
	return p.judges[name], nil
}
