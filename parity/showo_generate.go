package parity

import (
	"context"
	"fmt"
	"math"
	"slices"

	"imagecot/cot"
	"imagecot/maskgit"
	"imagecot/models/showo"

	"github.com/gomlx/compute"
)

// generateParams are the params of a showo-generate case.
type generateParams struct {
	Batch       int
	Timesteps   int
	Guidance    float64 `json:"guidance_scale"`
	Temperature float64
	Rule        string `json:"temperature_rule"`
	Sampler     string
	Schedule    string
}

// showoGenerate replays a decoding with the case's noise, through the same decoder as the generator.
func showoGenerate(ctx context.Context, be compute.Backend, c *Case) error {
	var params generateParams
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	cfg, w, err := showoModel(be, c)
	if err != nil {
		return err
	}
	o := showo.Options{
		Steps: params.Timesteps, Guidance: params.Guidance, Temperature: params.Temperature,
		Rule: maskgit.TemperatureRule(params.Rule), Schedule: maskgit.Schedule(params.Schedule), Tile: 2, // rows of two prompts, and one to spare
	}
	if w.Large() {
		o.Tile = 1
	}
	d, err := showo.NewDecoder(be, cfg, w, o)
	if err != nil {
		return err
	}
	states, err := generateStates(c, cfg, d, params)
	if err != nil {
		return err
	}
	noise, err := readNoise(c, params.Sampler)
	if err != nil {
		return err
	}
	return replay(ctx, c, d, states, noise)
}

// generateStates reads prompts and given tokens, and checks that layout and masks are the case's.
func generateStates(c *Case, cfg showo.Config, d *showo.Decoder, params generateParams) ([]showo.State, error) {
	ids, err := c.Int32("in.input_ids")
	if err != nil {
		return nil, err
	}
	allow, err := c.U8("in.allow")
	if err != nil {
		return nil, err
	}
	prompting := showo.NewPrompting(cfg)
	length, textEnd := len(ids)/params.Batch, cfg.MaxSeqLength+1
	var states []showo.State
	var rows []showo.Row
	for b := range params.Batch {
		row := ids[b*length : (b+1)*length]
		pads := slices.Index(row, cfg.T2I())
		if pads < 0 || pads >= textEnd || length != textEnd+cfg.NumVQTokens+2 {
			return nil, fmt.Errorf("in.input_ids: row %d of %d ids is no t2i sequence", b, length)
		}
		image := row[textEnd+1 : length-1]
		rows = append(rows, prompting.T2IGen(row[pads+1:textEnd-1], image))
		prefix, err := d.Condition(row[pads:textEnd])
		if err != nil {
			return nil, err
		}
		states = append(states, showo.State{Prefix: prefix, Tokens: imageTokens(cfg, image)})
	}
	if params.Guidance != 0 {
		for b := range params.Batch {
			rows = append(rows, prompting.T2IGen(nil, ids[b*length+textEnd+1:(b+1)*length-1]))
		}
	}
	var got []uint8
	for _, r := range rows {
		got = append(got, r.Allow()...)
	}
	c.CompareExact("in.allow", "masks", got, allow)
	return states, nil
}

// imageTokens undoes Config.ImageIDs.
func imageTokens(cfg showo.Config, ids []int32) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = id - cfg.ImageOffset()
		if id == cfg.MaskTokenID {
			out[i] = cot.Masked
		}
	}
	return out
}

// replayNoise holds the case's noise, [T, B, N] and for tokenGumbel [T, B, N, K].
type replayNoise struct{ uniform, tokenGumbel, gumbel, temperature []float32 }

func readNoise(c *Case, sampler string) (n replayNoise, err error) {
	if n.gumbel, err = c.Float32("in.confidence_gumbel"); err != nil {
		return n, err
	}
	if n.temperature, err = c.Float32("in.temperature"); err != nil {
		return n, err
	}
	switch sampler {
	case "inverse_cdf":
		n.uniform, err = c.Float32("in.sample_uniform")
	case "gumbel_argmax":
		n.tokenGumbel, err = c.Float32("in.sample_gumbel")
	default:
		err = fmt.Errorf("params: unknown sampler %q", sampler)
	}
	return n, err
}

// sample draws the token at position i of all [T*B*N].
func (n replayNoise) sample(p []float32, i int) int {
	if n.uniform != nil {
		return maskgit.SampleRow(p, n.uniform[i])
	}
	best, at := math.Inf(-1), 0
	for k, v := range p {
		if x := math.Log(float64(v)) + float64(n.tokenGumbel[i*len(p)+k]); x > best {
			best, at = x, k
		}
	}
	return at
}

// knownProb stands for the probability of a known token in the reference.
const knownProb = math.MaxFloat32

// replayed gathers what a decoding is compared by, each over [T, B, ..].
type replayed struct {
	sampled, counts  []int32
	masking          []bool
	confidence, prob []float32
}

func replay(ctx context.Context, c *Case, d *showo.Decoder, states []showo.State, noise replayNoise) error {
	o, n, k := d.Options().Rules(), d.Config().NumVQTokens, d.Config().CodebookSize
	var r replayed
	for step := range o.Steps {
		tau := o.Tau(step)
		c.Check("in.temperature", math.Abs(float64(tau-noise.temperature[step])) <= 1e-6,
			"step %d: %v, want %v", step, tau, noise.temperature[step])
		if name := fmt.Sprintf("mid.logits_step%d", step); c.Has(name) {
			logits, err := d.Logits(ctx, states)
			if err != nil {
				return err
			}
			c.Compare(name, slices.Concat(logits...))
		}
		probabilities, err := d.Probabilities(ctx, states)
		if err != nil {
			return err
		}
		for b, s := range states {
			at := (step*len(states) + b) * n
			sampled, prob := slices.Clone(s.Tokens), make([]float32, n)
			unknown := 0
			for i, token := range s.Tokens {
				if token == cot.Masked {
					row := probabilities[b][i*k : (i+1)*k]
					sampled[i] = int32(noise.sample(row, at+i))
					prob[i] = row[sampled[i]]
					unknown++
				}
			}
			m := o.Schedule.MaskCount(n, o.Steps, step, unknown)
			next := maskgit.Remask(s.Tokens, sampled, prob, noise.gumbel[at:at+n], tau, m)
			r.add(s.Tokens, sampled, next, prob, noise.gumbel[at:at+n], tau, m)
			states[b].Tokens = next
		}
	}
	c.Compare("out.sampled_ids", r.sampled)
	c.Compare("out.tokens", r.sampled[len(r.sampled)-len(states)*n:])
	c.Compare("out.masking", r.masking)
	c.Compare("out.mask_len", r.counts)
	c.Compare("mid.confidence", r.confidence)
	c.Compare("mid.selected_prob", r.prob)
	return nil
}

func (r *replayed) add(state, sampled, next []int32, prob, gumbel []float32, tau float32, m int) {
	r.sampled = append(r.sampled, sampled...)
	r.counts = append(r.counts, int32(m))
	for i, token := range state {
		p := prob[i]
		if token != cot.Masked {
			p = knownProb
		}
		r.prob = append(r.prob, p)
		r.confidence = append(r.confidence, maskgit.Confidence(p, gumbel[i], tau))
		r.masking = append(r.masking, next[i] == cot.Masked)
	}
}
