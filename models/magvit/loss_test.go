package magvit

import (
	"math"
	"math/rand/v2"
	"testing"

	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

func TestPixelWeightsFavourTheForeground(t *testing.T) {
	e := graph.MustNewExec1(enginetest.Go(t), pixelWeights)
	x := make([]float32, 2*2*2*3)
	x[3*3+1] = .5 // one foreground pixel of eight: the last of the first image
	got := graphx.Floats(e.MustExec1(graphx.Tensor(x, 2, 2, 2, 3)))
	mean := (7 + foregroundWeight) / 8.
	for i, v := range got {
		want := 1 / mean
		if i == 3 {
			want = foregroundWeight / mean
		}
		if math.Abs(float64(v)-want) > 1e-6 {
			t.Errorf("pixel %d weighs %v, want %v", i, v, want)
		}
	}
}

func TestBitEntropiesMatchDefinition(t *testing.T) {
	e := graph.MustNewExec(enginetest.Go(t), func(z *graph.Node) []*graph.Node {
		tokens, batch := bitEntropies(z)
		return []*graph.Node{tokens, batch}
	})
	z := []float32{.3, -2, 0, .1, -.5, 40} // 3 tokens of 2 bits; the last is certain
	out := e.MustExec(graphx.Tensor(z, 3, 1, 1, 2))
	h := func(p float64) float64 {
		if p == 0 || p == 1 {
			return 0
		}
		return -p*math.Log(p) - (1-p)*math.Log(1-p)
	}
	var tokens, batch float64
	for c := range 2 {
		mean := 0.
		for i := range 3 {
			p := 1 / (1 + math.Exp(-4*float64(z[2*i+c])))
			tokens += h(p) / 6
			mean += p / 3
		}
		batch += h(mean) / 2
	}
	for i, want := range []float64{tokens, batch} {
		if got := float64(graphx.Floats(out[i])[0]); math.Abs(got-want) > 1e-5 {
			t.Errorf("entropy %d is %v, want %v", i, got, want)
		}
	}
}

// TestLossLearns over-fits four pictures with plain Adam: the gradient must reach both halves, through the sign.
func TestLossLearns(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		const steps = 60
		first, last := overfit(t, be, steps)
		if !(last < .5*first) {
			t.Errorf("reconstruction loss went from %v to %v in %d steps", first, last, steps)
		}
	})
}

func overfit(t *testing.T, be compute.Backend, steps int) (first, last float32) {
	t.Helper()
	cfg := small()
	names := graphx.NewWeights(Init(cfg, rand.New(rand.NewPCG(1, 2)))).Names()
	n := len(names)
	step, err := graph.NewExec(be, func(in []*graph.Node) []*graph.Node {
		params := map[string]*graph.Node{}
		for i, name := range names {
			params[name] = in[i]
		}
		loss, metrics := TrainLoss(graphx.NewScope(params, graphx.PolicyFor(be)), cfg, in[3*n], in[3*n+1])
		next, m1, m2 := []*graph.Node{}, []*graph.Node{}, []*graph.Node{}
		for i, g := range graph.Gradient(loss, in[:n]...) {
			m := graph.Add(graph.MulScalar(in[n+i], .9), graph.MulScalar(g, .1))
			v := graph.Add(graph.MulScalar(in[2*n+i], .95), graph.MulScalar(graph.Square(g), .05))
			next = append(next, graph.Sub(in[i], graph.MulScalar(graph.Div(m, graph.AddScalar(graph.Sqrt(v), 1e-6)), 3e-3)))
			m1, m2 = append(m1, m), append(m2, v)
		}
		return append(append(append(next, m1...), m2...), metrics[0])
	})
	if err != nil {
		t.Fatal(err)
	}
	state := graphx.NewWeights(Init(cfg, rand.New(rand.NewPCG(1, 2)))).Tensors()
	for range 2 {
		for _, w := range state[:n] {
			state = append(state, tensors.FromShape(w.Shape()))
		}
	}
	x := pictures(4)
	for i := range steps {
		args := make([]any, 0, 3*n+2)
		for _, s := range state {
			args = append(args, s)
		}
		out, err := step.Exec(append(args, x, float32(.01))...)
		if err != nil {
			t.Fatal(err)
		}
		graphx.Free(state...)
		state = out[:3*n]
		if last = graphx.Floats(out[3*n])[0]; i == 0 {
			first = last
		}
	}
	t.Logf("%d steps: %.3f to %.3f", steps, first, last)
	return first, last
}

// pictures are 16 x 16, one coloured rectangle on a dark background each.
func pictures(n int) *tensors.Tensor {
	flat := make([]float32, n*16*16*3)
	for i := range flat {
		flat[i] = -.6
	}
	rng := rand.New(rand.NewPCG(9, 9))
	for b := range n {
		top, left := rng.IntN(8), rng.IntN(8)
		colour := [3]float32{rng.Float32()*2 - 1, rng.Float32()*2 - 1, rng.Float32()*2 - 1}
		for y := top; y < top+8; y++ {
			for x := left; x < left+8; x++ {
				copy(flat[((b*16+y)*16+x)*3:], colour[:])
			}
		}
	}
	return graphx.Tensor(flat, n, 16, 16, 3)
}
