// Package graphx is the border between plain Go and computation graphs: named weights go in as parameters, a graph
// function reads them through a Scope, and panics of graph building come back as errors. Weight names are the
// tensor names of the checkpoint, unchanged.
package graphx

import (
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Weights is a set of named tensors, ordered by name.
type Weights struct {
	names []string
	byKey map[string]*tensors.Tensor

	mu   sync.Mutex
	kept compute.Backend // engine that holds all of them, nil until a program ran
}

// NewWeights takes ownership of the tensors.
func NewWeights(t map[string]*tensors.Tensor) *Weights {
	w := &Weights{byKey: t}
	for name := range t {
		w.names = append(w.names, name)
	}
	sort.Strings(w.names)
	return w
}

// Names in ascending order.
func (w *Weights) Names() []string { return w.names }

// LargeSize is the number of elements that makes weights large: between the tiny world's models and the published ones.
const LargeSize = 50_000_000

// Large reports whether there are LargeSize elements or more: one path, image or question alone then fills the machine.
func (w *Weights) Large() bool {
	total := 0
	for _, t := range w.byKey {
		total += t.Size()
	}
	return total >= LargeSize
}

// Get returns the tensor of that name, nil if there is none.
func (w *Weights) Get(name string) *tensors.Tensor { return w.byKey[name] }

// Set replaces the tensor of a name that exists.
func (w *Weights) Set(name string, t *tensors.Tensor) {
	if _, ok := w.byKey[name]; !ok {
		panic(fmt.Sprintf("graphx: no weight named %q", name))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.byKey[name], w.kept = t, nil
}

// keep moves the tensors to the engine before several goroutines hand them over: the first use of a tensor is not safe.
func (w *Weights) keep(be compute.Backend) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kept == be {
		return nil
	}
	for _, name := range w.names {
		if err := w.byKey[name].MaterializeOnDevice(be, true, 0); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	w.kept = be
	return nil
}

// Tensors in the order of Names.
func (w *Weights) Tensors() []*tensors.Tensor {
	out := make([]*tensors.Tensor, len(w.names))
	for i, name := range w.names {
		out[i] = w.byKey[name]
	}
	return out
}

// Policy says in which type products are computed; results and everything else are float32.
type Policy struct {
	// Compute is the operand type of matrix products: Float32 (the zero value counts as it) or BFloat16.
	Compute dtypes.DType
	// ShiftConv computes 3x3 convolutions as nine shifted matrix products (the pure-Go engine's convolution is slow).
	ShiftConv bool
	// Recompute is gradient checkpointing: see Scope.Layer.
	Recompute bool
}

// PolicyFor returns the policy that suits the engine, in float32.
func PolicyFor(be compute.Backend) Policy {
	return Policy{Compute: dtypes.Float32, ShiftConv: strings.HasPrefix(strings.ToLower(be.Name()), "go")}
}

// Scope gives a graph function its weights by relative name.
type Scope struct {
	params map[string]*graph.Node
	prefix string
	Policy Policy
}

// NewScope is used by trainers, which feed parameters themselves; others get a Scope from Program.
func NewScope(params map[string]*graph.Node, p Policy) Scope { return Scope{params: params, Policy: p} }

// In returns the scope below, for example s.In("layers", 3, "mlp").
func (s Scope) In(parts ...any) Scope {
	for _, p := range parts {
		s.prefix += fmt.Sprint(p) + "."
	}
	return s
}

// Has reports whether a weight of that relative name exists.
func (s Scope) Has(name string) bool { return s.params[s.prefix+name] != nil }

// Param returns a weight by relative name. With dims given, the shape is asserted. It panics with the full name of a
// missing or misshapen weight; Program turns that into an error.
func (s Scope) Param(name string, dims ...int) *graph.Node {
	n := s.params[s.prefix+name]
	if n == nil {
		panic(fmt.Errorf("graphx: weight %q is missing", s.prefix+name))
	}
	if len(dims) > 0 {
		got := n.Shape().Dimensions
		ok := len(got) == len(dims)
		for i := 0; ok && i < len(dims); i++ {
			ok = dims[i] < 0 || got[i] == dims[i]
		}
		if !ok {
			panic(fmt.Errorf("graphx: weight %q has shape %v, want %v", s.prefix+name, got, dims))
		}
	}
	return n
}

// Float32 returns a weight as float32 whatever it is stored as.
func (s Scope) Float32(name string, dims ...int) *graph.Node {
	return graph.ConvertDType(s.Param(name, dims...), dtypes.Float32)
}

// Func builds a graph from weights and inputs.
type Func func(s Scope, in []*graph.Node) []*graph.Node

// Program is a graph function compiled once for each set of input shapes. It is safe for concurrent use.
type Program struct {
	backend compute.Backend
	weights *Weights
	exec    *graph.Exec
	name    string
}

// NewProgram prepares fn over the weights; nothing is compiled before the first Run.
func NewProgram(be compute.Backend, name string, w *Weights, policy Policy, fn Func) (*Program, error) {
	names := w.Names()
	exec, err := graph.NewExec(be, func(all []*graph.Node) []*graph.Node {
		params := make(map[string]*graph.Node, len(names))
		for i, n := range names {
			params[n] = all[i]
		}
		return fn(NewScope(params, policy), all[len(names):])
	})
	if err != nil {
		return nil, fmt.Errorf("graphx: %s: %w", name, err)
	}
	exec.SetMaxCache(-1)
	return &Program{backend: be, weights: w, exec: exec, name: name}, nil
}

// Run executes the program. Inputs are Go slices, scalars or tensors; the outputs belong to the caller, who frees them
// with Free in loops.
func (p *Program) Run(in ...any) (out []*tensors.Tensor, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("graphx: %s: %v", p.name, r)
		}
	}()
	if err := p.weights.keep(p.backend); err != nil {
		return nil, fmt.Errorf("graphx: %s: %w", p.name, err)
	}
	args := make([]any, 0, len(p.weights.names)+len(in))
	for _, t := range p.weights.Tensors() {
		args = append(args, t)
	}
	out, err = p.exec.Exec(append(args, in...)...)
	if err != nil {
		return nil, fmt.Errorf("graphx: %s: %w", p.name, err)
	}
	return out, nil
}

// Keep moves a tensor to the engine. It must be called for one that several goroutines are going to pass to Run.
func (p *Program) Keep(t *tensors.Tensor) error {
	if err := t.MaterializeOnDevice(p.backend, true, 0); err != nil {
		return fmt.Errorf("graphx: %s: %w", p.name, err)
	}
	return nil
}

// Free releases tensors at once instead of at the next garbage collection.
func Free(ts ...*tensors.Tensor) {
	for _, t := range ts {
		if t != nil {
			_ = t.FinalizeAll()
		}
	}
}

// Floats copies a float32 tensor to a slice and frees it.
func Floats(t *tensors.Tensor) []float32 {
	v := tensors.MustCopyFlatData[float32](t)
	Free(t)
	return v
}

// Ints copies an int32 tensor to a slice and frees it.
func Ints(t *tensors.Tensor) []int32 {
	v := tensors.MustCopyFlatData[int32](t)
	Free(t)
	return v
}

// Tensor makes a tensor of the given dimensions from a flat slice.
func Tensor[T interface {
	float32 | int32 | uint8 | bool | float64 | int64
}](flat []T, dims ...int) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(flat, dims...)
}
