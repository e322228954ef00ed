package experiment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"imagecot/cot"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/atomicfile"
	"imagecot/internal/prng"
)

// Arm is one strategy under test.
type Arm struct {
	Name     string
	Strategy cot.Strategy
	// WholePaths says that the strategy takes every path to its end whatever comes, so that paths of several
	// selections may be decoded together.
	WholePaths bool
	// OnePath says that the strategy takes the first path only; more candidates change nothing.
	OnePath bool
	// Forks says that the strategy continues paths in ways that other selections do not share. Where many N are measured
	// from one bank, one selection of each N is enough then.
	Forks     bool
	judge     *memoJudge     // nil for strategies that ask nobody
	corrector *memoCorrector // nil for strategies that correct nothing
}

// selections is how many selections among n paths are measured from one bank.
func (a Arm) selections(bank, n int) int {
	if a.Forks {
		return 1
	}
	return bank / n
}

// forget drops the verdicts about a prompt and the corrections.
func (a Arm) forget(prompt string) {
	if a.judge != nil {
		a.judge.forget(prompt)
	}
	if a.corrector != nil {
		a.corrector.paths.forget(prompt)
	}
}

// Evaluate judges a final image by the benchmark's rules.
type Evaluate = curate.Evaluate

// Encode writes an image as PNG, with whatever a reader should find in it.
type Encode func(img image.Image, sel cot.Selection) ([]byte, error)

// Evaluation is one run of GenEval: Images selections of N paths each for every prompt.
type Evaluation struct {
	Recipe    Recipe
	Models    map[string]string // role -> name and hash, part of the run's identity
	Engine    string            // part of it too: engines round differently
	Prompts   []geneval.Metadata
	Images    int // images a prompt
	Dir       string
	Generator cot.Generator
	Arm       Arm
	Evaluate  Evaluate
	Encode    Encode
	Progress  func(done, total int) // after every image; may be nil
}

// Outcome is a finished evaluation.
type Outcome struct {
	Rows   []geneval.Row
	Scores geneval.Scores
	Cost   cot.Cost // of all selections; Seconds is wall time, added up over interrupted runs
}

// record is what is kept of one image in <folder>/traces/<image>.json. It holds no seconds: an interrupted and resumed
// run leaves the same bytes as one that was never stopped.
type record struct {
	Row       geneval.Row   `json:"row"`
	Selection cot.Selection `json:"selection"`
}

// identity is what has to be equal for a run to be continued, in run.json.
type identity struct {
	Format  int               `json:"format"`
	Recipe  Recipe            `json:"recipe"`
	Models  map[string]string `json:"models"`
	Engine  string            `json:"engine"`
	Images  int               `json:"images"`
	Prompts []string          `json:"prompts"` // metadata strings
}

// ErrOtherRun says that a folder holds the results of another recipe.
var ErrOtherRun = errors.New("the folder holds another run")

// ErrBusy says that another process writes to the folder.
var ErrBusy = errors.New("another process is writing to the folder")

// Run evaluates in GenEval's layout: Dir/00000/{metadata.jsonl,samples/0000.png,traces/0000.json} and, at the end,
// Dir/results.jsonl. What is already there is not computed again. A cancelled context leaves finished images only.
func (e Evaluation) Run(ctx context.Context) (Outcome, error) {
	unlock, err := e.claim()
	if err != nil {
		return Outcome{}, err
	}
	defer unlock()
	memo := newMemoGenerator(e.Generator, e.Recipe.Official)
	var out Outcome
	done := 0
	ahead := max(1, together/(e.Images*e.Recipe.N))
	for i, m := range e.Prompts {
		if i%ahead == 0 {
			if err := e.decodeAhead(ctx, memo, i, min(i+ahead, len(e.Prompts))); err != nil {
				return Outcome{}, fmt.Errorf("experiment: from prompt %d on: %w", i, err)
			}
		}
		records, err := e.prompt(ctx, memo, i, m)
		memo.forget(m.Prompt)
		if err != nil {
			return Outcome{}, fmt.Errorf("experiment: prompt %d %q: %w", i, m.Prompt, err)
		}
		for _, r := range records {
			out.Rows = append(out.Rows, r.Row)
			out.Cost = out.Cost.Add(r.Selection.Cost)
		}
		if done += len(records); e.Progress != nil {
			e.Progress(done, len(e.Prompts)*e.Images)
		}
	}
	if err := WriteRows(filepath.Join(e.Dir, "results.jsonl"), out.Rows); err != nil {
		return Outcome{}, err
	}
	if out.Cost.Seconds, err = readSeconds(e.Dir); err != nil {
		return Outcome{}, err
	}
	if out.Scores, err = geneval.Score(out.Rows); err != nil {
		return Outcome{}, err
	}
	return out, nil
}

// together is how many paths of neighbouring prompts are decoded together: a prompt with few images would leave most of a
// tile empty. A run that is killed loses this much work at most.
const together = 32

// decodeAhead decodes what is missing of prompts from..to-1 where every path is taken to its end anyway.
func (e Evaluation) decodeAhead(ctx context.Context, memo *memoGenerator, from, to int) error {
	if !e.Arm.WholePaths {
		return nil
	}
	begun, first := time.Now(), -1
	var banks []bank
	for i := from; i < to; i++ {
		m := e.Prompts[i]
		missing, err := e.missing(i, make([]record, e.Images))
		if err != nil {
			return err
		}
		for _, k := range missing {
			banks = append(banks, bank{cot.Prompt{Text: m.Prompt}, e.seeds(m.Prompt, k)})
			if first < 0 {
				first = i
			}
		}
	}
	if first < 0 {
		return nil
	}
	if err := memo.decodeAll(ctx, banks...); err != nil {
		return err
	}
	return addSeconds(e.Dir, first, time.Since(begun))
}

// claim makes the folder ours: locked, and of this run or empty.
func (e Evaluation) claim() (unlock func(), err error) {
	if e.Images < 1 || len(e.Prompts) == 0 {
		return nil, fmt.Errorf("experiment: %w: %d images for each of %d prompts", ErrRecipe, e.Images, len(e.Prompts))
	}
	id := identity{Format: 1, Recipe: e.Recipe, Models: e.Models, Engine: e.Engine, Images: e.Images}
	for _, m := range e.Prompts {
		id.Prompts = append(id.Prompts, m.Dump())
	}
	return claim(e.Dir, id)
}

// lock makes a folder if it is not there and keeps other processes out of it.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	l := flock.New(filepath.Join(dir, ".lock"))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("experiment: lock %s: %w", dir, err)
	}
	if !ok {
		return nil, fmt.Errorf("experiment: %s: %w", dir, ErrBusy)
	}
	return func() { _ = l.Unlock() }, nil
}

// claim locks a run's folder and compares or writes its identity, any value that marshals to JSON.
func claim(dir string, id any) (unlock func(), err error) {
	unlock, err = lock(dir)
	if err != nil {
		return nil, err
	}
	release := unlock
	defer func() {
		if err != nil {
			release()
		}
	}()
	want, err := json.MarshalIndent(id, "", " ")
	if err != nil {
		return nil, fmt.Errorf("experiment: identity: %w", err)
	}
	path := filepath.Join(dir, "run.json")
	have, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return unlock, write(path, want)
	case err != nil:
		return nil, fmt.Errorf("experiment: %w", err)
	case !bytes.Equal(have, want):
		return nil, fmt.Errorf("experiment: %s: %w (compare its run.json); choose another folder or remove it", dir, ErrOtherRun)
	}
	return unlock, nil
}

// prompt gives the records of all images of one prompt, computing those that are missing.
func (e Evaluation) prompt(ctx context.Context, memo *memoGenerator, i int, m geneval.Metadata) ([]record, error) {
	records := make([]record, e.Images)
	missing, err := e.missing(i, records)
	if err != nil || len(missing) == 0 {
		return records, err
	}
	folder := filepath.Join(e.Dir, geneval.FolderName(i))
	for _, sub := range []string{"samples", "traces"} {
		if err := os.MkdirAll(filepath.Join(folder, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := write(filepath.Join(folder, "metadata.jsonl"), []byte(m.Dump()+"\n")); err != nil {
		return nil, err
	}
	defer e.Arm.forget(m.Prompt)
	start := time.Now()
	for _, k := range missing {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := e.image(ctx, memo, i, k, m)
		if err != nil {
			return nil, err
		}
		records[k] = r
	}
	return records, addSeconds(e.Dir, i, time.Since(start))
}

// missing reads the records of a prompt's finished images and says which ones are to be made.
func (e Evaluation) missing(i int, records []record) ([]int, error) {
	folder := filepath.Join(e.Dir, geneval.FolderName(i))
	var list []int
	for k := range records {
		ok, err := e.load(folder, k, &records[k])
		if err != nil {
			return nil, err
		}
		if !ok {
			list = append(list, k)
		}
	}
	return list, nil
}

// seeds of the paths of the k-th image. Images use neighbouring paths, so image k at N=1 is path k at any N.
func (e Evaluation) seeds(prompt string, k int) []uint64 {
	seeds := make([]uint64, e.Recipe.N)
	for j := range seeds {
		seeds[j] = prng.PathSeed(e.Recipe.Seed, prompt, k*e.Recipe.N+j)
	}
	return seeds
}

// image selects, evaluates and writes one image; the record comes last and makes it count.
func (e Evaluation) image(ctx context.Context, g cot.Generator, i, k int, m geneval.Metadata) (record, error) {
	folder, name := geneval.FolderName(i), geneval.ImageName(k)
	sel, img, err := choose(ctx, g, e.Arm, cot.Prompt{ID: folder, Text: m.Prompt}, e.seeds(m.Prompt, k))
	if err != nil {
		return record{}, err
	}
	result, err := e.Evaluate(ctx, img, m)
	if err != nil {
		return record{}, err
	}
	png, err := e.Encode(img, sel)
	if err != nil {
		return record{}, err
	}
	sel.Cost.Seconds = 0
	r := record{Row: geneval.NewRow(folder+"/samples/"+name, m, result), Selection: finite(sel)}
	text, err := json.Marshal(r)
	if err != nil {
		return record{}, err
	}
	if err := write(filepath.Join(e.Dir, folder, "samples", name), png); err != nil {
		return record{}, err
	}
	return r, write(e.recordPath(filepath.Join(e.Dir, folder), k), append(text, '\n'))
}

func (Evaluation) recordPath(folder string, k int) string {
	return filepath.Join(folder, "traces", fmt.Sprintf("%04d.json", k))
}

// load reads the record of a finished image; an image whose picture is gone is not finished.
func (e Evaluation) load(folder string, k int, into *record) (bool, error) {
	text, err := os.ReadFile(e.recordPath(folder, k))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return false, fmt.Errorf("record %s is damaged (%w); remove it to compute the image again", e.recordPath(folder, k), err)
	}
	_, err = os.Stat(filepath.Join(folder, "samples", geneval.ImageName(k)))
	return err == nil, nil
}

// choose runs the strategy and decodes the winner's final image.
func choose(ctx context.Context, g cot.Generator, a Arm, p cot.Prompt, seeds []uint64) (cot.Selection, image.Image, error) {
	sel, err := a.Strategy.Select(ctx, g, p, seeds)
	if err != nil {
		return cot.Selection{}, nil, err
	}
	if sel.Winner == nil || sel.Winner.Step != g.Steps() {
		return cot.Selection{}, nil, fmt.Errorf("experiment: strategy %s chose no finished path", a.Name)
	}
	imgs, err := g.Decode(ctx, []*cot.Path{sel.Winner})
	if err != nil {
		return cot.Selection{}, nil, err
	}
	return sel, imgs[0], nil
}

func write(path string, data []byte) error {
	if err := atomicfile.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("experiment: write %s: %w", path, err)
	}
	return nil
}

// seconds is one line of seconds.jsonl: wall time spent on a prompt. Times are kept apart from results, which do not
// depend on them.
type seconds struct {
	Prompt  int     `json:"prompt"`
	Seconds float64 `json:"seconds"`
}

func addSeconds(dir string, prompt int, d time.Duration) error {
	f, err := os.OpenFile(filepath.Join(dir, "seconds.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	if err := json.NewEncoder(f).Encode(seconds{prompt, d.Seconds()}); err != nil {
		_ = f.Close()
		return fmt.Errorf("experiment: %w", err)
	}
	return f.Close()
}

// readSeconds adds up the wall time of a run. A last line that a kill cut short does not count.
func readSeconds(dir string) (float64, error) {
	text, err := os.ReadFile(filepath.Join(dir, "seconds.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("experiment: %w", err)
	}
	var sum float64
	for line := range bytes.Lines(text) {
		var s seconds
		if json.Unmarshal(line, &s) == nil {
			sum += s.Seconds
		}
	}
	return sum, nil
}
