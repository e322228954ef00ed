package train

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// layers learns y = V tanh(W x) with LoRA on W alone, from the same data as line.
type layers struct{ line }

func (l layers) Init() (map[string]*tensors.Tensor, error) {
	return map[string]*tensors.Tensor{
		"model.layers.0.q_proj.weight": graphx.Tensor([]float32{.1, .2, .3, .4, .5, .6, .7, .8, .9, 1, 1.1, 1.2}, 4, 3),
		"model.layers.0.q_proj.bias":   graphx.Tensor([]float32{.1, .2, .3, .4}, 4),
		"model.layers.0.v_proj.weight": graphx.Tensor([]float32{.1, -.2, .3, -.4, .5, .6, -.7, .8}, 2, 4),
	}, nil
}

func (l layers) Loss(s graphx.Scope, in []*graph.Node) (*graph.Node, []*graph.Node) {
	if s.Has("model.layers.0.q_proj.lora_A.weight") {
		panic("the model sees the adapter")
	}
	s = s.In("model", "layers", 0)
	linear := func(x *graph.Node, name string, out, in int) *graph.Node {
		return graph.MatMul(x, graph.Transpose(s.Param(name+".weight", out, in), 0, 1))
	}
	h := graph.Tanh(graph.Add(linear(in[0], "q_proj", 4, 3), graph.ExpandLeftToRank(s.Param("q_proj.bias", 4), 2)))
	e := graph.Sub(linear(h, "v_proj", 2, 4), in[1])
	return graph.ReduceAllMean(graph.Square(e)), []*graph.Node{graph.ReduceAllMean(graph.Abs(e))}
}

const loraRecipe = "max_steps: 12\nsave_steps: 4\nlora: {r: 2, alpha: 4, target_modules: [q_proj]}\n"

func TestLoRAMergesExactly(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		for _, more := range []string{"", "gradient_accumulation_steps: 2\n"} {
			o, dir := layers{line{batch: 8, nanAt: -1}}, t.TempDir()
			r := recipe(t, loraRecipe+more)
			r.Groups = nil
			base, err := o.Init()
			if err != nil {
				t.Fatal(err)
			}
			if err := writeTensors(filepath.Join(dir, "base.safetensors"), base, ckpt.F32); err != nil {
				t.Fatal(err)
			}
			out, err := run(t, be, r, o, dir, 0)
			if err != nil {
				t.Fatal(err)
			}
			for name, w := range base {
				if !slices.Equal(out[name], tensors.MustCopyFlatData[float32](w)) {
					t.Errorf("%s moved", name)
				}
			}
			if b := out["model.layers.0.q_proj.lora_B.weight"]; len(b) != 8 || slices.Max(b) == 0 {
				t.Errorf("B is %v", b)
			}
			l, err := New(be, r, o, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Resume(dir); err != nil {
				t.Fatal(err)
			}
			checkMerge(t, l, dir)
			checkSameLoss(t, be, l)
		}
	})
}

// checkMerge compares the run's own merged weights with base and adapter, written, read and merged by files.
func checkMerge(t *testing.T, l *Loop, dir string) {
	t.Helper()
	a, err := l.Adapter("base")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Write(filepath.Join(dir, "adapter")); err != nil {
		t.Fatal(err)
	}
	weights, err := l.Weights()
	if err != nil {
		t.Fatal(err)
	}
	if err := writeTensors(filepath.Join(dir, "trained.safetensors"), weights, ckpt.F32); err != nil {
		t.Fatal(err)
	}
	read, err := ckpt.OpenAdapter(filepath.Join(dir, "adapter"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := ckpt.Open(filepath.Join(dir, "base.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	merged, err := ckpt.Merge(f, read, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ckpt.Write(filepath.Join(dir, "merged.safetensors"), merged, nil); err != nil {
		t.Fatal(err)
	}
	one, err1 := os.ReadFile(filepath.Join(dir, "trained.safetensors"))
	other, err2 := os.ReadFile(filepath.Join(dir, "merged.safetensors"))
	if err := errors.Join(err1, err2); err != nil || !bytes.Equal(one, other) {
		t.Errorf("merging the files gives other bytes than the run (%v)", err)
	}
}

// checkSameLoss compares the loss through the adapter with that of the merged weights.
func checkSameLoss(t *testing.T, be compute.Backend, l *Loop) {
	t.Helper()
	in, err := l.Objective.Batch(0)
	if err != nil {
		t.Fatal(err)
	}
	loss := func(r Recipe, params map[string]*tensors.Tensor) float32 {
		t.Helper()
		p, err := graphx.NewProgram(be, "loss", graphx.NewWeights(params), graphx.Policy{}, func(s graphx.Scope, in []*graph.Node) []*graph.Node {
			all := map[string]*graph.Node{}
			for name := range params {
				all[name] = s.Param(name)
			}
			value, _ := l.Objective.Loss(graphx.NewScope(r.adapted(all), graphx.Policy{}), in)
			return []*graph.Node{value}
		})
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.Run(in[0], in[1])
		if err != nil {
			t.Fatal(err)
		}
		return graphx.Floats(out[0])[0]
	}
	merged, err := l.Weights()
	if err != nil {
		t.Fatal(err)
	}
	plain := l.Recipe
	plain.LoRA = nil
	through, with := loss(l.Recipe, l.current()), loss(plain, merged)
	if d := through - with; d > 1e-6 || d < -1e-6 || through == 0 {
		t.Errorf("loss %v through the adapter, %v merged", through, with)
	}
}

func TestLoRAResumesBitExactly(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		r := recipe(t, loraRecipe)
		r.Groups = nil
		o := layers{line{batch: 8, nanAt: -1}}
		whole, err := run(t, be, r, o, t.TempDir(), 0)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for _, stop := range []int{6, 0} {
			if _, err = run(t, be, r, o, dir, stop); err != nil && stop == 0 {
				t.Fatal(err)
			}
		}
		parts, err := run(t, be, r, o, dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range whole {
			if !slices.Equal(parts[name], want) {
				t.Errorf("%s is %v after a stop, %v without", name, parts[name], want)
			}
		}
		f, err := ckpt.Open(filepath.Join(dir, "checkpoints", "step-00000012", "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got := f.Names(); len(got) != 2 {
			t.Errorf("a checkpoint of the adapter holds %v", got)
		}
	})
}

func TestLoRARefusals(t *testing.T) {
	for text, want := range map[string]string{
		"lora: {r: 0, alpha: 1, target_modules: [q_proj]}": "r is 0", "lora: {r: 1, alpha: 0, target_modules: [q_proj]}": "alpha 0",
		"lora: {r: 1, alpha: 1}": "target_modules is empty", "lora: {r: 1, alpha: 1, rank: 2, target_modules: [x]}": "rank",
	} {
		if _, err := ParseRecipe([]byte("max_steps: 1\nbatch_size: 1\nlearning_rate: 1\n" + text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for target, want := range map[string]string{"k_proj": "no weight of a module k_proj", "proj": "no weight of a module proj"} {
		r := recipe(t, "max_steps: 1\nlora: {r: 1, alpha: 1, target_modules: ["+target+"]}\n")
		base, err := layers{}.Init()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.adapt(base); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", target, err)
		}
	}
}
