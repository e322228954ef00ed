package showo

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"

	"imagecot/cot"
	"imagecot/internal/graphx"
	"imagecot/maskgit"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	"golang.org/x/sync/errgroup"
)

// Options of decoding.
type Options struct {
	Steps       int                     // T; the paper: 18
	Guidance    float64                 // g of (1+g) cond - g uncond; 0 means no unconditional rows; the paper: 1.75
	Temperature float64                 // tau_0 of re-masking; the paper: 1
	Rule        maskgit.TemperatureRule // how it falls; the paper: compound
	Schedule    maskgit.Schedule        // masked share over the steps; the paper: cosine
	// Official decodes the candidates of a prompt as the released code does, which never sets the temperature back: it
	// reaches 0 with the first path (Index 0) and stays there for all others.
	Official bool
	// Tile is the number of paths that run together; fewer live paths are filled up, so that a path's bits do not depend
	// on what else is decoded. 0 means 10, half of the paper's N, or 2 on the pure-Go engine, which uses one core a tile, or
	// 1 of a large model.
	Tile int
}

// PaperOptions are the settings of the paper.
func PaperOptions() Options {
	return Options{Steps: 18, Guidance: 1.75, Temperature: 1, Rule: maskgit.Compound, Schedule: maskgit.Cosine}
}

// TinyOptions are those of the tiny world: at the paper's temperature the background eats small objects.
func TinyOptions() Options {
	o := PaperOptions()
	o.Temperature, o.Rule = 4, maskgit.Anneal
	return o
}

// Rules are the settings that package maskgit decides by.
func (o Options) Rules() maskgit.Options {
	return maskgit.Options{Steps: o.Steps, Schedule: o.Schedule, Temperature: o.Temperature, Rule: o.Rule}
}

// Validate reports settings that cannot be decoded with.
func (o Options) Validate() error {
	if !(o.Guidance >= 0) || math.IsInf(o.Guidance, 0) {
		return fmt.Errorf("showo: guidance is %v, want a number of at least 0", o.Guidance)
	}
	if o.Tile < 0 || o.Tile > 1<<12 {
		return fmt.Errorf("showo: tile of %d paths", o.Tile)
	}
	return o.Rules().Validate()
}

// Decoder computes what one decoding step needs of the model: probabilities over the codebook at every image position.
// It does only what is read: prompts enter once, as keys and values; padding is cut; guidance is applied before the
// head, which covers the codebook only; the first step, where nothing is known yet, runs once a prompt, and a step of
// forks that have not parted yet runs once. All of this equals the plain forward but for rounding. It is safe for concurrent use.
type Decoder struct {
	cfg      Config
	o        Options
	parallel int // tiles that run at once
	prompt   *graphx.Program
	correct  *graphx.Program // a prompt with an image after it
	step     *graphx.Program
	logits   *graphx.Program

	mu       sync.Mutex
	prefixes map[string]*Prefix
	order    []string // keys of prefixes, oldest first
	tiles    []tileKeys
}

// Prefix is a condition that went through the model: its keys and values in every layer.
type Prefix struct {
	width int       // columns, left padding included
	pads  int       // of which padding
	tile  int       // paths that are decoded together under such a prefix
	kv    []float32 // [2*layers, H, width, d]: keys of layer 0, values of layer 0, ..

	first []float32 // probabilities [N*K] with every image token masked; nil until asked for; guarded by Decoder.mu
}

// tileKeys are the keys and values of a whole tile, kept because candidates of one prompt share them for all steps.
type tileKeys struct {
	of []*Prefix
	kv *tensors.Tensor // [rows, 2*layers, H, width, d]
}

// State is where a path stands: tokens [N], cot.Masked where unknown, under a condition.
type State struct {
	Prefix *Prefix
	Tokens []int32
}

const (
	prefixUnit = 32 // prefixes are as wide as a multiple of this, or as S+1: few shapes to compile
	tilesKept  = 4
	bytesKept  = 256 << 20 // of prefixes, and of tiles
)

// NewDecoder makes a decoder of weights named and shaped as Shapes says.
func NewDecoder(be compute.Backend, cfg Config, w *graphx.Weights, o Options) (*Decoder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := Check(cfg, w); err != nil {
		return nil, err
	}
	d := &Decoder{cfg: cfg, o: o, prefixes: map[string]*Prefix{}, parallel: 1}
	pureGo := strings.HasPrefix(strings.ToLower(be.Name()), "go")
	if pureGo {
		d.parallel = runtime.GOMAXPROCS(0)
	}
	if d.o.Tile == 0 {
		switch d.o.Tile = 10; {
		case w.Large():
			d.o.Tile = 1
		case pureGo:
			d.o.Tile = 2
		}
	}
	policy := graphx.PolicyFor(be)
	var err error
	if d.prompt, err = graphx.NewProgram(be, "showo prompt", w, policy, prefixGraph(cfg, 0)); err != nil {
		return nil, err
	}
	if d.correct, err = graphx.NewProgram(be, "showo correction", w, policy, prefixGraph(cfg, 1)); err != nil {
		return nil, err
	}
	if d.step, err = graphx.NewProgram(be, "showo step", w, policy, stepGraph(cfg, o.Guidance, true)); err != nil {
		return nil, err
	}
	d.logits, err = graphx.NewProgram(be, "showo logits", w, policy, stepGraph(cfg, o.Guidance, false))
	return d, err
}

// Config of the model.
func (d *Decoder) Config() Config { return d.cfg }

// Options in use.
func (d *Decoder) Options() Options { return d.o }

// Forget drops what was computed from the weights. It must be called when they were replaced, and not during a step.
func (d *Decoder) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.prefixes)
	d.order, d.tiles = nil, nil
}

// Condition runs a condition (Prompting.Condition: t2i, text, eot; at most S+1 ids) through the model, or finds it among
// the recent ones.
func (d *Decoder) Condition(ids []int32) (*Prefix, error) {
	return d.prefix(ids, nil, widthOf(len(ids), d.cfg.MaxSeqLength+1))
}

// widthOf is what n ids are padded to, at most most.
func widthOf(n, most int) int { return min(most, (n+prefixUnit-1)/prefixUnit*prefixUnit) }

// prefix runs a condition, padded on the left to width columns, and the ids of an image with its marks, if there is one.
func (d *Decoder) prefix(ids, image []int32, width int) (*Prefix, error) {
	if len(ids) == 0 || len(ids) > width {
		return nil, fmt.Errorf("showo: condition of %d ids, want 1 to %d", len(ids), width)
	}
	for i, id := range ids {
		if id < 0 || int(id) >= d.cfg.VocabSize {
			return nil, fmt.Errorf("showo: condition id %d is %d, want 0 to %d", i, id, d.cfg.VocabSize-1)
		}
	}
	key := fmt.Sprint(width, ids, image)
	d.mu.Lock()
	p := d.prefixes[key]
	d.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p = &Prefix{width: width + len(image), pads: width - len(ids), tile: d.o.Tile}
	padded := make([]int32, p.width)
	for i := range p.pads {
		padded[i] = d.cfg.Pad()
	}
	copy(padded[p.pads:], ids)
	copy(padded[width:], image)
	program := d.prompt
	if image != nil {
		program, p.tile = d.correct, 1 // a correction comes alone
	}
	in := []*tensors.Tensor{graphx.Tensor(padded, 1, p.width), graphx.Tensor([]int32{int32(p.pads)}, 1)}
	out, err := program.Run(in[0], in[1])
	graphx.Free(in...)
	if err != nil {
		return nil, fmt.Errorf("showo: prompt of %d ids: %w", len(ids), err)
	}
	p.kv = graphx.Floats(out[0])
	d.keep(key, p)
	return p, nil
}

// keep stores a prefix and drops the oldest ones beyond the budget.
func (d *Decoder) keep(key string, p *Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.prefixes[key] != nil {
		return
	}
	d.prefixes[key] = p
	d.order = append(d.order, key)
	most := max(tilesKept, bytesKept/(4*(len(p.kv)+d.cfg.NumVQTokens*d.cfg.CodebookSize)))
	for len(d.order) > most {
		delete(d.prefixes, d.order[0])
		d.order = d.order[1:]
	}
}

// Probabilities returns for each state the guided distribution [N*K] over the codebook at every position, row-major by
// position. Equal states, as forks of one path are, are computed once and share the returned slices; do not write to them.
func (d *Decoder) Probabilities(ctx context.Context, states []State) ([][]float32, error) {
	type state struct {
		under  *Prefix
		tokens string
	}
	out := make([][]float32, len(states))
	var jobs []State
	jobOf := make([]int, len(states))
	same := map[state]int{}    // the job of a state
	fresh := map[*Prefix]int{} // jobs whose tokens are all masked
	for i, s := range states {
		if err := d.cfg.checkTokens(s.Tokens, true); err != nil {
			return nil, fmt.Errorf("showo: state %d: %w", i, err)
		}
		key := state{s.Prefix, fmt.Sprint(s.Tokens)}
		job, ok := same[key]
		if !ok {
			first := !slices.ContainsFunc(s.Tokens, func(t int32) bool { return t != cot.Masked })
			if first {
				if out[i] = d.firstOf(s.Prefix); out[i] != nil {
					continue
				}
				fresh[s.Prefix] = len(jobs)
			}
			job = len(jobs)
			same[key] = job
			jobs = append(jobs, s)
		}
		jobOf[i] = job
	}
	results, err := d.run(ctx, d.step, jobs)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	for p, job := range fresh {
		p.first = results[job]
	}
	d.mu.Unlock()
	for i := range out {
		if out[i] == nil {
			out[i] = results[jobOf[i]]
		}
	}
	return out, nil
}

func (d *Decoder) firstOf(p *Prefix) []float32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return p.first
}

// Logits returns for each state what Probabilities is the softmax of, [N*K].
func (d *Decoder) Logits(ctx context.Context, states []State) ([][]float32, error) {
	return d.run(ctx, d.logits, states)
}

// run computes a step program's rows [N*K] for all states, in tiles of states whose prefixes are alike.
func (d *Decoder) run(ctx context.Context, program *graphx.Program, states []State) ([][]float32, error) {
	out := make([][]float32, len(states))
	type kind struct{ width, tile int }
	like := map[kind][]int{}
	var kinds []kind
	for i, s := range states {
		k := kind{s.Prefix.width, s.Prefix.tile}
		if like[k] == nil {
			kinds = append(kinds, k)
		}
		like[k] = append(like[k], i)
	}
	tiles, ctx := errgroup.WithContext(ctx)
	tiles.SetLimit(d.parallel)
	for _, k := range kinds {
		for tile := range slices.Chunk(like[k], k.tile) {
			tiles.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := d.runTile(program, k.width, k.tile, states, tile, out); err != nil {
					return fmt.Errorf("showo: step of %d paths: %w", len(tile), err)
				}
				return nil
			})
		}
	}
	return out, tiles.Wait()
}

// runTile fills out[i] for the states i of one tile, which is filled up to size.
func (d *Decoder) runTile(program *graphx.Program, width, size int, states []State, tile []int, out [][]float32) error {
	n, each := d.cfg.NumVQTokens, d.cfg.NumVQTokens*d.cfg.CodebookSize
	rows := make([]*Prefix, size, 2*size)
	ids := make([]int32, 0, size*n)
	for r := range rows {
		s := states[tile[min(r, len(tile)-1)]] // rows to spare repeat the last state
		rows[r] = s.Prefix
		ids = append(ids, d.cfg.ImageIDs(s.Tokens)...)
	}
	if d.o.Guidance != 0 {
		uncond, err := d.prefix(NewPrompting(d.cfg).Condition(nil), nil, width)
		if err != nil {
			return err
		}
		for range size {
			rows = append(rows, uncond)
		}
	}
	pads := make([]int32, len(rows))
	for r, p := range rows {
		pads[r] = int32(p.pads)
	}
	in := []*tensors.Tensor{graphx.Tensor(ids, size, n), graphx.Tensor(pads, len(pads))}
	keys, err := d.keysOf(rows)
	if err != nil {
		return err
	}
	result, err := program.Run(in[0], in[1], keys)
	graphx.Free(in...)
	if err != nil {
		return err
	}
	err = tensors.ConstFlatData(result[0], func(flat []float32) {
		for r, i := range tile {
			out[i] = slices.Clone(flat[r*each : (r+1)*each])
		}
	})
	graphx.Free(result...)
	return err
}

// keysOf is the keys and values of a tile's rows.
func (d *Decoder) keysOf(rows []*Prefix) (*tensors.Tensor, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, t := range d.tiles {
		if slices.Equal(t.of, rows) {
			d.tiles = append(slices.Delete(d.tiles, i, i+1), t) // latest last
			return t.kv, nil
		}
	}
	flat := make([]float32, 0, len(rows)*len(rows[0].kv))
	for _, p := range rows {
		flat = append(flat, p.kv...)
	}
	l := d.cfg.LLM
	t := tileKeys{of: rows, kv: graphx.Tensor(flat, len(rows), 2*l.Layers, l.Heads, rows[0].width, l.HiddenSize/l.Heads)}
	if err := d.step.Keep(t.kv); err != nil { // tiles of one prompt run at once
		return nil, err
	}
	for len(d.tiles) >= max(tilesKept, bytesKept/(4*len(flat))) {
		d.tiles = slices.Delete(d.tiles, 0, 1) // its buffers go with the garbage: another goroutine may still read them
	}
	d.tiles = append(d.tiles, t)
	return t.kv, nil
}
