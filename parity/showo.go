package parity

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"imagecot/ckpt"
	"imagecot/internal/graphx"
	"imagecot/models/showo"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

func init() {
	register("showo-forward", showoForward)
	register("showo-prompting", showoPrompting)
	register("showo-mask", showoMask)
	register("showo-loss", showoLoss)
	register("showo-generate", showoGenerate)
}

// showoModel reads the case's architecture and weights and checks the one against the other.
func showoModel(be compute.Backend, c *Case) (cfg showo.Config, w *graphx.Weights, err error) {
	params := struct {
		S int `json:"max_seq_length"`
	}{S: 128}
	if err = c.DecodeParams(&params); err != nil {
		return cfg, nil, err
	}
	if cfg, err = showo.LoadConfig(c.Config); err != nil {
		return cfg, nil, err
	}
	cfg.MaxSeqLength = params.S
	f, err := c.Model()
	if err != nil {
		return cfg, nil, err
	}
	all, err := f.TensorsFor(ckpt.Place{Engine: be, Float: c.Float})
	if err != nil {
		return cfg, nil, err
	}
	w = graphx.NewWeights(all)
	return cfg, w, showo.Check(cfg, w)
}

// graphInputs reads tensors of io.safetensors as program inputs.
func graphInputs(c *Case, names ...string) ([]any, error) {
	in := make([]any, len(names))
	for i, name := range names {
		t, err := c.IO.Tensor(name)
		if err != nil {
			return nil, err
		}
		in[i] = t
	}
	return in, nil
}

// imageAt is the column of the first image token in each task's sequences.
var imageAt = map[string]func(showo.Config) int{
	"t2i": func(cfg showo.Config) int { return cfg.MaxSeqLength + 2 },
	"mmu": func(showo.Config) int { return 2 },
	"lm":  func(showo.Config) int { return 0 },
}

func showoForward(_ context.Context, be compute.Backend, c *Case) error {
	var params struct{ Mode string }
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	if imageAt[params.Mode] == nil {
		return fmt.Errorf("params: unknown mode %q", params.Mode)
	}
	cfg, w, err := showoModel(be, c)
	if err != nil {
		return err
	}
	var o observed
	p, err := graphx.NewProgram(be, c.Kind, w, graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		o = observed{}
		q := showo.Sequence{IDs: in[0], Allow: in[1], ImageAt: imageAt[params.Mode](cfg)}
		o.add("out.logits", showo.ForwardObserved(s, cfg, q, o.mid))
		return o.nodes
	})
	if err != nil {
		return err
	}
	in, err := graphInputs(c, "in.input_ids", "in.allow")
	if err != nil {
		return err
	}
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

// promptLine is one line of a showo-prompting case: inputs, then expected outputs.
type promptLine struct {
	Name, Task   string
	LLMVocabSize int       `json:"llm_vocab_size"`
	EOS          int32     `json:"eos_token_id"`
	CodebookSize int       `json:"codebook_size"`
	NumVQTokens  int       `json:"num_vq_tokens"`
	S            int       `json:"max_seq_length"`
	TextIDs      [][]int32 `json:"text_ids"`
	ImageIDs     [][]int32 `json:"image_ids"`
	ImageLabels  [][]int32 `json:"image_labels"`
	Drop         []bool
	Length       int

	InputIDs        [][]int32 `json:"input_ids"`
	Labels          [][]int32
	AllowedPerQuery [][]int32 `json:"allowed_per_query"`
}

func showoPrompting(_ context.Context, _ compute.Backend, c *Case) error {
	data, err := os.ReadFile(c.Path("cases.jsonl"))
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var l promptLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("cases.jsonl: %w", err)
		}
		if err := l.run(c); err != nil {
			return fmt.Errorf("cases.jsonl: %s: %w", l.Name, err)
		}
	}
	return lines.Err()
}

func (l promptLine) run(c *Case) error {
	cfg := showo.Tiny(l.LLMVocabSize, l.EOS)
	cfg.CodebookSize, cfg.NumVQTokens, cfg.MaxSeqLength = l.CodebookSize, l.NumVQTokens, l.S
	cfg.VocabSize += l.CodebookSize - 1024
	cfg.MaskTokenID = int32(cfg.VocabSize - 1)
	if err := cfg.Validate(); err != nil {
		return err
	}
	p := showo.NewPrompting(cfg)
	var allow []uint8
	for i, text := range l.TextIDs {
		s, err := l.row(p, i, text)
		if err != nil {
			return err
		}
		label := fmt.Sprintf("%s row %d", l.Name, i)
		c.CompareExact("input_ids", label, s.IDs, l.InputIDs[i])
		if l.Labels != nil {
			c.CompareExact("labels", label, s.Labels, l.Labels[i])
		}
		mask := s.Allow()
		allow = append(allow, mask...)
		perQuery := make([]int32, len(s.IDs))
		for j, v := range mask {
			perQuery[j/len(s.IDs)] += int32(v)
		}
		if l.AllowedPerQuery != nil {
			c.CompareExact("allowed_per_query", label, perQuery, l.AllowedPerQuery[i])
		}
	}
	if name := "out.allow." + l.Name; c.Has(name) {
		c.Compare(name, allow)
	}
	return nil
}

func (l promptLine) row(p showo.Prompting, i int, text []int32) (showo.Row, error) {
	switch l.Task {
	case "t2i":
		return p.T2I(text, l.ImageIDs[i], l.ImageLabels[i], l.Drop[i]), nil
	case "t2i_gen":
		return p.T2IGen(text, l.ImageIDs[i]), nil
	case "mmu":
		return p.MMU(text, l.ImageIDs[i]), nil
	case "mmu_gen":
		return p.MMUGen(text, l.ImageIDs[i]), nil
	case "lm":
		return p.LM(text, l.Length), nil
	}
	return showo.Row{}, fmt.Errorf("unknown task %q", l.Task)
}

func showoMask(_ context.Context, _ compute.Backend, c *Case) error {
	var params struct {
		MaskID  int32   `json:"mask_token_id"`
		MinRate float32 `json:"min_masking_rate"`
	}
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	ids, err := c.Int32("in.image_ids")
	if err != nil {
		return err
	}
	time, err := c.Float32("in.time_uniform")
	if err != nil {
		return err
	}
	order, err := c.Float32("in.order_uniform")
	if err != nil {
		return err
	}
	n := len(ids) / len(time)
	var prob []float32
	var counts, masked, labels []int32
	for b, t := range time {
		m := showo.MaskTokens(ids[b*n:(b+1)*n], params.MaskID, t, order[b*n:(b+1)*n], params.MinRate)
		prob, counts = append(prob, m.Prob), append(counts, int32(m.Count))
		masked, labels = append(masked, m.IDs...), append(labels, m.Labels...)
	}
	c.Compare("out.mask_prob", prob)
	c.Compare("out.num_masked", counts)
	c.Compare("out.image_ids", masked)
	c.Compare("out.image_labels", labels)
	return nil
}

func showoLoss(_ context.Context, be compute.Backend, c *Case) error {
	var params struct {
		T2I  int     `json:"batch_size_t2i"`
		LM   int     `json:"batch_size_lm"`
		MMU  int     `json:"batch_size_mmu"`
		CT2I float64 `json:"coeff_t2i"`
		CLM  float64 `json:"coeff_lm"`
		CMMU float64 `json:"coeff_mmu"`
	}
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	cfg, w, err := showoModel(be, c)
	if err != nil {
		return err
	}
	var o observed
	p, err := graphx.NewProgram(be, c.Kind, w, graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		o = observed{}
		batch := showo.Batch{
			IDs: in[0], Labels: in[1], Allow: in[2], T2I: params.T2I, LM: params.LM, MMU: params.MMU,
			CoefT2I: params.CT2I, CoefLM: params.CLM, CoefMMU: params.CMMU, MaxSeqLength: cfg.MaxSeqLength,
		}
		l := showo.Loss(s, cfg, batch)
		o.add("out.loss", l.Total)
		o.add("out.loss_t2i", l.T2I)
		o.add("out.loss_lm", l.LM)
		o.add("out.loss_mmu", l.MMU)
		var wrt []*graph.Node
		for _, name := range w.Names() {
			wrt = append(wrt, s.Param(name))
		}
		for i, g := range graph.Gradient(l.Total, wrt...) {
			o.add("out.grad_norm."+w.Names()[i], graph.Sqrt(graph.ReduceAllSum(graph.Square(g))))
			o.add("out.grad."+w.Names()[i], g)
		}
		batch.Labels = in[3] // of image tokens only
		o.mid("loss_t2i_image_only", showo.Loss(s, cfg, batch).T2I)
		return o.nodes
	})
	if err != nil {
		return err
	}
	in, err := graphInputs(c, "in.input_ids", "in.labels", "in.allow")
	if err != nil {
		return err
	}
	labels, err := c.Int32("in.labels")
	if err != nil {
		return err
	}
	for i, v := range labels {
		if v < cfg.ImageOffset() {
			labels[i] = showo.Ignore
		}
	}
	out, err := p.Run(append(in, graphx.Tensor(labels, c.Shape("in.labels")...))...)
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
