package ckpt

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// small is an adapter of one weight [2, 3] with r = 1, and a bias that was trained as a whole.
func small() *Adapter {
	return &Adapter{
		Config: LoRAConfig{
			Type: "LORA", R: 1, Alpha: 2, Targets: Targets{"q_proj"}, Bias: "lora_only",
			RankPattern: map[string]int{}, AlphaPattern: map[string]float64{},
		},
		Changes: map[string]LowRank{"m.q_proj": {A: []float32{1, 2, 3}, B: []float32{10, -1}, R: 1, In: 3, Out: 2, Scale: 2}},
		Whole:   map[string]Tensor{"m.q_proj.bias": {"m.q_proj.bias", F32, []int{2}, []float32{7, 8}}},
	}
}

func base(t *testing.T, d DType) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), ModelFile)
	values := any([]float32{0, 1, 2, 3, 4, 5})
	if d == F16 {
		values = Raw{0, 0, 0, 0x3c, 0, 0x40, 0, 0x42, 0, 0x44, 0, 0x45}
	}
	if err := Write(path, []Tensor{
		{"m.q_proj.weight", d, []int{2, 3}, values}, {"m.q_proj.bias", F32, []int{2}, []float32{0, 0}}, {"other", I32, []int{1}, []int32{5}},
	}, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestAdapterIsReadAsWritten(t *testing.T) {
	dir, want := t.TempDir(), small()
	if err := want.Write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := OpenAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestMerge(t *testing.T) {
	for _, d := range []DType{F32, BF16, F16} {
		merged, err := Merge(base(t, d), small(), nil)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), ModelFile)
		if err := Write(path, merged, nil); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		// W + 2 B A = [0 1 2; 3 4 5] + [20 40 60; -2 -4 -6]
		if got, err := f.Float32("m.q_proj.weight"); err != nil || !slices.Equal(got, []float32{20, 41, 62, 1, 0, -1}) {
			t.Errorf("%s: merged weight %v (%v)", d, got, err)
		}
		if got, err := f.Float32("m.q_proj.bias"); err != nil || !slices.Equal(got, []float32{7, 8}) {
			t.Errorf("%s: bias %v (%v)", d, got, err)
		}
		if got, err := f.Int32("other"); err != nil || got[0] != 5 {
			t.Errorf("%s: other %v (%v)", d, got, err)
		}
		want := map[DType]DType{F32: F32, BF16: BF16, F16: F32}[d]
		if info, _ := f.Info("m.q_proj.weight"); info.DType != want {
			t.Errorf("%s became %s, want %s", d, info.DType, want)
		}
		f.Close()
	}
}

// An adapter that was trained on another naming scheme finds its weights by their canonical names.
func TestMergeAcrossNames(t *testing.T) {
	a := small()
	a.Changes = map[string]LowRank{"language_model.model.q_proj": a.Changes["m.q_proj"]}
	a.Whole = map[string]Tensor{}
	canonical := func(name string) string { return strings.Replace(name, "language_model.model.", "m.", 1) }
	if _, err := Merge(base(t, F32), a, canonical); err != nil {
		t.Error(err)
	}
	if _, err := Merge(base(t, F32), a, nil); err == nil || !strings.Contains(err.Error(), "the model has no") {
		t.Errorf("without them: %v", err)
	}
	a = small()
	c := a.Changes["m.q_proj"]
	c.In, c.A = 2, c.A[:2]
	a.Changes["m.q_proj"] = c
	if _, err := Merge(base(t, F32), a, nil); err == nil || !strings.Contains(err.Error(), "has shape [2 3]") {
		t.Errorf("another shape: %v", err)
	}
}

func TestAdapterScales(t *testing.T) {
	c := LoRAConfig{Alpha: 16, AlphaPattern: map[string]float64{"q_proj": 8, "layers.1.v_proj": 4}}
	for _, test := range []struct {
		stable bool
		module string
		r      int
		want   float64
	}{
		{false, "m.layers.0.k_proj", 8, 2},
		{true, "m.layers.0.k_proj", 16, 4},
		{false, "m.layers.0.q_proj", 8, 1},
		{false, "m.layers.1.v_proj", 8, .5},
		{false, "m.layers.11.v_proj", 8, 2},
		{false, "m.layers.0.xq_proj", 8, 2},
	} {
		c.RankStable = test.stable
		if got, err := c.scale(test.module, test.r); err != nil || got != test.want {
			t.Errorf("%s, r %d: %v (%v), want %v", test.module, test.r, got, err, test.want)
		}
	}
}

func TestBadAdapters(t *testing.T) {
	good := `{"peft_type":"LORA","r":1,"lora_alpha":2,"target_modules":"q_proj|v_proj","bias":"none","extra":{"x":1}}`
	a := "base_model.model.m.q_proj.lora_A.weight"
	b := "base_model.model.m.q_proj.lora_B.weight"
	pair := []Tensor{{a, F32, []int{1, 3}, []float32{1, 2, 3}}, {b, F32, []int{2, 1}, []float32{1, 2}}}
	write := func(config string, tensors []Tensor) error {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, AdapterConfig), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Write(filepath.Join(dir, AdapterFile), tensors, nil); err != nil {
			t.Fatal(err)
		}
		_, err := OpenAdapter(dir)
		return err
	}
	if err := write(good, pair); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config  string
		tensors []Tensor
		want    string
	}{
		"another method":   {strings.Replace(good, "LORA", "LOHA", 1), pair, "only LORA"},
		"DoRA":             {strings.Replace(good, `"bias"`, `"use_dora":true,"bias"`, 1), pair, "DoRA"},
		"transposed":       {strings.Replace(good, `"bias"`, `"fan_in_fan_out":true,"bias"`, 1), pair, "fan_in_fan_out"},
		"biases inside":    {strings.Replace(good, `"bias"`, `"lora_bias":true,"bias"`, 1), pair, "lora_bias"},
		"no rank":          {strings.Replace(good, `"r":1`, `"r":0`, 1), pair, "r is 0"},
		"no JSON":          {"{", pair, AdapterConfig},
		"nothing inside":   {good, nil, "changes nothing"},
		"A alone":          {good, pair[:1], "lora_B"},
		"B alone":          {good, pair[1:], "no lora_A"},
		"other rank":       {good, []Tensor{pair[0], {b, F32, []int{1, 2}, []float32{1, 2}}}, "are no [r, in]"},
		"of an embedding":  {good, []Tensor{{"base_model.model.x.lora_embedding_A", F32, []int{1}, []float32{1}}}, "embeddings"},
		"another prefix":   {good, []Tensor{{"x.lora_A.weight", F32, []int{1}, []float32{1}}}, "does not begin with"},
		"bad pattern":      {strings.Replace(good, `"bias"`, `"alpha_pattern":{"(":1},"bias"`, 1), pair, "alpha_pattern"},
		"integers for A":   {good, []Tensor{{a, I32, []int{1, 3}, []int32{1, 2, 3}}, pair[1]}, "I32"},
		"a convolution, A": {good, []Tensor{{a, F32, []int{1, 3, 1}, []float32{1, 2, 3}}, pair[1]}, "are no [r, in]"},
	} {
		if err := write(c.config, c.tensors); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, c.want)
		}
	}
}
