// Package verify is what the paper's test-time verifiers (Sec. 2.2, 3) share: a run of one selection that starts paths,
// asks the judge, writes the trace and counts the cost. The strategies lie below it, one function each: single, bestofn,
// orm, prm, parm and parmpp are the paper's; beam, search, threshold and selfverify go beyond it. Step images are decoded when somebody looks at them and never twice. The package knows no models.
package verify

import (
	"context"
	"errors"
	"fmt"
	"image"
	"time"

	"imagecot/cot"
	"imagecot/verify/questions"
)

// Run is one selection in the making.
type Run struct {
	Generator cot.Generator
	Judge     cot.Judge     // may be nil where nothing is asked
	Questions questions.Set // may be empty where nothing is asked
	Observer  cot.Observer  // may be nil
	Tokens    bool          // the judge reads tokens: no step image is decoded for it

	Paths       []*cot.Path
	traces      []cot.PathTrace
	reflections []cot.ReflectionTrace
	cost        cot.Cost
	begun       time.Time
	prompt      cot.Prompt
	images      map[int]stepImage
}

// ErrNoSeeds is returned where a selection is asked for among no paths.
var ErrNoSeeds = errors.New("verify: no seeds: N must be at least 1")

// ErrNoVerdict is returned where a choice hangs on a question of which no verdict is a number.
var ErrNoVerdict = errors.New("verify: no verdict is a number")

// Start starts one path a seed.
func (r *Run) Start(ctx context.Context, p cot.Prompt, seeds []uint64) error {
	if len(seeds) == 0 {
		return ErrNoSeeds
	}
	r.begun, r.prompt = time.Now(), p
	paths, err := r.Generator.Start(ctx, p, seeds)
	if err != nil {
		return err
	}
	if len(paths) != len(seeds) {
		return fmt.Errorf("verify: %d paths of %d seeds", len(paths), len(seeds))
	}
	for i, path := range paths {
		r.traces = append(r.traces, cot.PathTrace{Index: i, Seed: path.Seed, Parent: -1})
	}
	r.Paths = paths
	return nil
}

// Fork adds a continuation of a path that draws other noise from here on.
func (r *Run) Fork(parent *cot.Path, seed uint64) *cot.Path {
	path := r.Generator.Fork(parent, seed)
	path.Index = len(r.Paths)
	r.Paths = append(r.Paths, path)
	r.traces = append(r.traces, cot.PathTrace{Index: path.Index, Seed: seed, Parent: parent.Index})
	return path
}

// Advance does one decoding step of each path.
func (r *Run) Advance(ctx context.Context, paths []*cot.Path) error {
	if len(paths) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.Generator.Advance(ctx, paths); err != nil {
		return err
	}
	for _, path := range paths {
		r.traces[path.Index].Steps++
	}
	r.cost.DecodingSteps += len(paths)
	return nil
}

// Finish advances the paths to their last step.
func (r *Run) Finish(ctx context.Context, paths []*cot.Path) error {
	for {
		var live []*cot.Path
		for _, path := range paths {
			if path.Step < r.Generator.Steps() {
				live = append(live, path)
			}
		}
		if len(live) == 0 {
			return nil
		}
		if err := r.Advance(ctx, live); err != nil {
			return err
		}
	}
}

// Decode returns the step image of each path. One that was decoded at this step already is not decoded again.
func (r *Run) Decode(ctx context.Context, paths []*cot.Path) ([]image.Image, error) {
	if r.images == nil {
		r.images = map[int]stepImage{}
	}
	var missing []*cot.Path
	for _, path := range paths {
		if had, ok := r.images[path.Index]; !ok || had.step != path.Step {
			missing = append(missing, path)
		}
	}
	if len(missing) > 0 {
		images, err := r.Generator.Decode(ctx, missing)
		if err != nil {
			return nil, err
		}
		if len(images) != len(missing) {
			return nil, fmt.Errorf("verify: %d step images of %d paths", len(images), len(missing))
		}
		r.cost.ImagesDecoded += len(missing)
		for i, path := range missing {
			r.images[path.Index] = stepImage{path.Step, images[i]}
			if r.Observer != nil {
				r.Observer.Judged(path, images[i])
			}
		}
	}
	out := make([]image.Image, len(paths))
	for i, path := range paths {
		out[i] = r.images[path.Index].image
	}
	return out, nil
}

// stepImage is the latest decoded image of a path.
type stepImage struct {
	step  int
	image image.Image
}

// Ask decodes the step image of each path, unless the judge reads tokens, and asks the question of that kind about it.
func (r *Run) Ask(ctx context.Context, kind cot.QuestionKind, paths []*cot.Path) ([]cot.Verdict, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	if r.Judge == nil || r.Questions.Text(kind, r.prompt) == "" {
		return nil, fmt.Errorf("verify: no judge or no wording of the %s question in set %q", kind, r.Questions.Name)
	}
	asked := make([]cot.Question, len(paths))
	for i, path := range paths {
		asked[i] = r.Questions.Ask(kind, path)
	}
	if r.Tokens {
		return r.ask(ctx, asked)
	}
	images, err := r.Decode(ctx, paths)
	if err != nil {
		return nil, err
	}
	for i, img := range images {
		asked[i].Image = img
	}
	return r.ask(ctx, asked)
}

// ask puts the questions to the judge and writes them into the traces.
func (r *Run) ask(ctx context.Context, asked []cot.Question) ([]cot.Verdict, error) {
	verdicts, err := r.Judge.Ask(ctx, asked)
	if err != nil {
		return nil, err
	}
	if len(verdicts) != len(asked) {
		return nil, fmt.Errorf("verify: %d verdicts for %d questions", len(verdicts), len(asked))
	}
	r.cost.JudgeCalls += len(asked)
	for i, q := range asked {
		t := &r.traces[q.Path]
		t.Asked = append(t.Asked, cot.Asked{Step: q.Step, Kind: q.Kind, Text: q.Text, Verdict: verdicts[i]})
	}
	return verdicts, nil
}

// Truncate records that a path was given up at its present step.
func (r *Run) Truncate(path *cot.Path, reason string) {
	r.traces[path.Index].TruncatedAt = path.Step
	r.Note(path, reason)
}

// Note records what became of a path.
func (r *Run) Note(path *cot.Path, reason string) { r.traces[path.Index].Reason = reason }

// Select closes the run with its winner.
func (r *Run) Select(strategy string, winner *cot.Path, nPrime int, reason string) cot.Selection {
	r.Note(winner, reason)
	r.cost.Seconds = time.Since(r.begun).Seconds()
	return cot.Selection{
		Prompt: r.prompt, Strategy: strategy, Winner: winner, WinnerAt: winner.Index, NPrime: nPrime,
		Traces: r.traces, Cost: r.cost, Reflections: r.reflections,
	}
}

// Highest returns the index of the highest valid log P(yes), the first on ties, and -1 if no verdict is valid.
func Highest(verdicts []cot.Verdict) int {
	best := -1
	for i, v := range verdicts {
		if v.Valid() && (best < 0 || v.LogPYes > verdicts[best].LogPYes) {
			best = i
		}
	}
	return best
}

// LeastNo returns the index of the lowest valid log P(no), the first on ties, and -1 if no verdict is valid.
func LeastNo(verdicts []cot.Verdict) int {
	best := -1
	for i, v := range verdicts {
		if v.Valid() && (best < 0 || v.LogPNo < verdicts[best].LogPNo) {
			best = i
		}
	}
	return best
}
