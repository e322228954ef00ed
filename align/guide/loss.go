package guide

import (
	"math"

	"imagecot/align/dpo"
	"imagecot/align/policy"
	"imagecot/internal/graphx"
	"imagecot/models/showo"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// rowsAPass is the number of online rows of a batch.
func (g *Guide) rowsAPass() int {
	switch g.data.Method {
	case Pairs:
		return 2 * g.data.Visits
	case Group:
		return g.data.Each * g.data.Visits
	}
	return 0
}

// at says what row of a pass is meant: which group, which of its images, and under which of the group's masks. Groups are
// visited in turn, each time under a new mask. Rows of pairs are all best ones, then all worst ones.
func (g *Guide) at(pass, row int) (groupIndex, imageIndex, mask int) {
	visit, which := row/g.data.Each, row%g.data.Each
	if g.data.Method == Pairs {
		visit, which = row%g.data.Visits, row/g.data.Visits
	}
	visit += pass * g.data.Visits
	groupIndex, mask = visit%g.data.Groups, visit/g.data.Groups
	if g.data.Method == Pairs {
		which = []int{g.now.groups[groupIndex].best, g.now.groups[groupIndex].worst}[which]
	}
	return groupIndex, which, mask
}

func (g *Guide) addRow(rows *policy.Rows, pass, row int) {
	i, k, mask := g.at(pass, row)
	o := g.now.groups[i]
	g.policy.Add(rows, o.text, o.images[k].Tokens, policy.Masking{MinRate: g.data.MinRate}, o.seed, mask, 0)
}

// weight of a row: the advantage of its image (group), or 1 for a pair that teaches something.
func (g *Guide) weight(pass, row int) float32 {
	i, k, _ := g.at(pass, row)
	o := g.now.groups[i]
	switch {
	case g.data.Method == Group:
		return float32(o.advantages[k])
	case o.informative:
		return 1
	}
	return 0
}

// Batch implements train.Objective: the offline term's inputs, then the online rows: ids, labels [R, L], pads [R], the
// reference's log-probabilities [R], or of every token [R, N+2] for groups, and weights [R]. The official method has one number instead.
func (g *Guide) Batch(i int) ([]*tensors.Tensor, error) {
	var in []*tensors.Tensor
	if g.offline != nil {
		var err error
		if in, err = g.offline.Batch(i); err != nil {
			return nil, err
		}
	}
	if g.data.Method == Official {
		return append(in, graphx.Tensor([]float32{g.now.penalty()}, 1)), nil
	}
	pass, n := i-g.now.step*g.recipe.Accum, g.rowsAPass()
	var rows policy.Rows
	weights := make([]float32, n)
	for row := range n {
		g.addRow(&rows, pass, row)
		weights[row] = g.weight(pass, row)
	}
	shape := []int{n}
	if g.data.Method == Group {
		shape = append(shape, g.policy.Config.NumVQTokens+2)
	}
	size := len(g.now.logRef) / g.passes()
	reference := append([]float32(nil), g.now.logRef[pass*size:(pass+1)*size]...)
	return append(append(in, rows.Tensors()...), graphx.Tensor(reference, shape...), graphx.Tensor(weights, n)), nil
}

// penalty is the authors' term, the mean of -log P(yes) over the draw.
func (d draw) penalty() float32 {
	sum, n := 0.0, 0
	for _, o := range d.groups {
		for _, m := range o.images {
			sum -= math.Log(max(m.Reward, 1e-7))
			n++
		}
	}
	return float32(sum / float64(n))
}

// Loss implements train.Objective: dpo_coef * DPO + reward_coef * online term.
func (g *Guide) Loss(s graphx.Scope, in []*Node) (*Node, []*Node) {
	var total *Node
	var metrics []*Node
	if g.offline != nil {
		loss, values := g.offline.Loss(s, in[:4])
		total, metrics, in = MulScalar(loss, g.data.DPOCoef), values, in[4:]
	}
	var loss *Node
	var values []*Node
	switch g.data.Method {
	case Pairs:
		loss, values = g.pairsLoss(s, in)
	case Group:
		loss, values = g.groupLoss(s, in)
	default:
		loss = Squeeze(in[0], 0)
		values = []*Node{loss}
	}
	loss = MulScalar(loss, g.data.Reward)
	if total != nil {
		loss = Add(total, loss)
	}
	return loss, append(metrics, values...)
}

// pairsLoss is the DPO loss of best against worst, a mean over the pass's groups; groups that teach nothing count as 0.
func (g *Guide) pairsLoss(s graphx.Scope, in []*Node) (*Node, []*Node) {
	r := dpo.Measure(s, g.policy.Config, in[0], in[1], in[2], in[3], 1, false)
	perPair, margin := dpo.Loss(dpo.Options{Form: dpo.Eq7, Beta: g.data.Beta}, r.Chosen, r.Rejected)
	weight := Slice(in[4], AxisRange(0, g.data.Visits))
	mean := func(x *Node) *Node { return Div(ReduceAllSum(Mul(x, weight)), MaxScalar(ReduceAllSum(weight), 1)) }
	wins := ConvertDType(GreaterThan(margin, ZerosLike(margin)), margin.DType())
	return ReduceAllMean(Mul(perPair, weight)), []*Node{mean(margin), mean(wins)}
}

// groupLoss is the policy gradient by advantages A, with the KL to the reference held down. Both are means over a row's n
// hidden tokens t, since masks of different ratios hide different numbers of them:
//
//	loss = mean(-A log pi / n) + kl_coef mean(sum over t of exp(d) - 1 - d, / n), d = log ref(t) - log pi(t)
//
// The images are drawn by weights at most `every` steps old, so that importance ratios are left out.
func (g *Guide) groupLoss(s graphx.Scope, in []*Node) (*Node, []*Node) {
	each, n := showo.T2ITokenLogProbs(s, g.policy.Config, in[0], in[1], in[2])
	gain := ReduceAllMean(Mul(in[4], Div(ReduceSum(each, -1), n)))
	d := Sub(in[3], each)
	kl := ReduceAllMean(Div(ReduceSum(Sub(Sub(Exp(d), d), OnesLike(d)), -1), n))
	return Add(Neg(gain), MulScalar(kl, g.data.KL)), []*Node{gain, kl}
}

// Metrics implements train.Objective.
func (g *Guide) Metrics() []string {
	var names []string
	if g.offline != nil {
		names = g.offline.Metrics()
	}
	switch g.data.Method {
	case Pairs:
		return append(names, "online_margin", "online_accuracy")
	case Group:
		return append(names, "online_gain", "online_kl")
	}
	return append(names, "online_penalty")
}
