package train

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// line learns y = x W + b for a fixed W.
type line struct {
	batch int
	nanAt int // pass whose batch holds a NaN, -1 for none
}

var target = [...]float32{1, -2, 3, .5, 0, -1}

func (l line) Init() (map[string]*tensors.Tensor, error) {
	return map[string]*tensors.Tensor{
		"w":      graphx.Tensor([]float32{.1, .2, .3, .4, .5, .6}, 3, 2),
		"b":      graphx.Tensor([]float32{0, 0}, 2),
		"frozen": graphx.Tensor([]float32{7}, 1),
	}, nil
}

func (l line) Batch(i int) ([]*tensors.Tensor, error) {
	rng := prng.New(5, i, prng.Scene)
	x, y := make([]float32, l.batch*3), make([]float32, l.batch*2)
	for b := range l.batch {
		for j := range 3 {
			v := float32(rng.NormFloat())
			x[b*3+j] = v
			y[b*2] += v * target[j*2]
			y[b*2+1] += v * target[j*2+1]
		}
	}
	if i == l.nanAt {
		x[0] = float32(math.NaN())
	}
	return []*tensors.Tensor{graphx.Tensor(x, l.batch, 3), graphx.Tensor(y, l.batch, 2)}, nil
}

func (l line) Loss(s graphx.Scope, in []*graph.Node) (*graph.Node, []*graph.Node) {
	y := graph.Add(graph.MatMul(in[0], s.Param("w", 3, 2)), graph.ExpandLeftToRank(s.Param("b", 2), 2))
	y = graph.Add(y, graph.MulScalar(graph.ReduceAllSum(graph.Square(s.Param("frozen"))), 0))
	e := graph.Sub(y, in[1])
	return graph.ReduceAllMean(graph.Square(e)), []*graph.Node{graph.ReduceAllMean(graph.Abs(e))}
}

func (l line) Metrics() []string { return []string{"absolute_error"} }

func recipe(t testing.TB, text string) Recipe {
	t.Helper()
	r, err := ParseRecipe([]byte("kind: test\nseed: 5\nbatch_size: 8\nlearning_rate: 0.05\nema: 0.9\nlogging_steps: 1\n" +
		"groups: [{match: frozen, freeze: true}]\n" + text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run trains in dir until step stop (0: to the end) and returns weights, moving average and momenta.
func run(t *testing.T, be compute.Backend, r Recipe, o Objective, dir string, stop int) (map[string][]float32, error) {
	t.Helper()
	l, err := New(be, r, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Resume(dir); err != nil {
		t.Fatal(err)
	}
	log, err := OpenLog(dir, l.Step())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	l.Log = log
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err = l.Run(ctx, func(step int) error {
		if step == stop {
			cancel()
		}
		if step%r.SaveEvery == 0 {
			return l.Save(dir)
		}
		return nil
	})
	out := map[string][]float32{}
	for n, w := range l.params {
		out[n] = tensors.MustCopyFlatData[float32](w)
	}
	for n, w := range l.state {
		out[n] = tensors.MustCopyFlatData[float32](w)
	}
	return out, err
}

func TestResumeIsBitExactAndLogsEveryStepOnce(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		r := recipe(t, "max_steps: 20\nsave_steps: 4\n")
		whole, err := run(t, be, r, line{batch: 8, nanAt: -1}, t.TempDir(), 0)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for _, stop := range []int{6, 7, 13, 0} { // 6 and 7 fall back to step 4, 13 to 12
			if _, err = run(t, be, r, line{batch: 8, nanAt: -1}, dir, stop); stop != 0 && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		parts, err := run(t, be, r, line{batch: 8, nanAt: -1}, dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		for n, want := range whole {
			for i, v := range parts[n] {
				if math.Float32bits(v) != math.Float32bits(want[i]) {
					t.Errorf("%s[%d] is %v after resuming, %v without", n, i, v, want[i])
				}
			}
		}
		f, err := os.Open(filepath.Join(dir, "metrics.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		step := 0
		for sc := bufio.NewScanner(f); sc.Scan(); {
			var m map[string]float64
			if err := json.Unmarshal(sc.Bytes(), &m); err != nil {
				t.Fatal(err)
			}
			if step++; int(m["global_step"]) != step {
				t.Fatalf("line %d is of step %v", step, m["global_step"])
			}
			for _, k := range []string{"loss", "grad_norm", "learning_rate", "absolute_error"} {
				if _, ok := m[k]; !ok {
					t.Errorf("step %d lacks %s", step, k)
				}
			}
		}
		if step != 20 {
			t.Errorf("%d steps logged", step)
		}
		if left, _ := checkpoints(dir); len(left) != kept {
			t.Errorf("%d checkpoints left", len(left))
		}
	})
}

func TestItLearnsAndFrozenWeightsStay(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		for name, extra := range map[string]string{
			"adamw": "max_steps: 300\n", "accumulated": "max_steps: 300\ngradient_accumulation_steps: 3\n",
		} {
			out, err := run(t, be, recipe(t, extra), line{batch: 8, nanAt: -1}, t.TempDir(), 0)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range target {
				if math.Abs(float64(out["w"][i]-want)) > .05 {
					t.Errorf("%s: w[%d] = %v, want %v", name, i, out["w"][i], want)
				}
			}
			if out["frozen"][0] != 7 {
				t.Errorf("%s: frozen weight moved to %v", name, out["frozen"][0])
			}
		}
	})
}

func TestAccumulationEqualsALargerBatch(t *testing.T) {
	be := enginetest.Go(t)
	r := recipe(t, "max_steps: 1\nmax_grad_norm: 0\n")
	l, err := New(be, r, line{batch: 8, nanAt: -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Accum = 2
	k, err := New(be, r, line{batch: 4, nanAt: -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, _ := line{batch: 8, nanAt: -1}.Batch(0)
	half := func(from int) []*tensors.Tensor {
		x, y := tensors.MustCopyFlatData[float32](whole[0]), tensors.MustCopyFlatData[float32](whole[1])
		return []*tensors.Tensor{graphx.Tensor(x[from*3:from*3+12], 4, 3), graphx.Tensor(y[from*2:from*2+8], 4, 2)}
	}
	halves := [][]*tensors.Tensor{half(0), half(4)}
	a, err := l.stepOnce([][]*tensors.Tensor{whole})
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.stepOnce(halves)
	if err != nil {
		t.Fatal(err)
	}
	for i := range a {
		if math.Abs(a[i]-b[i]) > 1e-5 {
			t.Errorf("figure %d: %v at once, %v accumulated", i, a[i], b[i])
		}
	}
}

func TestNaNStopsWithStepAndSeed(t *testing.T) {
	for text, checkpoint := range map[string]string{"save_steps: 2": "step-00000002", "save_steps: 9": "none"} {
		_, err := run(t, enginetest.Go(t), recipe(t, "max_steps: 9\n"+text), line{batch: 8, nanAt: 3}, t.TempDir(), 0)
		if !errors.Is(err, ErrNotFinite) {
			t.Fatalf("got %v", err)
		}
		for _, want := range []string{"step 3", "seed 5", checkpoint} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not name %s", err, want)
			}
		}
	}
}

func TestResumeRefusesAnotherRecipe(t *testing.T) {
	be, dir := enginetest.Go(t), t.TempDir()
	if _, err := run(t, be, recipe(t, "max_steps: 4\nsave_steps: 2\n"), line{batch: 8, nanAt: -1}, dir, 0); err != nil {
		t.Fatal(err)
	}
	l, err := New(be, recipe(t, "max_steps: 4\nsave_steps: 2\nweight_decay: 0.5\n"), line{batch: 8, nanAt: -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Resume(dir); err == nil {
		t.Error("a checkpoint of another recipe was taken")
	}
}

// The reference in plain Go: AdamW of Loshchilov and Hutter, two steps on one number.
func TestAdamWAgainstPlainGo(t *testing.T) {
	be := enginetest.Go(t)
	r := Recipe{Beta1: .9, Beta2: .99, Epsilon: 1e-8, LR: .1, MaxSteps: 10, Decay: .1, Clip: 0}
	e, err := graph.NewExec(be, func(in []*graph.Node) []*graph.Node {
		p := map[string]*graph.Node{"w": in[0]}
		s := map[string]*graph.Node{"m.w": in[1], "v.w": in[2]}
		r.update(p, map[string]*graph.Node{"w": in[3]}, s, []string{"w"}, map[string]rule{"w": {scale: 1, decay: r.Decay}}, in[4])
		return []*graph.Node{p["w"], s["m.w"], s["v.w"]}
	})
	if err != nil {
		t.Fatal(err)
	}
	w, m, v := []float32{2}, []float32{0}, []float32{0}
	pw, pm, pv := 2., 0., 0.
	for step, g := range []float64{.5, -3} {
		out, err := e.Exec(w, m, v, []float32{float32(g)}, r.scalars(step))
		if err != nil {
			t.Fatal(err)
		}
		w, m, v = graphx.Floats(out[0]), graphx.Floats(out[1]), graphx.Floats(out[2])
		n := float64(step + 1)
		pm, pv = .9*pm+.1*g, .99*pv+.01*g*g
		pw -= r.learningRate(step) * (pm/(1-math.Pow(.9, n))/(math.Sqrt(pv/(1-math.Pow(.99, n)))+1e-8) + .1*pw)
		if math.Abs(float64(w[0])-pw) > 1e-5 {
			t.Errorf("step %d: %v, want %v", step, w[0], pw)
		}
	}
}

func TestMuonOrthogonalises(t *testing.T) {
	be := enginetest.Go(t)
	rng := prng.New(1, 0, prng.Init)
	g := make([]float32, 24)
	for i := range g {
		g[i] = float32(rng.NormFloat())
	}
	e, err := graph.NewExec(be, func(x *graph.Node) *graph.Node {
		return Recipe{}.muon(map[string]*graph.Node{"m.w": graph.ZerosLike(x)}, "w", x)
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.Exec(graphx.Tensor(g, 6, 4))
	if err != nil {
		t.Fatal(err)
	}
	x := graphx.Floats(out[0])
	for i := range 4 { // the columns of a tall matrix become nearly orthonormal, times .2 sqrt 6
		for j := range i + 1 {
			dot := 0.
			for k := range 6 {
				dot += float64(x[k*4+i]) * float64(x[k*4+j]) / (.04 * 6)
			}
			if want := map[bool]float64{true: 1, false: 0}[i == j]; math.Abs(dot-want) > .35 {
				t.Errorf("columns %d, %d: %.3f, want about %v", i, j, dot, want)
			}
		}
	}
}

func TestBadRecipes(t *testing.T) {
	for text, want := range map[string]string{
		"max_steps: 0\nbatch_size: 1\nlearning_rate: 1":                  "max_steps",
		"max_steps: 5\nbatch_size: 1\nlearning_rate: 1\nwarmup_steps: 5": "warmup_steps",
		"max_steps: 5\nbatch_size: 1\nlearning_rate: 1\nlr: 3":           "lr",
		"max_steps: 5\nbatch_size: 1\nlearning_rate: 1\nema: 1":          "ema",
		"max_steps: x\nbatch_size: 1\nlearning_rate: 1":                  "int",
	} {
		if _, err := ParseRecipe([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	r := recipe(t, "max_steps: 3\n")
	r.Groups = append(r.Groups, Group{Match: "^b$", Muon: true})
	if _, err := New(enginetest.Go(t), r, line{batch: 8, nanAt: -1}, nil); err == nil {
		t.Error("muon on a vector was accepted")
	}
}

// policed remembers under which policy its loss was made.
type policed struct {
	line
	recompute *bool
}

func (p policed) Loss(s graphx.Scope, in []*graph.Node) (*graph.Node, []*graph.Node) {
	*p.recompute = s.Policy.Recompute
	return p.line.Loss(s, in)
}

// Gradient checkpointing is what the recipe says, and may change from one start of a run to the next.
func TestGradientCheckpointingIsTheRecipes(t *testing.T) {
	dir := t.TempDir()
	for i, want := range []bool{false, true} {
		got := !want
		r := recipe(t, fmt.Sprintf("max_steps: 4\nsave_steps: 2\ngradient_checkpointing: %t\n", want))
		if _, err := run(t, enginetest.Go(t), r, policed{line{batch: 8, nanAt: -1}, &got}, dir, 2*(i+1)); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("recompute is %t, want %t", got, want)
		}
	}
}
