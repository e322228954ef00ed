package llavaov

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"imagecot/ckpt"

	"github.com/gomlx/gomlx/core/tensors"
)

// file writes weights under other names and reads them back.
func file(t *testing.T, w map[string]*tensors.Tensor, name func(string) string) *ckpt.File {
	t.Helper()
	var list []ckpt.Tensor
	for n, x := range w {
		one, err := ckpt.FromTensor(name(n), x, ckpt.F32)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, one)
	}
	var b bytes.Buffer
	if err := ckpt.Encode(&b, list, nil); err != nil {
		t.Fatal(err)
	}
	f, err := ckpt.Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func replaceAll(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if rest, ok := strings.CutPrefix(name, pairs[i]); ok {
				return pairs[i+1] + rest
			}
		}
		return name
	}
}

// schemes are the four ways in which published files name the same tensors.
func schemes() map[string]func(string) string {
	return map[string]func(string) string{
		"authors": func(n string) string { return n },
		"hf 4.51": replaceAll(towerPrefix, "vision_tower.vision_model.", projectorPrefix+"0", "multi_modal_projector.linear_1",
			projectorPrefix+"2", "multi_modal_projector.linear_2", newlineName, "image_newline", "model.", "language_model.model.", "lm_head", "language_model.lm_head"),
		"hf 4.52": replaceAll(towerPrefix, "model.vision_tower.vision_model.", projectorPrefix+"0", "model.multi_modal_projector.linear_1",
			projectorPrefix+"2", "model.multi_modal_projector.linear_2", newlineName, newlineName, "model.", "model.language_model."),
		"hf 5": replaceAll(towerPrefix, "vision_tower.", projectorPrefix+"0", "multi_modal_projector.linear_1",
			projectorPrefix+"2", "multi_modal_projector.linear_2", newlineName, "image_newline", "model.", "language_model.model.", "lm_head", "language_model.lm_head"),
	}
}

func TestLoadWeightsReadsEveryNamingScheme(t *testing.T) {
	c := smallConfig(100)
	for scheme, name := range schemes() {
		w := Init(c, rand.New(rand.NewPCG(1, 1)))
		w["lm_head.weight"] = clone(w[embedName])
		w[towerPrefix+"post_layernorm.weight"] = tensors.FromFlatDataAndDimensions(make([]float32, 16), 16) // nobody reads it
		got, err := LoadWeights(c, file(t, w, name))
		if err != nil {
			t.Errorf("%s: %v", scheme, err)
			continue
		}
		if n := len(Shapes(c)) + 1; len(got.Names()) != n {
			t.Errorf("%s: %d weights, want %d", scheme, len(got.Names()), n)
		}
		for _, n := range got.Names() {
			if !slices.Equal(tensors.MustCopyFlatData[float32](got.Get(n)), tensors.MustCopyFlatData[float32](w[n])) {
				t.Errorf("%s: %s holds other values", scheme, n)
			}
		}
	}
}

func TestLoadWeightsRefuses(t *testing.T) {
	same := func(n string) string { return n }
	vector := func() *tensors.Tensor { return tensors.FromFlatDataAndDimensions([]float32{1, 2}, 2) }
	for name, c := range map[string]struct {
		change func(map[string]*tensors.Tensor)
		want   string
	}{
		"missing":     {func(w map[string]*tensors.Tensor) { delete(w, "model.norm.weight") }, `"model.norm.weight" is missing`},
		"misshapen":   {func(w map[string]*tensors.Tensor) { w["model.norm.weight"] = vector() }, "has shape [2], want [24]"},
		"unknown":     {func(w map[string]*tensors.Tensor) { w["model.layers.3.mlp.up_proj.weight"] = vector() }, "is not known"},
		"twin":        {func(w map[string]*tensors.Tensor) { w["image_newline"] = clone(w[newlineName]) }, "are the same weight"},
		"no tower":    {func(w map[string]*tensors.Tensor) { drop(w, towerPrefix) }, "a language model without its vision tower?"},
		"other model": {func(w map[string]*tensors.Tensor) { drop(w, ""); w["x"] = vector() }, "another architecture?"},
		"adapter":     {func(w map[string]*tensors.Tensor) { drop(w, ""); w["q.lora_A.weight"] = vector() }, "a LoRA adapter?"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := smallConfig(100)
			w := Init(cfg, rand.New(rand.NewPCG(1, 1)))
			c.change(w)
			if _, err := LoadWeights(cfg, file(t, w, same)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	cfg := smallConfig(100)
	*cfg.Tied = false
	if _, err := LoadWeights(cfg, file(t, Init(cfg, rand.New(rand.NewPCG(1, 1))), same)); err == nil {
		t.Error("an untied model without a head is no error")
	}
}

func drop(w map[string]*tensors.Tensor, prefix string) {
	for n := range w {
		if strings.HasPrefix(n, prefix) {
			delete(w, n)
		}
	}
}

func TestInitIsReproducibleAndScaled(t *testing.T) {
	c := Tiny(512)
	a, b := Init(c, rand.New(rand.NewPCG(5, 5))), Init(c, rand.New(rand.NewPCG(5, 5)))
	total := 0
	for n, x := range a {
		total += x.Shape().Size()
		if !slices.Equal(tensors.MustCopyFlatData[float32](x), tensors.MustCopyFlatData[float32](b[n])) {
			t.Errorf("%s differs between two equal generators", n)
		}
	}
	if total < 1_200_000 || total > 1_700_000 {
		t.Errorf("%d parameters, want about 1.5 million", total)
	}
	for n, want := range map[string]float64{
		"model.layers.0.mlp.up_proj.weight": 1 / math.Sqrt(128), "model.layers.0.mlp.down_proj.weight": .5 / math.Sqrt(384), embedName: .05,
	} {
		sum := 0.
		v := tensors.MustCopyFlatData[float32](a[n])
		for _, x := range v {
			sum += float64(x) * float64(x)
		}
		if std := math.Sqrt(sum / float64(len(v))); math.Abs(std/want-1) > .03 {
			t.Errorf("%s has deviation %g, want %g", n, std, want)
		}
	}
}

func TestWithoutDenseDropsTheDenseHeadOnly(t *testing.T) {
	c := smallConfig(100)
	w := Init(c, rand.New(rand.NewPCG(1, 1)))
	n := len(w)
	for name, x := range DenseInit(c, rand.New(rand.NewPCG(1, 1))) {
		w[name] = x
	}
	if len(w) == n || len(WithoutDense(w)) != n {
		t.Errorf("%d weights with dense head, %d without, want %d", len(w), len(WithoutDense(w)), n)
	}
}

func clone(x *tensors.Tensor) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(tensors.MustCopyFlatData[float32](x), x.Shape().Dimensions...)
}
