package train

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Objective brings everything that a loop does not know: weights, batches, loss.
type Objective interface {
	// Init makes the starting weights, all float32.
	Init() (map[string]*tensors.Tensor, error)
	// Batch makes the inputs of pass i (from 0). It depends on i alone and may run while another pass computes.
	Batch(i int) ([]*tensors.Tensor, error)
	// Loss builds the scalar loss and scalar metrics of one batch.
	Loss(s graphx.Scope, in []*graph.Node) (loss *graph.Node, metrics []*graph.Node)
	// Metrics names what Loss returns.
	Metrics() []string
}

// Online is an objective whose batches depend on the weights, such as one that trains on images of its own making. The loop
// then makes no batch ahead of its step.
type Online interface {
	Objective
	// Look shows the weights as they are before a step (from 0), whose batches are made next, and after the last step, where
	// step is the recipe's max_steps. A run that goes on from a checkpoint begins with the look at its step once more. The
	// tensors belong to the loop and end with the step. ErrStop ends the run as if it were finished, any other error as a
	// failure.
	Look(ctx context.Context, step int, weights map[string]*tensors.Tensor) error
	// Looks says whether Look does anything at that step; weights are not made ready for one that does not.
	Looks(step int) bool
	// Figures are logged beside the metrics.
	Figures() map[string]float64
}

// Chooser is an Online objective that tells which of its looks was the best so far. A run that a rule ends goes back to the
// weights of that step (Loop.Return), whose checkpoint is kept until then.
type Chooser interface {
	Online
	// Best is the step of that look, 0 before any.
	Best() int
}

// ErrStop is what Look returns, wrapped with the reason, when a rule of the recipe ends the run.
var ErrStop = errors.New("train: stopped by rule")

// ErrNotFinite is returned when a loss or gradient is no number; the last checkpoint is untouched.
var ErrNotFinite = errors.New("train: loss or gradient is not finite")

// Loop is a run in progress. One goroutine owns it.
type Loop struct {
	Recipe    Recipe
	Objective Objective
	Log       Logger

	backend compute.Backend
	names   []string // weights, in order
	adapter []string // those of a LoRA adapter, in order
	keys    []string // optimiser state, in order
	rules   map[string]rule
	params  map[string]*tensors.Tensor
	state   map[string]*tensors.Tensor
	step    int    // optimiser steps done
	saved   string // newest checkpoint, "" if there is none
	stopped string // why a rule ended the run, "" if none did
	fused   *graph.Exec
	micro   *graph.Exec
	apply   *graph.Exec
}

// Logger is told the figures of a step; values are means since the last call.
type Logger interface {
	Log(step int, values map[string]float64) error
}

// New prepares a run from the objective's starting weights.
func New(be compute.Backend, r Recipe, o Objective, log Logger) (*Loop, error) {
	params, err := o.Init()
	if err != nil {
		return nil, fmt.Errorf("train: starting weights: %w", err)
	}
	l := &Loop{Recipe: r, Objective: o, Log: log, backend: be, params: params}
	if l.adapter, err = r.adapt(params); err != nil {
		return nil, err
	}
	l.names = slices.Sorted(maps.Keys(params))
	l.rules, err = r.rules(l.names, func(n string) int { return params[n].Shape().Rank() })
	if err != nil {
		return nil, err
	}
	for name, u := range l.rules {
		if r.LoRA != nil && !slices.Contains(l.adapter, name) {
			u.freeze = true
			l.rules[name] = u
		}
	}
	if l.state, err = r.newState(params, l.rules); err != nil {
		return nil, err
	}
	l.keys = slices.Sorted(maps.Keys(l.state))
	return l, l.compile()
}

// Step is the number of optimiser steps done.
func (l *Loop) Step() int { return l.step }

// Stopped says why a rule ended the run before its last step, "" if none did.
func (l *Loop) Stopped() string { return l.stopped }

// Best is the step that the objective finds best so far, -1 if it does not choose.
func (l *Loop) Best() int {
	if c, ok := l.Objective.(Chooser); ok {
		return c.Best()
	}
	return -1
}

// Weights returns the moving average if the recipe keeps one, else the weights themselves, with a LoRA adapter merged in.
// They belong to the loop.
func (l *Loop) Weights() (map[string]*tensors.Tensor, error) {
	if l.Recipe.LoRA != nil {
		return l.merged()
	}
	return l.current(), nil
}

// current returns the moving average of each weight that has one, else the weight.
func (l *Loop) current() map[string]*tensors.Tensor {
	out := maps.Clone(l.params)
	for _, n := range l.names {
		if mean := l.state[average+n]; mean != nil {
			out[n] = mean
		}
	}
	return out
}

// learnt names the weights that a checkpoint keeps: all, or with LoRA the adapter's, since the others stay as they were.
func (l *Loop) learnt() []string {
	if l.Recipe.LoRA != nil {
		return l.adapter
	}
	return l.names
}

func (l *Loop) trainable() []string {
	var out []string
	for _, n := range l.names {
		if !l.rules[n].freeze {
			out = append(out, n)
		}
	}
	return out
}

// compile builds the graph functions: one for everything when there is nothing to accumulate, else one that adds
// gradients up and one that applies them.
func (l *Loop) compile() error {
	trainable, metrics := l.trainable(), len(l.Objective.Metrics())
	nP, nS, nT := len(l.names), len(l.keys), len(trainable)
	lossAndGrads := func(params map[string]*graph.Node, in []*graph.Node) ([]*graph.Node, map[string]*graph.Node) {
		policy := graphx.PolicyFor(l.backend)
		policy.Recompute = l.Recipe.Recompute
		loss, values := l.Objective.Loss(graphx.NewScope(l.Recipe.adapted(params), policy), in)
		if len(values) != metrics {
			panic(fmt.Errorf("train: %d metrics where %d are named", len(values), metrics))
		}
		wrt := make([]*graph.Node, nT)
		for i, n := range trainable {
			wrt[i] = params[n]
		}
		grads := map[string]*graph.Node{}
		for i, g := range graph.Gradient(loss, wrt...) {
			grads[trainable[i]] = g
		}
		return append([]*graph.Node{loss}, values...), grads
	}
	var err error
	if l.Recipe.Accum == 1 {
		l.fused, err = graph.NewExec(l.backend, func(in []*graph.Node) []*graph.Node {
			params, state := zip(l.names, in[:nP]), zip(l.keys, in[nP:nP+nS])
			values, grads := lossAndGrads(params, in[nP+nS+1:])
			norm := l.Recipe.update(params, grads, state, l.names, l.rules, in[nP+nS])
			out := append(unzip(trainable, params), unzip(l.keys, state)...)
			return append(append(out, norm), values...)
		})
		return err
	}
	l.micro, err = graph.NewExec(l.backend, func(in []*graph.Node) []*graph.Node {
		values, grads := lossAndGrads(zip(l.names, in[:nP]), in[nP+nT:])
		out := make([]*graph.Node, nT)
		for i, n := range trainable {
			out[i] = graph.Add(in[nP+i], graph.MulScalar(grads[n], 1/float64(l.Recipe.Accum)))
		}
		return append(out, values...)
	})
	if err != nil {
		return err
	}
	l.apply, err = graph.NewExec(l.backend, func(in []*graph.Node) []*graph.Node {
		params, state := zip(l.names, in[:nP]), zip(l.keys, in[nP:nP+nS])
		grads := zip(trainable, in[nP+nS+1:])
		norm := l.Recipe.update(params, grads, state, l.names, l.rules, in[nP+nS])
		return append(append(unzip(trainable, params), unzip(l.keys, state)...), norm)
	})
	return err
}

// Run trains until the recipe's last step or until ctx ends; after each step it calls then (for checkpoints and
// progress). A step that has begun is finished.
func (l *Loop) Run(ctx context.Context, then func(step int) error) error {
	r := l.Recipe
	type made struct {
		in  []*tensors.Tensor
		err error
	}
	produce := func(i int) chan made {
		c := make(chan made, 1)
		go func() { in, err := l.Objective.Batch(i); c <- made{in, err} }()
		return c
	}
	online, _ := l.Objective.(Online)
	var next chan made
	if online == nil {
		next = produce(l.step * r.Accum)
	}
	sums, since := make([]float64, len(l.Objective.Metrics())+2), 0
	begun := time.Now()
	if online != nil {
		if err := l.look(ctx, online); err != nil {
			return err
		}
	}
	for l.step < r.MaxSteps && l.stopped == "" && ctx.Err() == nil {
		if online != nil {
			next = produce(l.step * r.Accum)
		}
		var batches [][]*tensors.Tensor
		for a := range r.Accum {
			m := <-next
			if m.err != nil {
				return fmt.Errorf("train: batch of step %d: %w", l.step, m.err)
			}
			batches = append(batches, m.in)
			if i := l.step*r.Accum + a + 1; i < r.MaxSteps*r.Accum && (online == nil || a+1 < r.Accum) {
				next = produce(i)
			}
		}
		values, err := l.stepOnce(batches)
		if err != nil {
			return err
		}
		for i, v := range values {
			sums[i] += v
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("%w: step %d, seed %d, last good checkpoint: %s", ErrNotFinite, l.step, r.Seed, cmp.Or(l.saved, "none"))
			}
		}
		l.step++
		since++
		if online != nil {
			if err := l.look(ctx, online); err != nil {
				return err
			}
		}
		if l.step%r.LogEvery == 0 || l.step == r.MaxSteps {
			if err := l.Log.Log(l.step, l.figures(sums, since, time.Since(begun))); err != nil {
				return err
			}
			clear(sums)
			since, begun = 0, time.Now()
		}
		if err := then(l.step); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// look shows an online objective the weights; if its rule ends the run, l.stopped says why.
func (l *Loop) look(ctx context.Context, online Online) error {
	if !online.Looks(l.step) {
		return nil
	}
	now := l.params
	if l.Recipe.LoRA != nil {
		var err error
		if now, err = l.merged(); err != nil {
			return err
		}
	}
	err := online.Look(ctx, l.step, now)
	if errors.Is(err, ErrStop) {
		l.stopped = err.Error()
		return nil
	}
	if err != nil {
		return fmt.Errorf("train: at step %d: %w", l.step, err)
	}
	return nil
}

// figures names the sums: gradient norm, loss, then the objective's metrics.
func (l *Loop) figures(sums []float64, n int, took time.Duration) map[string]float64 {
	out := map[string]float64{
		"grad_norm": sums[0] / float64(n), "loss": sums[1] / float64(n),
		"learning_rate": l.Recipe.learningRate(l.step - 1), "seconds_per_step": took.Seconds() / float64(n),
	}
	for i, name := range l.Objective.Metrics() {
		out[name] = sums[2+i] / float64(n)
	}
	if online, ok := l.Objective.(Online); ok {
		maps.Copy(out, online.Figures())
	}
	return out
}

// stepOnce does one optimiser step and returns gradient norm, loss and metrics.
func (l *Loop) stepOnce(batches [][]*tensors.Tensor) ([]float64, error) {
	scalars := tensors.FromFlatDataAndDimensions(l.Recipe.scalars(l.step), scalarCount)
	if l.fused != nil {
		args, err := l.weightsAndState()
		if err != nil {
			return nil, err
		}
		args = append(args, scalars)
		for _, t := range batches[0] {
			args = append(args, t)
		}
		out, err := l.fused.Exec(args...)
		if err != nil {
			return nil, fmt.Errorf("train: step %d: %w", l.step, err)
		}
		graphx.Free(append(batches[0], scalars)...)
		return l.take(out)
	}
	return l.accumulate(batches, scalars)
}

func (l *Loop) accumulate(batches [][]*tensors.Tensor, scalars *tensors.Tensor) ([]float64, error) {
	trainable := l.trainable()
	sums := make([]*tensors.Tensor, len(trainable))
	for i, n := range trainable {
		sums[i] = tensors.FromShape(l.params[n].Shape())
	}
	values := make([]float64, len(l.Objective.Metrics())+2)
	for _, b := range batches {
		var args []any
		for _, n := range l.names {
			args = append(args, l.params[n])
		}
		for _, t := range append(sums, b...) {
			args = append(args, t)
		}
		out, err := l.micro.Exec(args...)
		if err != nil {
			return nil, fmt.Errorf("train: step %d: %w", l.step, err)
		}
		graphx.Free(append(sums, b...)...)
		sums = out[:len(trainable):len(trainable)]
		for i, t := range out[len(trainable):] {
			values[i+1] += float64(graphx.Floats(t)[0]) / float64(len(batches))
		}
	}
	args, err := l.weightsAndState()
	if err != nil {
		return nil, err
	}
	args = append(args, scalars)
	for _, t := range sums {
		args = append(args, t)
	}
	out, err := l.apply.Exec(args...)
	if err != nil {
		return nil, fmt.Errorf("train: step %d: %w", l.step, err)
	}
	graphx.Free(append(sums, scalars)...)
	norm, err := l.take(out)
	if err == nil {
		values[0] = norm[0]
	}
	return values, err
}

// weightsAndState are the first arguments of an execution. What it changes is handed over, and its buffers may be used again; frozen
// weights stay.
func (l *Loop) weightsAndState() ([]any, error) {
	var args []any
	add := func(n string, t *tensors.Tensor, frozen bool) error {
		if frozen {
			args = append(args, t)
			return nil
		}
		d, err := graph.DonateTensorBuffer(t, l.backend, 0)
		if err != nil {
			return fmt.Errorf("train: %s: %w", n, err)
		}
		args = append(args, d)
		return nil
	}
	for _, n := range l.names {
		if err := add(n, l.params[n], l.rules[n].freeze); err != nil {
			return nil, err
		}
	}
	for _, k := range l.keys {
		if err := add(k, l.state[k], false); err != nil {
			return nil, err
		}
	}
	return args, nil
}

// take stores new weights and state and returns the scalars that follow them.
func (l *Loop) take(out []*tensors.Tensor) ([]float64, error) {
	trainable := l.trainable()
	for i, n := range trainable {
		l.params[n] = out[i]
	}
	out = out[len(trainable):]
	for i, k := range l.keys {
		l.state[k] = out[i]
	}
	var values []float64
	for _, t := range out[len(l.keys):] {
		if t.DType() != dtypes.Float32 || t.Shape().Rank() != 0 {
			return nil, fmt.Errorf("train: a metric has shape %s, want a float32 scalar", t.Shape())
		}
		values = append(values, float64(graphx.Floats(t)[0]))
	}
	return values, nil
}

func zip(names []string, nodes []*graph.Node) map[string]*graph.Node {
	m := make(map[string]*graph.Node, len(names))
	for i, n := range names {
		m[n] = nodes[i]
	}
	return m
}

func unzip(names []string, m map[string]*graph.Node) []*graph.Node {
	out := make([]*graph.Node, len(names))
	for i, n := range names {
		out[i] = m[n]
	}
	return out
}
