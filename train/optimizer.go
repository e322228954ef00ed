package train

import (
	"fmt"
	"math"
	"regexp"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// rule is how one weight is updated.
type rule struct {
	muon, freeze bool
	scale, decay float64
}

// rules decides for every weight by the recipe's groups. Muon is for matrices only.
func (r Recipe) rules(names []string, rank func(string) int) (map[string]rule, error) {
	res := make([]*regexp.Regexp, len(r.Groups))
	for i, g := range r.Groups {
		re, err := regexp.Compile(g.Match)
		if err != nil {
			return nil, fmt.Errorf("train: group %d: %w", i, err)
		}
		res[i] = re
	}
	out := make(map[string]rule, len(names))
	for _, name := range names {
		u := rule{scale: 1, decay: r.Decay}
		for i, g := range r.Groups {
			if !res[i].MatchString(name) {
				continue
			}
			if g.Muon && rank(name) != 2 {
				return nil, fmt.Errorf("train: group %q: %s is no matrix, muon cannot train it", g.Match, name)
			}
			u.muon, u.freeze = g.Muon, g.Freeze
			if g.Scale != nil {
				u.scale = *g.Scale
			}
			if g.Decay != nil {
				u.decay = *g.Decay
			}
			break
		}
		out[name] = u
	}
	return out, nil
}

// learningRate at step s (from 0): linear warm-up, then cosine to 0.
func (r Recipe) learningRate(s int) float64 {
	if s < r.Warmup {
		return r.LR * float64(s+1) / float64(r.Warmup)
	}
	t := float64(s-r.Warmup) / float64(r.MaxSteps-r.Warmup)
	return r.LR * .5 * (1 + math.Cos(math.Pi*t))
}

// Names of optimiser state tensors are a prefix and the weight's name.
const (
	firstMoment  = "m." // AdamW's mean of gradients; Muon's momentum
	secondMoment = "v." // AdamW's mean of squared gradients
	average      = "ema."
)

// newState makes the optimiser's zero state for the weights; the moving average starts as the weights themselves.
func (r Recipe) newState(params map[string]*tensors.Tensor, rules map[string]rule) (map[string]*tensors.Tensor, error) {
	state := map[string]*tensors.Tensor{}
	for name, t := range params {
		if r.EMA > 0 && !rules[name].freeze {
			c, err := t.Clone()
			if err != nil {
				return nil, fmt.Errorf("train: %s: %w", name, err)
			}
			state[average+name] = c
		}
		if rules[name].freeze {
			continue
		}
		state[firstMoment+name] = tensors.FromShape(shapes.Make(dtypes.Float32, t.Shape().Dimensions...))
		if !rules[name].muon {
			state[secondMoment+name] = tensors.FromShape(shapes.Make(dtypes.Float32, t.Shape().Dimensions...))
		}
	}
	return state, nil
}

// scalars that change with the step travel in one vector, so that nothing is compiled twice.
const (
	atLR = iota
	atCorrection1
	atCorrection2
	atAverage
	scalarCount
)

// scalars of step s: learning rate, the bias corrections 1-beta^(s+1), and the average's decay, which starts low.
func (r Recipe) scalars(s int) []float32 {
	v := make([]float32, scalarCount)
	n := float64(s + 1)
	v[atLR] = float32(r.learningRate(s))
	v[atCorrection1] = float32(1 - math.Pow(r.Beta1, n))
	v[atCorrection2] = float32(1 - math.Pow(r.Beta2, n))
	v[atAverage] = float32(math.Min(r.EMA, n/(n+9)))
	return v
}

// update is one optimiser step on the graph. It changes params and state in place and returns the gradient's norm.
func (r Recipe) update(params, grads, state map[string]*graph.Node, names []string, rules map[string]rule, scalars *graph.Node) *graph.Node {
	at := func(i int) *graph.Node { return graph.Squeeze(graph.Slice(scalars, graph.AxisElem(i)), 0) }
	norm := graph.Sqrt(sumSquares(grads, names))
	factor := graph.OnesLike(norm)
	if r.Clip > 0 {
		factor = graph.MinScalar(graph.Div(graph.Scalar(norm.Graph(), dtypes.Float32, r.Clip), graph.AddScalar(norm, 1e-6)), 1)
	}
	for _, name := range names {
		u, p := rules[name], params[name]
		if !u.freeze {
			g := graph.Mul(grads[name], factor)
			lr := graph.MulScalar(at(atLR), u.scale)
			var delta *graph.Node
			if u.muon {
				delta = r.muon(state, name, g)
			} else {
				delta = r.adam(state, name, g, at(atCorrection1), at(atCorrection2))
			}
			if u.decay > 0 {
				delta = graph.Add(delta, graph.MulScalar(p, u.decay))
			}
			p = graph.Sub(p, graph.Mul(lr, delta))
			params[name] = p
		}
		if r.EMA > 0 && !u.freeze {
			e, d := state[average+name], at(atAverage)
			state[average+name] = graph.Add(p, graph.Mul(d, graph.Sub(e, p)))
		}
	}
	return norm
}

// adam is Adam's direction: m/(1-beta1^t) / (sqrt(v/(1-beta2^t)) + eps).
func (r Recipe) adam(state map[string]*graph.Node, name string, g, c1, c2 *graph.Node) *graph.Node {
	m := graph.Add(graph.MulScalar(state[firstMoment+name], r.Beta1), graph.MulScalar(g, 1-r.Beta1))
	v := graph.Add(graph.MulScalar(state[secondMoment+name], r.Beta2), graph.MulScalar(graph.Square(g), 1-r.Beta2))
	state[firstMoment+name], state[secondMoment+name] = m, v
	return graph.Div(graph.Div(m, c1), graph.AddScalar(graph.Sqrt(graph.Div(v, c2)), r.Epsilon))
}

// muon is the orthogonalised Nesterov momentum (Jordan et al. 2024), scaled by .2 sqrt(longer side) to Adam's size.
func (r Recipe) muon(state map[string]*graph.Node, name string, g *graph.Node) *graph.Node {
	const momentum = .95
	m := graph.Add(graph.MulScalar(state[firstMoment+name], momentum), g)
	state[firstMoment+name] = m
	x := graph.Add(g, graph.MulScalar(m, momentum))
	d := x.Shape().Dimensions
	tall := d[0] > d[1]
	if tall {
		x = graph.Transpose(x, 0, 1)
	}
	x = graph.Div(x, graph.AddScalar(graph.Sqrt(graph.ReduceAllSum(graph.Square(x))), 1e-7))
	for range 5 { // Newton-Schulz: x <- a x + (b xx' + c (xx')^2) x
		a := graph.Dot(x, x).General([]int{1}, nil, []int{1}, nil)
		b := graph.Add(graph.MulScalar(a, -4.775), graph.MulScalar(graph.MatMul(a, a), 2.0315))
		x = graph.Add(graph.MulScalar(x, 3.4445), graph.MatMul(b, x))
	}
	if tall {
		x = graph.Transpose(x, 0, 1)
	}
	return graph.MulScalar(x, .2*math.Sqrt(float64(max(d[0], d[1]))))
}

func sumSquares(grads map[string]*graph.Node, names []string) *graph.Node {
	var sum *graph.Node
	for _, name := range names {
		g := grads[name]
		if g == nil {
			continue
		}
		if s := graph.ReduceAllSum(graph.Square(g)); sum == nil {
			sum = s
		} else {
			sum = graph.Add(sum, s)
		}
	}
	return sum
}
