package train

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"imagecot/ckpt"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// LoRA trains low-rank changes in the place of the weights themselves (Hu et al., arXiv 2106.09685): the model computes with
//
//	W + (alpha/r) B A,   A [r, in] from U(-1/sqrt(in), 1/sqrt(in)), B [out, r] from 0
//
// for the targeted weights W [out, in], and only A and B learn. The result is an adapter in PEFT's format and the weights
// with it merged in.
type LoRA struct {
	R       int      `yaml:"r" json:"r"`
	Alpha   float64  `yaml:"alpha" json:"alpha"`
	Targets []string `yaml:"target_modules" json:"target_modules"` // module names, whole or from a dot on
}

func (l *LoRA) check() error {
	switch {
	case l == nil:
		return nil
	case l.R < 1 || !(l.Alpha > 0) || math.IsInf(l.Alpha, 0):
		return fmt.Errorf("lora: r is %d and alpha %v, want positive numbers", l.R, l.Alpha)
	case len(l.Targets) == 0:
		return errors.New("lora: target_modules is empty")
	}
	return nil
}

// Names of an adapter's weights are the module's and one of these.
const (
	loraA = ".lora_A.weight"
	loraB = ".lora_B.weight"
)

// adapt adds the adapter's weights to the starting weights and returns the names of those. Without a LoRA recipe it does
// nothing.
func (r Recipe) adapt(params map[string]*tensors.Tensor) ([]string, error) {
	if r.LoRA == nil {
		return nil, nil
	}
	var added []string
	found := map[string]bool{}
	for at, name := range slices.Sorted(maps.Keys(params)) {
		module, ok := strings.CutSuffix(name, ".weight")
		if !ok || !ckpt.Targeted(module, r.LoRA.Targets) {
			continue
		}
		shape := params[name].Shape().Dimensions
		if len(shape) != 2 {
			return nil, fmt.Errorf("train: lora: %s has shape %v, want a matrix", name, shape)
		}
		rng, bound := prng.New(r.Seed, at, prng.Init).Rand(), 1/math.Sqrt(float64(shape[1]))
		a := make([]float32, r.LoRA.R*shape[1])
		for i := range a {
			a[i] = float32((2*rng.Float64() - 1) * bound)
		}
		params[module+loraA] = graphx.Tensor(a, r.LoRA.R, shape[1])
		params[module+loraB] = graphx.Tensor(make([]float32, shape[0]*r.LoRA.R), shape[0], r.LoRA.R)
		added = append(added, module+loraA, module+loraB)
		for _, t := range r.LoRA.Targets {
			found[t] = found[t] || ckpt.Targeted(module, []string{t})
		}
	}
	for _, t := range r.LoRA.Targets {
		if !found[t] {
			return nil, fmt.Errorf("train: lora: no weight of a module %s among %d", t, len(params))
		}
	}
	slices.Sort(added)
	return added, nil
}

// adapted returns the weights that the model computes with: the targeted ones changed, the adapter's own left out.
func (r Recipe) adapted(params map[string]*graph.Node) map[string]*graph.Node {
	if r.LoRA == nil {
		return params
	}
	out := maps.Clone(params)
	for name, a := range params {
		module, ok := strings.CutSuffix(name, loraA)
		if !ok {
			continue
		}
		change := graph.MatMul(params[module+loraB], a) // [out, r] [r, in]
		out[module+".weight"] = graph.Add(params[module+".weight"], graph.MulScalar(change, r.LoRA.Alpha/float64(r.LoRA.R)))
		delete(out, module+loraA)
		delete(out, module+loraB)
	}
	return out
}

// Adapter is what the run has learnt so far, nil if it trains the weights themselves. base names what it changes.
func (l *Loop) Adapter(base string) (*ckpt.Adapter, error) {
	if l.Recipe.LoRA == nil {
		return nil, nil //nolint:nilnil // no adapter is no error
	}
	r := l.Recipe.LoRA
	a := &ckpt.Adapter{
		Config: ckpt.LoRAConfig{
			Type: "LORA", Base: base, R: r.R, Alpha: r.Alpha, Targets: r.Targets, Bias: "none", InferenceMode: true,
			RankPattern: map[string]int{}, AlphaPattern: map[string]float64{},
		},
		Changes: map[string]ckpt.LowRank{},
	}
	learnt := l.current()
	for name, t := range learnt {
		module, ok := strings.CutSuffix(name, loraA)
		if !ok {
			continue
		}
		in, out := t.Shape().Dim(1), l.params[module+".weight"].Shape().Dim(0)
		values := map[string][]float32{}
		for _, part := range []string{loraA, loraB} {
			flat, err := tensors.CopyFlatData[float32](learnt[module+part])
			if err != nil {
				return nil, fmt.Errorf("train: %s%s: %w", module, part, err)
			}
			values[part] = flat
		}
		a.Changes[module] = ckpt.LowRank{A: values[loraA], B: values[loraB], R: r.R, In: in, Out: out, Scale: r.Alpha / float64(r.R)}
	}
	return a, nil
}

// merged returns the weights with the adapter merged in, as ckpt.Merge merges its files.
func (l *Loop) merged() (map[string]*tensors.Tensor, error) {
	a, err := l.Adapter("")
	if err != nil {
		return nil, err
	}
	out := map[string]*tensors.Tensor{}
	for name, t := range l.current() {
		if strings.HasSuffix(name, loraA) || strings.HasSuffix(name, loraB) {
			continue
		}
		out[name] = t
		c, ok := a.Changes[strings.TrimSuffix(name, ".weight")]
		if !ok {
			continue
		}
		flat, err := tensors.CopyFlatData[float32](t)
		if err == nil {
			flat, err = c.Apply(flat)
		}
		if err != nil {
			return nil, fmt.Errorf("train: merge %s: %w", name, err)
		}
		out[name] = graphx.Tensor(flat, t.Shape().Dimensions...)
	}
	return out, nil
}
