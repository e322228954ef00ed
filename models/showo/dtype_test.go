package showo

import (
	"math"
	"path/filepath"
	"testing"

	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
)

// kept loads a folder's tensors onto the engine.
func kept(tb testing.TB, be compute.Backend, dir string, float ckpt.DType) map[string]*tensors.Tensor {
	tb.Helper()
	f, err := ckpt.OpenModel(dir)
	if err != nil {
		tb.Fatal(err)
	}
	loaded, err := f.TensorsFor(ckpt.Place{Engine: be, Float: float})
	if err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	return loaded
}

// A checkpoint whose matrices are kept as bf16 decodes nearly as in float32, from weights that lie on the engine.
func TestKeptAsBF16(t *testing.T) {
	cfg := small()
	w := lively(cfg)
	var all []ckpt.Tensor
	for _, name := range w.Names() {
		x, err := ckpt.FromTensor(name, w.Get(name), ckpt.F32)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	dir := t.TempDir()
	if err := ckpt.Write(filepath.Join(dir, ckpt.ModelFile), all, nil); err != nil {
		t.Fatal(err)
	}
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		logits := map[ckpt.DType][]float32{}
		for _, float := range []ckpt.DType{ckpt.F32, ckpt.BF16} {
			loaded := kept(t, be, dir, float)
			matrix, vector := loaded["showo.lm_head.weight"].DType(), loaded["showo.lm_head.bias"].DType()
			if want := map[ckpt.DType]dtypes.DType{ckpt.F32: dtypes.Float32, ckpt.BF16: dtypes.BFloat16}[float]; matrix != want || vector != dtypes.Float32 {
				t.Errorf("%s: a matrix is %s and a vector %s", float, matrix, vector)
			}
			d, err := NewDecoder(be, cfg, graphx.NewWeights(loaded), Options{Steps: 4, Guidance: 1, Rule: "compound", Schedule: "cosine"})
			if err != nil {
				t.Fatal(err)
			}
			prefix, err := d.Condition(NewPrompting(cfg).Condition(letters{}.Encode("red")))
			if err != nil {
				t.Fatal(err)
			}
			tokens := make([]int32, cfg.NumVQTokens)
			for i := range tokens {
				tokens[i] = int32(i)
			}
			tokens[3] = cot.Masked
			got, err := d.Logits(t.Context(), []State{{prefix, tokens}})
			if err != nil {
				t.Fatal(err)
			}
			logits[float] = got[0]
		}
		var square, apart float64
		for i, want := range logits[ckpt.F32] {
			square += float64(want) * float64(want)
			apart += math.Pow(float64(logits[ckpt.BF16][i]-want), 2)
		}
		if off := math.Sqrt(apart / square); off == 0 || off > .03 {
			t.Errorf("logits are %.4f of their size apart, want more than 0 and at most .03", off)
		}
	})
}
