package ckpt

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"imagecot/internal/atomicfile"
)

// The files of a LoRA adapter in PEFT's format.
const (
	AdapterFile   = "adapter_model.safetensors"
	AdapterConfig = "adapter_config.json"
)

// LoRAConfig is adapter_config.json: the fields that decide what an adapter computes, and those that its readers demand.
type LoRAConfig struct {
	Type          string             `json:"peft_type"` // "LORA"
	TaskType      *string            `json:"task_type"`
	Base          string             `json:"base_model_name_or_path"`
	R             int                `json:"r"`
	Alpha         float64            `json:"lora_alpha"`
	Dropout       float64            `json:"lora_dropout"`
	Targets       Targets            `json:"target_modules"`
	Bias          string             `json:"bias"`
	RankStable    bool               `json:"use_rslora"`
	RankPattern   map[string]int     `json:"rank_pattern"`
	AlphaPattern  map[string]float64 `json:"alpha_pattern"`
	InferenceMode bool               `json:"inference_mode"`
	FanInFanOut   bool               `json:"fan_in_fan_out"`
	DoRA          bool               `json:"use_dora"`
	LoRABias      bool               `json:"lora_bias"`
}

// Targets are names of modules, whole or from a dot on; a single text is a regular expression.
type Targets []string

// UnmarshalJSON reads a list or a text.
func (t *Targets) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = Targets{one}
		return nil
	}
	var list []string
	err := json.Unmarshal(data, &list)
	*t = list
	return err
}

// Targeted says whether a module's name is one of the targets or ends in a dot and one of them.
func Targeted(module string, targets []string) bool {
	return slices.ContainsFunc(targets, func(t string) bool { return module == t || strings.HasSuffix(module, "."+t) })
}

func (c LoRAConfig) check() error {
	switch {
	case !strings.EqualFold(c.Type, "LORA"):
		return fmt.Errorf("peft_type is %q, only LORA is known", c.Type)
	case c.FanInFanOut:
		return errors.New("fan_in_fan_out is true: weights stored [in, out] are not known")
	case c.DoRA:
		return errors.New("use_dora is true: DoRA is not known")
	case c.LoRABias:
		return errors.New("lora_bias is true: biases of the low-rank layers are not known")
	case c.R < 1 || !(c.Alpha > 0) || math.IsInf(c.Alpha, 0):
		return fmt.Errorf("r is %d and lora_alpha %v, want positive numbers", c.R, c.Alpha)
	}
	return nil
}

// scale is the factor of B A for a module whose A has r rows.
func (c LoRAConfig) scale(module string, r int) (float64, error) {
	alpha := c.Alpha
	for _, pattern := range slices.Sorted(maps.Keys(c.AlphaPattern)) {
		re, err := regexp.Compile(`^(?:.*\.)?(?:` + pattern + `)$`)
		if err != nil {
			return 0, fmt.Errorf("alpha_pattern %q: %w", pattern, err)
		}
		if re.MatchString(module) {
			alpha = c.AlphaPattern[pattern]
			break
		}
	}
	if c.RankStable {
		return alpha / math.Sqrt(float64(r)), nil
	}
	return alpha / float64(r), nil
}

// LowRank is the change of one weight [Out, In]: Scale B A.
type LowRank struct {
	A, B  []float32 // [R, In] and [Out, R], row-major
	R     int
	In    int
	Out   int
	Scale float64
}

// Adapter is a LoRA adapter (Hu et al., arXiv 2106.09685): low-rank changes of some weights, and other weights as a whole.
type Adapter struct {
	Config  LoRAConfig
	Changes map[string]LowRank // by the name of the module, without ".weight"
	Whole   map[string]Tensor  // float32, by the tensor's name: trained biases and modules_to_save
}

// peftPrefix is what PEFT puts in front of a module's name.
const peftPrefix = "base_model.model."

// OpenAdapter reads an adapter's folder.
func OpenAdapter(dir string) (*Adapter, error) {
	text, err := os.ReadFile(filepath.Join(dir, AdapterConfig))
	if err != nil {
		return nil, fmt.Errorf("ckpt: adapter: %w", err)
	}
	a := &Adapter{Changes: map[string]LowRank{}, Whole: map[string]Tensor{}}
	if err := json.Unmarshal(text, &a.Config); err == nil {
		err = a.Config.check()
		if err != nil {
			return nil, fmt.Errorf("ckpt: adapter: %s: %w", AdapterConfig, err)
		}
	} else {
		return nil, fmt.Errorf("ckpt: adapter: %s: %w", AdapterConfig, err)
	}
	f, err := Open(filepath.Join(dir, AdapterFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for _, name := range f.names {
		if err := a.take(f, name); err != nil {
			return nil, fmt.Errorf("ckpt: adapter: tensor %q: %w", name, err)
		}
	}
	if len(a.Changes)+len(a.Whole) == 0 {
		return nil, fmt.Errorf("ckpt: adapter: %s changes nothing", dir)
	}
	return a, nil
}

// take reads one tensor of the adapter's file: lora_A brings its lora_B along.
func (a *Adapter) take(f *File, name string) error {
	plain, ok := strings.CutPrefix(name, peftPrefix)
	if !ok {
		return fmt.Errorf("does not begin with %s", peftPrefix)
	}
	info, _ := f.Info(name)
	if strings.Contains(plain, "lora_embedding_") || strings.Contains(plain, "lora_magnitude_vector") {
		return errors.New("adapters of embeddings and DoRA are not known")
	}
	module, isA := strings.CutSuffix(plain, ".lora_A.weight")
	if module2, isB := strings.CutSuffix(plain, ".lora_B.weight"); isB {
		if _, ok := f.Info(peftPrefix + module2 + ".lora_A.weight"); !ok {
			return errors.New("has no lora_A beside it")
		}
		return nil
	}
	values, err := f.Float32(name)
	if err != nil {
		return err
	}
	if !isA {
		a.Whole[plain] = Tensor{Name: plain, DType: F32, Shape: info.Shape, Values: values}
		return nil
	}
	nameB := peftPrefix + module + ".lora_B.weight"
	b, err := f.Float32(nameB)
	if err != nil {
		return err
	}
	infoB, _ := f.Info(nameB)
	if len(info.Shape) != 2 || len(infoB.Shape) != 2 || info.Shape[0] != infoB.Shape[1] || info.Shape[0] == 0 {
		return fmt.Errorf("shapes %v and %v are no [r, in] and [out, r]", info.Shape, infoB.Shape)
	}
	c := LowRank{A: values, B: b, R: info.Shape[0], In: info.Shape[1], Out: infoB.Shape[0]}
	if c.Scale, err = a.Config.scale(module, c.R); err != nil {
		return err
	}
	a.Changes[module] = c
	return nil
}

// Write writes the adapter's folder as PEFT reads it.
func (a *Adapter) Write(dir string) error {
	if err := a.Config.check(); err != nil {
		return fmt.Errorf("ckpt: adapter: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("ckpt: adapter: %w", err)
	}
	var all []Tensor
	for module, c := range a.Changes {
		all = append(all,
			Tensor{peftPrefix + module + ".lora_A.weight", F32, []int{c.R, c.In}, c.A},
			Tensor{peftPrefix + module + ".lora_B.weight", F32, []int{c.Out, c.R}, c.B})
	}
	for name, t := range a.Whole {
		t.Name = peftPrefix + name
		all = append(all, t)
	}
	if err := Write(filepath.Join(dir, AdapterFile), all, map[string]string{"format": "pt"}); err != nil {
		return err
	}
	text, err := json.MarshalIndent(a.Config, "", "  ")
	if err != nil {
		return fmt.Errorf("ckpt: adapter: %w", err)
	}
	return atomicfile.WriteFile(filepath.Join(dir, AdapterConfig), append(text, '\n'), 0o644)
}

// Apply returns W + Scale B A for a weight w [Out, In], each element summed in float64 and rounded once.
func (c LowRank) Apply(w []float32) ([]float32, error) {
	if len(w) != c.Out*c.In {
		return nil, fmt.Errorf("ckpt: adapter: a change of [%d %d] for a weight of %d elements", c.Out, c.In, len(w))
	}
	out := make([]float32, len(w))
	sum := make([]float64, c.In)
	for i := range c.Out {
		clear(sum)
		for k, b := range c.B[i*c.R : (i+1)*c.R] {
			row, b := c.A[k*c.In:(k+1)*c.In], float64(b)
			for j, v := range row {
				sum[j] += b * float64(v)
			}
		}
		for j, d := range sum {
			out[i*c.In+j] = float32(float64(w[i*c.In+j]) + c.Scale*d)
		}
	}
	return out, nil
}

// Merge returns the tensors of a model with the adapter's changes made, in the model's own types, for Write. canonical
// maps names of all naming schemes to one; nil compares them as they are. Everything that the adapter changes must be in the
// model, in its shape. The tensors refer to the open file, and a changed one is computed when it is written.
func Merge(f *File, a *Adapter, canonical func(string) string) ([]Tensor, error) {
	if canonical == nil {
		canonical = func(name string) string { return name }
	}
	stored := map[string]string{}
	for _, name := range f.names {
		stored[canonical(name)] = name
	}
	changed := map[string]LowRank{}
	whole := map[string][]float32{}
	for module, c := range a.Changes {
		name, ok := stored[canonical(module+".weight")]
		if !ok {
			return nil, fmt.Errorf("ckpt: adapter: the model has no %q (is it the adapter's base, %q?)", module+".weight", a.Config.Base)
		}
		if got := f.tensors[name].Shape; !slices.Equal(got, []int{c.Out, c.In}) {
			return nil, fmt.Errorf("ckpt: adapter: %q has shape %v, the adapter changes [%d %d]", name, got, c.Out, c.In)
		}
		changed[name] = c
	}
	for name, t := range a.Whole {
		at, ok := stored[canonical(name)]
		if !ok || !slices.Equal(f.tensors[at].Shape, t.Shape) {
			return nil, fmt.Errorf("ckpt: adapter: the model has no %q of shape %v", name, t.Shape)
		}
		whole[at] = t.Values.([]float32)
	}
	out := make([]Tensor, 0, len(f.names))
	for _, name := range f.names {
		e := f.tensors[name]
		t := Tensor{Name: name, DType: e.DType, Shape: e.Shape, Values: Raw(e.data)}
		c, low := changed[name]
		if values, ok := whole[name]; low || ok {
			if e.DType != F32 && e.DType != BF16 {
				t.DType = F32 // float16 has no room for small changes of large weights
			}
			t.Values = Lazy{N: t.size(), Make: func() ([]float32, error) {
				if ok {
					return values, nil
				}
				return c.Apply(float32s(e.DType, e.data))
			}}
		}
		out = append(out, t)
	}
	return out, nil
}

func (t Tensor) size() int { return Info{Shape: t.Shape}.Size() }
