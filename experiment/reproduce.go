package experiment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/prng"
	"imagecot/tiny"
)

// Reproduction measures the rows of tables. The work goes by generator, then by prompt: all rows of a generator choose
// from one bank of paths of a prompt and share the answers of their judges, which is exact (see memo.go). Finished work,
// a row and a prompt, is kept in Dir/journal.jsonl and not done again; a run that was killed ends like one that was not.
type Reproduction struct {
	Recipe   Recipe // how paths are decoded; N is the size of the bank
	Tables   []PaperTable
	Prompts  []geneval.Metadata
	Dir      string
	Workers  int                              // prompts at a time, at least 1; what they need computed fills the models' tiles together
	Note     func(format string, args ...any) // is told the estimate before a generator's work; may be nil
	Open     func(ctx context.Context, generator string) (Bench, error)
	Progress func(generator string, done, total int) // after every prompt, one call at a time; may be nil
}

// Bench is a generator that was opened, and what can be tested on it.
type Bench struct {
	Generator cot.Generator
	Identity  string // name and hash of generator and image tokenizer, and the engine
	// Arm makes a strategy, and names its judge with its hash. An error that is ErrAbsent leaves a row out.
	Arm      func(strategy string) (Arm, string, error)
	Evaluate Evaluate
	Close    func()
}

// ErrAbsent marks what is not there to be measured: a model that is not in this build, a strategy that it does not know.
var ErrAbsent = errors.New("absent")

// point is one measurement: a generator, a strategy, its N, and how many selections a prompt at most, 0 for all.
type point struct {
	generator, strategy string
	n, most             int
}

// Run measures all rows.
func (r Reproduction) Run(ctx context.Context) (*Measured, error) {
	if len(r.Prompts) == 0 {
		return nil, fmt.Errorf("experiment: %w: no prompts", ErrRecipe)
	}
	unlock, err := lock(r.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	j, err := openJournal(filepath.Join(r.Dir, "journal.jsonl"))
	if err != nil {
		return nil, err
	}
	m := &Measured{Prompts: r.Prompts, points: map[point]*Measurement{}, absent: map[point]string{}}
	for _, g := range r.generators() {
		if err := r.generator(ctx, j, g, m); err != nil {
			return nil, errors.Join(err, j.close())
		}
	}
	return m, j.close()
}

// generators are all that the rows name, in the order of their first appearance.
func (r Reproduction) generators() []string {
	var out []string
	for _, p := range r.points("") {
		if !slices.Contains(out, p.generator) {
			out = append(out, p.generator)
		}
	}
	return out
}

// points are the measurements of a generator, or of all for "", each once.
func (r Reproduction) points(generator string) []point {
	var out []point
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			for _, p := range row.points() {
				if (generator == "" || p.generator == generator) && !slices.Contains(out, p) {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

// task is a measurement that can be done.
type task struct {
	point
	arm   Arm
	judge string
}

// generator measures all points of one generator.
func (r Reproduction) generator(ctx context.Context, j *journal, name string, m *Measured) error {
	points := r.points(name)
	bench, err := r.Open(ctx, name)
	if errors.Is(err, ErrAbsent) || errors.Is(err, tiny.ErrMissing) {
		for _, p := range points {
			m.absent[p] = err.Error()
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer bench.Close()
	var tasks []task
	for _, p := range points {
		if p.n > r.Recipe.N {
			return fmt.Errorf("experiment: %w: N is %d in a bank of %d paths", ErrRecipe, p.n, r.Recipe.N)
		}
		arm, judge, err := bench.Arm(p.strategy)
		if errors.Is(err, ErrAbsent) || errors.Is(err, tiny.ErrMissing) {
			m.absent[p] = err.Error()
			continue
		}
		if err != nil {
			return fmt.Errorf("experiment: %s on %s: %w", p.strategy, name, err)
		}
		tasks = append(tasks, task{p, arm, judge})
	}
	w := &worker{Reproduction: r, bench: bench, journal: j, tasks: tasks, memo: newMemoGenerator(bench.Generator, false), show: showPrompts(r.Prompts)}
	if err := w.run(ctx, name); err != nil {
		return err
	}
	return w.collect(m)
}

// worker measures the tasks of one generator.
type worker struct {
	Reproduction
	bench   Bench
	journal *journal
	tasks   []task
	memo    *memoGenerator
	show    map[int]bool // prompts whose pictures are kept
	done    atomic.Int64
	writing sync.Mutex // of rates
	showing sync.Mutex // of progress
}

// run goes through the prompts, Workers at a time.
func (w *worker) run(ctx context.Context, name string) error {
	all := make([]int, len(w.Prompts))
	for i := range all {
		all[i] = i
	}
	if err := w.announce(ctx, name); err != nil {
		return err
	}
	return run(ctx, w.Workers, all, func(ctx context.Context, i int) error {
		if err := w.prompt(ctx, i); err != nil {
			return fmt.Errorf("experiment: %s, prompt %d %q: %w", name, i, w.Prompts[i].Prompt, err)
		}
		w.forget(w.Prompts[i].Prompt)
		if err := w.addRates(name); err != nil {
			return err
		}
		if w.Progress != nil {
			w.showing.Lock()
			defer w.showing.Unlock()
			w.Progress(name, int(w.done.Load()), len(all)*len(w.tasks))
		}
		return nil
	})
}

// forget drops what only the tasks of one prompt share.
func (w *worker) forget(prompt string) {
	w.memo.forget(prompt)
	for _, t := range w.tasks {
		t.arm.forget(prompt)
	}
}

// selections is how many selections of a prompt the task measures.
func (w *worker) selections(t task) int {
	n := t.arm.selections(w.Recipe.N, t.n)
	if t.most > 0 {
		n = min(n, t.most)
	}
	return n
}

// key hashes all that decides the outcome of a task on a prompt.
func (w *worker) key(t task, m geneval.Metadata) string {
	r := w.Recipe
	parts := []any{3, w.bench.Identity, t.judge, t.strategy, t.n, r.N, r.Seed, r.Steps, r.Guidance, r.Temperature, r.Questions, m.Dump()}
	if t.most > 0 {
		parts = append(parts, t.most)
	}
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err) // numbers and strings only; a recipe's numbers are finite
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12])
}

// finished returns the work on a task and prompt if it is done, with the picture if one is to be shown.
func (w *worker) finished(t task, i int) (entry, bool) {
	e, ok := w.journal.get(w.key(t, w.Prompts[i]))
	return e, ok && (!w.show[i] || e.Chosen[0].PNG != nil)
}

// prompt does the tasks of one prompt that are not done yet.
func (w *worker) prompt(ctx context.Context, i int) error {
	m := w.Prompts[i]
	var todo []task
	for _, t := range w.tasks {
		if _, ok := w.finished(t, i); !ok {
			todo = append(todo, t)
		}
	}
	w.done.Add(int64(len(w.tasks) - len(todo)))
	if len(todo) == 0 {
		return ctx.Err()
	}
	p := cot.Prompt{ID: geneval.FolderName(i), Text: m.Prompt}
	seeds := make([]uint64, w.Recipe.N)
	for k := range seeds {
		seeds[k] = prng.PathSeed(w.Recipe.Seed, m.Prompt, k)
	}
	whole := 0 // paths that are decoded whatever comes
	for _, t := range todo {
		if t.arm.WholePaths {
			whole = max(whole, t.n*w.selections(t))
		}
	}
	if err := w.memo.decodeAll(ctx, bank{p, seeds[:whole]}); err != nil {
		return err
	}
	// The largest N first: it asks about many images together, and the smaller ones find the answers in memory.
	slices.SortStableFunc(todo, func(a, b task) int { return b.n - a.n })
	for _, t := range todo {
		e := entry{Key: w.key(t, m), Generator: t.generator, Strategy: t.strategy, N: t.n, Prompt: m.Prompt}
		for g := range w.selections(t) {
			c, err := w.choose(ctx, t, p, m, seeds[g*t.n:(g+1)*t.n], g == 0 && w.show[i])
			if err != nil {
				return fmt.Errorf("%s, N=%d: %w", t.strategy, t.n, err)
			}
			e.Chosen = append(e.Chosen, c)
		}
		if err := w.journal.put(e); err != nil {
			return err
		}
		w.done.Add(1)
	}
	return nil
}

// choose does one selection.
func (w *worker) choose(ctx context.Context, t task, p cot.Prompt, m geneval.Metadata, seeds []uint64, picture bool) (chosen, error) {
	if err := ctx.Err(); err != nil {
		return chosen{}, err
	}
	sel, img, err := choose(ctx, w.memo, t.arm, p, seeds)
	if err != nil {
		return chosen{}, err
	}
	result, err := w.bench.Evaluate(ctx, img, m)
	if err != nil {
		return chosen{}, err
	}
	c := chosen{
		Correct: result.Correct, Reason: strings.Join(result.Reasons, "\n"),
		Steps: sel.Cost.DecodingSteps, Calls: sel.Cost.JudgeCalls, Decoded: sel.Cost.ImagesDecoded,
	}
	for _, round := range sel.Reflections {
		if round.Reason != "" {
			c.Said = append(c.Said, round.Reason)
		}
	}
	if picture {
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			return chosen{}, fmt.Errorf("experiment: picture: %w", err)
		}
		c.PNG = b.Bytes()
	}
	return c, nil
}

// showEach is how many prompts of a task have their pictures kept for the gallery.
const showEach = 2

// showPrompts picks the prompts of the gallery: the first ones of each task.
func showPrompts(list []geneval.Metadata) map[int]bool {
	out, taken := map[int]bool{}, map[string]int{}
	for i, m := range list {
		if taken[m.Tag]++; taken[m.Tag] <= showEach {
			out[i] = true
		}
	}
	return out
}
