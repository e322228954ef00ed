package showo

import (
	"context"
	"fmt"
	"image"
	"slices"

	"imagecot/cot"
	"imagecot/internal/graphx"
	"imagecot/maskgit"

	"github.com/gomlx/compute"
)

// TextEncoder turns a text into ids without marks.
type TextEncoder interface{ Encode(text string) []int32 }

// ImageDecoder turns image tokens [N] into pixels, one image a row.
type ImageDecoder interface {
	Decode(ctx context.Context, tokens [][]int32) ([]*image.RGBA, error)
}

// Generator decodes paths step by step; it implements cot.Generator and is safe for concurrent use, but each path belongs
// to one caller at a time. A path depends on its prompt and seed alone: not on N, on other paths, or on their order.
type Generator struct {
	decoder *Decoder
	prompts Prompting
	text    TextEncoder
	images  ImageDecoder
}

var _ cot.Generator = (*Generator)(nil)

// NewGenerator makes a generator of weights named and shaped as Shapes says. images may be nil if nothing is decoded.
func NewGenerator(be compute.Backend, cfg Config, w *graphx.Weights, text TextEncoder, images ImageDecoder, o Options) (*Generator, error) {
	d, err := NewDecoder(be, cfg, w, o)
	if err != nil {
		return nil, err
	}
	return &Generator{decoder: d, prompts: NewPrompting(cfg), text: text, images: images}, nil
}

// Config of the model.
func (g *Generator) Config() Config { return g.decoder.cfg }

// Options in use.
func (g *Generator) Options() Options { return g.decoder.o }

// Forget must be called when the weights were replaced, and not during a step.
func (g *Generator) Forget() { g.decoder.Forget() }

// Fits reports whether a text is conditioned on whole; a longer one is cut.
func (g *Generator) Fits(text string) bool { return g.prompts.Fits(g.text.Encode(text)) }

// Steps implements cot.Generator.
func (g *Generator) Steps() int { return g.decoder.o.Steps }

// Start implements cot.Generator. It computes nothing: prompts go through the model at the first step.
func (g *Generator) Start(ctx context.Context, p cot.Prompt, seeds []uint64) ([]*cot.Path, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	paths := make([]*cot.Path, len(seeds))
	for i, seed := range seeds {
		tokens := make([]int32, g.decoder.cfg.NumVQTokens)
		for j := range tokens {
			tokens[j] = cot.Masked
		}
		paths[i] = &cot.Path{Index: i, Seed: seed, Prompt: p, Tokens: tokens}
	}
	return paths, nil
}

// Advance implements cot.Generator. If it fails, no path has moved.
func (g *Generator) Advance(ctx context.Context, paths []*cot.Path) error {
	prefixes := make([]*Prefix, len(paths))
	for i, p := range paths {
		var err error
		if prefixes[i], err = g.decoder.Condition(g.prompts.Condition(g.text.Encode(p.Prompt.Text))); err != nil {
			return fmt.Errorf("showo: prompt %q: %w", p.Prompt.Text, err)
		}
	}
	return g.advance(ctx, paths, prefixes)
}

// advance does one step of each path, each under its own condition.
func (g *Generator) advance(ctx context.Context, paths []*cot.Path, under []*Prefix) error {
	states := make([]State, len(paths))
	for i, p := range paths {
		if p.Step < 0 || p.Step >= g.Steps() {
			return fmt.Errorf("showo: path %d has done %d of %d steps", p.Index, p.Step, g.Steps())
		}
		states[i] = State{under[i], p.Tokens}
	}
	probabilities, err := g.decoder.Probabilities(ctx, states)
	if err != nil {
		return err
	}
	results := make([]maskgit.Result, len(paths))
	for i, p := range paths {
		if results[i], err = g.settle(p, probabilities[i]); err != nil {
			return fmt.Errorf("showo: path %d: %w", p.Index, err)
		}
	}
	for i, p := range paths {
		r := results[i]
		p.Tokens, p.Sample, p.LogConf = r.Next, r.Sampled, r.LogConf
		p.Step++
	}
	return nil
}

// settle samples a path's tokens from probabilities [N*K] and decides which ones stay.
func (g *Generator) settle(p *cot.Path, probabilities []float32) (maskgit.Result, error) {
	n, k := len(p.Tokens), g.decoder.cfg.CodebookSize
	noise := maskgit.NoiseOf(p.Seed, p.Step, n)
	sampled, prob := make([]int32, n), make([]float32, n)
	for i, token := range p.Tokens {
		if token == cot.Masked {
			row := probabilities[i*k : (i+1)*k]
			j := maskgit.SampleRow(row, noise.Uniform[i])
			sampled[i], prob[i] = int32(j), row[j]
		}
	}
	rules := g.decoder.o.Rules()
	if g.decoder.o.Official && p.Index > 0 {
		rules.Temperature = 0
	}
	return rules.Step(p.Step, p.Tokens, sampled, prob, noise.Gumbel)
}

// Fork implements cot.Generator.
func (g *Generator) Fork(path *cot.Path, seed uint64) *cot.Path {
	fork := *path
	fork.Seed = seed
	fork.Tokens, fork.Sample = slices.Clone(path.Tokens), slices.Clone(path.Sample)
	return &fork
}

// Decode implements cot.Generator. Every path must have done a step.
func (g *Generator) Decode(ctx context.Context, paths []*cot.Path) ([]image.Image, error) {
	tokens := make([][]int32, len(paths))
	for i, p := range paths {
		if p.Sample == nil {
			return nil, fmt.Errorf("showo: path %d has no step image yet", p.Index)
		}
		tokens[i] = p.Sample
	}
	if g.images == nil {
		return nil, fmt.Errorf("showo: no image tokenizer to decode %d step images with", len(paths))
	}
	pictures, err := g.images.Decode(ctx, tokens)
	if err != nil {
		return nil, fmt.Errorf("showo: step images: %w", err)
	}
	out := make([]image.Image, len(pictures))
	for i, p := range pictures {
		out[i] = p
	}
	return out, nil
}
