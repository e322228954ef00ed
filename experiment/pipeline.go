package experiment

import (
	"context"
	"fmt"
	"image"
	"maps"
	"strings"
	"sync"

	"github.com/gomlx/compute"

	"imagecot/backend"
	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/world"
)

// Pipeline is an opened recipe: models are loaded, nothing is running. One goroutine uses it at a time.
type Pipeline struct {
	Recipe    Recipe
	Generator cot.Generator
	Models    map[string]string // role -> name and hash of the checkpoint
	Engine    string            // for people
	backend   compute.Backend
	self      func() (cot.Judge, error) // makes the generator a judge of its own images
	judges    map[string]openedJudge    // by name, shared by arms
	questions int                       // that a judge answers together, 0 for its own choice
	corrector *memoCorrector            // shared by arms, nil until one corrects
	evaluate  Evaluate                  // final images
	evaluated sync.Mutex                // guards verdicts
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
	p := &Pipeline{Recipe: r, Models: map[string]string{}, judges: map[string]openedJudge{}, verdicts: map[verdictKey]geneval.Result{}, note: note, told: map[string]bool{}, evaluate: world.Evaluator().Evaluate}
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

// Evaluate judges a final image with the tiny world's detector, or GenEval's where that was opened. Verdicts are remembered
// for a while: several strategies end with the same images. Safe for concurrent use.
func (p *Pipeline) Evaluate(ctx context.Context, img image.Image, m geneval.Metadata) (geneval.Result, error) {
	key := verdictKey{hashImage(img), m.Dump()}
	p.evaluated.Lock()
	r, ok := p.verdicts[key]
	p.evaluated.Unlock()
	if ok {
		return r, nil
	}
	r, err := p.evaluate(ctx, img, m)
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

// openedJudge is a judge, the wording that it understands, whether it reads tokens instead of pixels, and as which reward model
// (orm, prm, parm, parmpp) its manifest says that it was trained.
type openedJudge struct {
	*memoJudge
	questions string
	tokens    bool
	trained   string
}

// judge opens a judge, or returns the one that is open under that name.
func (p *Pipeline) judge(name string) (openedJudge, error) {
	if j, ok := p.judges[name]; ok {
		return j, nil
	}
	j, id, err := p.openJudge(name)
	if err != nil {
		return openedJudge{}, err
	}
	p.judges[name] = j
	models := maps.Clone(p.Models) // runs that were started keep theirs
	models["judge "+name] = id
	p.Models = models
	return j, nil
}
