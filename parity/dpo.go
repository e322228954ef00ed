package parity

import (
	"context"

	"imagecot/align/dpo"
	"imagecot/ckpt"
	"imagecot/internal/graphx"
	"imagecot/models/showo"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

func init() {
	register("dpo-loss", dpoLoss)
	register("dpo-logps", dpoLogProbs)
}

// dpoParams are the parameters of both kinds.
type dpoParams struct {
	Beta float64 `json:"beta"`
}

// dpoOutputs are the loss of pairs and what is measured beside it; more follows, for example gradients.
func dpoOutputs(o *observed, beta float64, chosen, rejected *graph.Node) (loss *graph.Node) {
	perPair, margin := dpo.Loss(dpo.Options{Form: dpo.Eq7, Beta: beta}, chosen, rejected)
	loss = graph.ReduceAllMean(perPair)
	o.add("out.loss_per_pair", perPair)
	o.add("out.loss", loss)
	o.add("out.margin", margin)
	o.add("out.accuracy", graph.ReduceAllMean(graph.ConvertDType(graph.GreaterThan(margin, graph.ZerosLike(margin)), margin.DType())))
	return loss
}

// dpoLoss computes the loss of given log-probabilities in double precision, with its gradients.
func dpoLoss(_ context.Context, be compute.Backend, c *Case) error {
	var params dpoParams
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	var o observed
	p, err := graphx.NewProgram(be, c.Kind, graphx.NewWeights(nil), graphx.PolicyFor(be), func(_ graphx.Scope, in []*graph.Node) []*graph.Node {
		o = observed{}
		loss := dpoOutputs(&o, params.Beta, graph.Sub(in[0], in[2]), graph.Sub(in[1], in[3]))
		grads := graph.Gradient(loss, in[0], in[1])
		o.add("out.grad_policy_chosen", grads[0])
		o.add("out.grad_policy_rejected", grads[1])
		return o.nodes
	})
	if err != nil {
		return err
	}
	var in []any
	for _, name := range []string{"in.policy_chosen", "in.policy_rejected", "in.reference_chosen", "in.reference_rejected"} {
		values, err := c.Float64(name)
		if err != nil {
			return err
		}
		in = append(in, values)
	}
	return o.run(c, p, in)
}

// run executes the program and compares every output that the case has.
func (o *observed) run(c *Case, p *graphx.Program, in []any) error {
	out, err := p.Run(in...)
	if err != nil {
		return err
	}
	for i, name := range o.names {
		if c.Has(name) {
			c.Compare(name, out[i])
		}
	}
	graphx.Free(out...)
	return nil
}

// dpoLogProbs computes the log-probabilities of pairs by policy and reference, loss and gradients of the policy.
func dpoLogProbs(_ context.Context, be compute.Backend, c *Case) error {
	var params dpoParams
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	cfg, w, err := showoModel(be, c)
	if err != nil {
		return err
	}
	in, err := dpoInputs(c, cfg)
	if err != nil {
		return err
	}
	reference, err := dpoReference(be, c, cfg, in[:3])
	if err != nil {
		return err
	}
	c.Compare("out.reference_logps", reference)
	var o observed
	p, err := graphx.NewProgram(be, c.Kind, w, graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		o = observed{}
		sum, n := showo.T2ILogProbs(s, cfg, in[0], in[1], in[2])
		o.add("out.policy_logps", sum)
		o.add("out.policy_average_logps", graph.Div(sum, n))
		imageOnly, _ := showo.T2ILogProbs(s, cfg, in[0], in[3], in[2])
		o.mid("policy_logps_image_only", imageOnly)
		r := dpo.Measure(s, cfg, in[0], in[1], in[2], in[4], 1, false)
		o.add("out.sft_loss", r.SFT)
		loss := dpoOutputs(&o, params.Beta, r.Chosen, r.Rejected)
		var wrt []*graph.Node
		for _, name := range w.Names() {
			wrt = append(wrt, s.Param(name))
		}
		for i, g := range graph.Gradient(loss, wrt...) {
			o.add("out.grad_norm."+w.Names()[i], graph.Sqrt(graph.ReduceAllSum(graph.Square(g))))
			o.add("out.grad."+w.Names()[i], g)
		}
		return o.nodes
	})
	if err != nil {
		return err
	}
	return o.run(c, p, append(in, graphx.Tensor(reference, len(reference))))
}

// dpoInputs are ids, labels, pads, and labels of image tokens only. The case brings its mask whole; ours follows from the
// number of pads.
func dpoInputs(c *Case, cfg showo.Config) ([]any, error) {
	ids, err := c.Int32("in.input_ids")
	if err != nil {
		return nil, err
	}
	labels, err := c.Int32("in.labels")
	if err != nil {
		return nil, err
	}
	shape := c.Shape("in.input_ids")
	pads := make([]int32, shape[0])
	for i := range pads {
		row := ids[i*shape[1]:]
		for row[pads[i]] == cfg.Pad() {
			pads[i]++
		}
	}
	imageOnly := make([]int32, len(labels))
	for i, v := range labels {
		imageOnly[i] = v
		if v < cfg.ImageOffset() {
			imageOnly[i] = showo.Ignore
		}
	}
	return []any{
		graphx.Tensor(ids, shape...), graphx.Tensor(labels, shape...), graphx.Tensor(pads, shape[0]), graphx.Tensor(imageOnly, shape...),
	}, nil
}

// dpoReference is the frozen model's log-probability of each row.
func dpoReference(be compute.Backend, c *Case, cfg showo.Config, in []any) ([]float32, error) {
	f, err := ckpt.Open(c.Path("reference.safetensors"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Tensors()
	if err != nil {
		return nil, err
	}
	p, err := graphx.NewProgram(be, c.Kind+" reference", graphx.NewWeights(all), graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		sum, _ := showo.T2ILogProbs(s, cfg, in[0], in[1], in[2])
		return []*graph.Node{sum}
	})
	if err != nil {
		return nil, err
	}
	out, err := p.Run(in...)
	if err != nil {
		return nil, err
	}
	return graphx.Floats(out[0]), nil
}
