package showo

import (
	"context"
	"fmt"
	"image"
	"math"
	"slices"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/maskgit"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// small is a model with everything that a checkpoint may have, 16 tokens of 32 codes, 10 text positions.
func small() Config {
	c := Tiny(50, 7)
	c.CodebookSize, c.NumVQTokens, c.MaxSeqLength = 32, 16, 10
	c.VocabSize = c.LLMVocabSize + specialTokens + c.CodebookSize + 1
	c.MaskTokenID = int32(c.VocabSize - 1)
	c.LLM.HiddenSize, c.LLM.IntermediateSize, c.LLM.Layers, c.LLM.Heads, c.LLM.KeyValueHeads = 32, 48, 2, 2, 2
	return c
}

// lively are weights without zeros and ones, so that nothing cancels by chance.
func lively(cfg Config) *graphx.Weights {
	t, err := Init(cfg, prng.New(5, 0, prng.Init).Rand(), InitOptions{Structured: true})
	if err != nil {
		panic(err)
	}
	w := graphx.NewWeights(t)
	rng := prng.New(6, 0, prng.Init)
	for _, name := range w.Names() {
		flat := graphx.Floats(w.Get(name))
		for i := range flat {
			flat[i] = flat[i]*2 + .1*float32(rng.NormFloat())
		}
		w.Set(name, graphx.Tensor(flat, Shapes(cfg)[name]...))
	}
	return w
}

// letters encodes a text as its letters.
type letters struct{}

func (letters) Encode(text string) []int32 {
	var ids []int32
	for _, r := range text {
		ids = append(ids, r%26+10)
	}
	return ids
}

var testOptions = Options{Steps: 5, Guidance: 1.75, Temperature: 2, Rule: maskgit.Anneal, Tile: 3}

func newGenerator(t *testing.T, be compute.Backend, o Options) *Generator {
	t.Helper()
	cfg := small()
	g, err := NewGenerator(be, cfg, lively(cfg), letters{}, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestDecoderEqualsForward(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		cfg := small()
		w := lively(cfg)
		for _, guidance := range []float64{1.75, 0} {
			o := testOptions
			o.Guidance = guidance
			d, err := NewDecoder(be, cfg, w, o)
			if err != nil {
				t.Fatal(err)
			}
			rng := prng.New(9, 0, prng.Tokens)
			prompts := NewPrompting(cfg)
			var states []State
			var texts [][]int32
			for _, text := range []string{"", "abc", "defghi", "a text that is cut", "abc"} {
				tokens := make([]int32, cfg.NumVQTokens)
				for i := range tokens {
					if tokens[i] = int32(rng.Intn(cfg.CodebookSize)); rng.Intn(3) > 0 {
						tokens[i] = cot.Masked
					}
				}
				ids := letters{}.Encode(text)
				prefix, err := d.Condition(prompts.Condition(ids))
				if err != nil {
					t.Fatal(err)
				}
				states, texts = append(states, State{prefix, tokens}), append(texts, ids)
			}
			got, err := d.Logits(t.Context(), states)
			if err != nil {
				t.Fatal(err)
			}
			want := plainLogits(t, be, cfg, w, texts, states, guidance)
			spread := 0.0
			for i := range got {
				for j := range got[i] {
					spread = max(spread, math.Abs(float64(want[i][j])))
					if diff := math.Abs(float64(got[i][j] - want[i][j])); diff > 1e-4 {
						t.Fatalf("guidance %v, state %d, logit %d: %v, plain forward %v", guidance, i, j, got[i][j], want[i][j])
					}
				}
			}
			if spread < .5 {
				t.Errorf("largest logit %v: the comparison sees nothing", spread)
			}
		}
	})
}

// plainLogits runs whole sequences through Forward, guides the logits, and cuts the codebook out last.
func plainLogits(t *testing.T, be compute.Backend, cfg Config, w *graphx.Weights, texts [][]int32, states []State, guidance float64) [][]float32 {
	t.Helper()
	prompts, n, from := NewPrompting(cfg), len(states), cfg.MaxSeqLength+2
	var ids []int32
	var allow []uint8
	for i := range 2 * n {
		text := texts[i%n]
		if i >= n {
			text = nil
		}
		row := prompts.T2IGen(text, cfg.ImageIDs(states[i%n].Tokens))
		ids, allow = append(ids, row.IDs...), append(allow, row.Allow()...)
	}
	p, err := graphx.NewProgram(be, "plain", w, graphx.PolicyFor(be), func(s graphx.Scope, in []*Node) []*Node {
		return []*Node{Forward(s, cfg, Sequence{IDs: in[0], Allow: in[1], ImageAt: from})}
	})
	if err != nil {
		t.Fatal(err)
	}
	l := cfg.MaxSeqLength + 3 + cfg.NumVQTokens
	out, err := p.Run(graphx.Tensor(ids, 2*n, l), graphx.Tensor(allow, 2*n, l, l))
	if err != nil {
		t.Fatal(err)
	}
	all := graphx.Floats(out[0])
	at := func(row, position, code int) float64 {
		return float64(all[(row*l+from+position)*cfg.VocabSize+int(cfg.ImageOffset())+code])
	}
	logits := make([][]float32, n)
	for i := range logits {
		for position := range cfg.NumVQTokens {
			for code := range cfg.CodebookSize {
				v := (1+guidance)*at(i, position, code) - guidance*at(n+i, position, code)
				logits[i] = append(logits[i], float32(v))
			}
		}
	}
	return logits
}

// decodeAll advances all paths to the end and returns their stories: every step's sample, tokens and confidence.
func decodeAll(t *testing.T, g *Generator, paths []*cot.Path) []string {
	t.Helper()
	stories := make([]string, len(paths))
	for range g.Steps() {
		if err := g.Advance(t.Context(), paths); err != nil {
			t.Fatal(err)
		}
		for i, p := range paths {
			stories[i] += fmt.Sprintln(p.Step, p.Sample, p.Tokens, math.Float64bits(p.LogConf))
		}
	}
	return stories
}

func start(t *testing.T, g *Generator, text string, seeds ...uint64) []*cot.Path {
	t.Helper()
	paths, err := g.Start(t.Context(), cot.Prompt{Text: text}, seeds)
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestPathDoesNotDependOnCompany(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		seeds := []uint64{1, 2, 3, 4, 5, 6, 7}
		together := decodeAll(t, newGenerator(t, be, testOptions), start(t, newGenerator(t, be, testOptions), "abc", seeds...))
		g := newGenerator(t, be, testOptions)
		for i, seed := range seeds[:3] {
			if alone := decodeAll(t, g, start(t, g, "abc", seed)); alone[0] != together[i] {
				t.Errorf("path %d alone:\n%samong seven:\n%s", i, alone[0], together[i])
			}
		}
		// Another order, other prompts between, and paths at different steps.
		mixed := slices.Concat(start(t, g, "xyz", 8, 9), start(t, g, "abc", seeds...), start(t, g, "", 10))
		slices.Reverse(mixed)
		ahead := mixed[1:4] // abc's paths 6, 5, 4
		if err := g.Advance(t.Context(), ahead); err != nil {
			t.Fatal(err)
		}
		first := make([]string, len(mixed))
		for i, p := range ahead {
			first[1+i] = fmt.Sprintln(p.Step, p.Sample, p.Tokens, math.Float64bits(p.LogConf))
		}
		for step := range g.Steps() {
			var live []*cot.Path
			var at []int
			for i, p := range mixed {
				if p.Step < g.Steps() && (i+step)%4 > 0 {
					live, at = append(live, p), append(at, i)
				}
			}
			if err := g.Advance(t.Context(), live); err != nil {
				t.Fatal(err)
			}
			for j, p := range live {
				first[at[j]] += fmt.Sprintln(p.Step, p.Sample, p.Tokens, math.Float64bits(p.LogConf))
			}
		}
		compared := 0
		for i, p := range mixed {
			if p.Prompt.Text != "abc" {
				continue
			}
			compared += p.Step
			if !strings.HasPrefix(together[p.Index], first[i]) {
				t.Errorf("path %d in mixed company:\n%salone:\n%s", p.Index, first[i], together[p.Index])
			}
		}
		if compared < 20 {
			t.Errorf("only %d steps compared", compared)
		}
	})
}

func TestSettlesLikeTheReference(t *testing.T) {
	g := newGenerator(t, enginetest.Go(t), testOptions)
	path := start(t, g, "abc", 11)[0]
	for range g.Steps() {
		before := slices.Clone(path.Tokens)
		prefix, err := g.decoder.Condition(g.prompts.Condition(letters{}.Encode("abc")))
		if err != nil {
			t.Fatal(err)
		}
		logits, err := g.decoder.Logits(t.Context(), []State{{prefix, before}})
		if err != nil {
			t.Fatal(err)
		}
		noise := maskgit.NoiseOf(path.Seed, path.Step, len(before))
		want, err := testOptions.Rules().StepFromLogits(path.Step, before, logits[0], g.Config().CodebookSize, noise)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Advance(t.Context(), []*cot.Path{path}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(path.Tokens, want.Next) || !slices.Equal(path.Sample, want.Sampled) {
			t.Fatalf("step %d: tokens %v sample %v, want %v and %v", path.Step, path.Tokens, path.Sample, want.Next, want.Sampled)
		}
		if math.Abs(path.LogConf-want.LogConf) > 1e-3 {
			t.Errorf("step %d: log-confidence %v, want %v", path.Step, path.LogConf, want.LogConf)
		}
	}
	if slices.Contains(path.Tokens, cot.Masked) {
		t.Errorf("masked tokens are left: %v", path.Tokens)
	}
}

func TestFork(t *testing.T) {
	g := newGenerator(t, enginetest.Go(t), testOptions)
	path := start(t, g, "abc", 1)[0]
	if err := g.Advance(t.Context(), []*cot.Path{path}); err != nil {
		t.Fatal(err)
	}
	same, other := g.Fork(path, 1), g.Fork(path, 2)
	tokens := slices.Clone(path.Tokens)
	if err := g.Advance(t.Context(), []*cot.Path{same, other}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(path.Tokens, tokens) || path.Step != 1 {
		t.Error("advancing a fork moved its origin")
	}
	if err := g.Advance(t.Context(), []*cot.Path{path}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(path.Sample, same.Sample) {
		t.Error("a fork with the same seed went another way")
	}
	if slices.Equal(path.Sample, other.Sample) {
		t.Error("a fork with another seed went the same way")
	}
}

// Forks that have not parted yet ask the model the same: one answer, the one that each alone would get.
func TestEqualStatesAreComputedOnce(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		d := newGenerator(t, be, testOptions).decoder
		prompts := NewPrompting(d.cfg)
		under := func(text string) *Prefix {
			p, err := d.Condition(prompts.Condition(letters{}.Encode(text)))
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		at := func(first int32) []int32 {
			tokens := make([]int32, d.cfg.NumVQTokens)
			for i := range tokens {
				tokens[i] = cot.Masked
			}
			tokens[0] = first
			return tokens
		}
		states := []State{{under("abc"), at(1)}, {under("abc"), at(2)}, {under("de"), at(1)}, {under("abc"), at(1)}, {under("abc"), at(cot.Masked)}, {under("abc"), at(cot.Masked)}}
		together, err := d.Probabilities(t.Context(), states)
		if err != nil {
			t.Fatal(err)
		}
		other := newGenerator(t, be, testOptions).decoder
		for i, s := range states {
			alone, err := other.Probabilities(t.Context(), []State{s})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(together[i], alone[0]) {
				t.Errorf("state %d is not what it is alone", i)
			}
			for j := range i {
				same := j == 0 && i == 3 || j == 4 && i == 5
				if shared := &together[i][0] == &together[j][0]; shared != same {
					t.Errorf("states %d and %d share one answer: %v, want %v", j, i, shared, same)
				}
			}
		}
	})
}

// grey decodes any tokens to one pixel.
type grey struct{}

func (grey) Decode(_ context.Context, tokens [][]int32) ([]*image.RGBA, error) {
	out := make([]*image.RGBA, len(tokens))
	for i := range out {
		out[i] = image.NewRGBA(image.Rect(0, 0, 1, 1))
		out[i].Pix[0] = uint8(tokens[i][0])
	}
	return out, nil
}

// As the released code decodes: the first candidate has its temperature, the others have none.
func TestOfficialTemperatureIsNeverSetBack(t *testing.T) {
	be := enginetest.Go(t)
	tokens := func(o Options) [2][]int32 {
		g := newGenerator(t, be, o)
		paths := start(t, g, "abc", 1, 2)
		decodeAll(t, g, paths)
		return [2][]int32{paths[0].Tokens, paths[1].Tokens}
	}
	warm := testOptions
	warm.Rule, warm.Temperature = maskgit.Compound, 9
	official, cold := warm, warm
	official.Official, cold.Temperature = true, 0
	w, o, c := tokens(warm), tokens(official), tokens(cold)
	if !slices.Equal(o[0], w[0]) || !slices.Equal(o[1], c[1]) {
		t.Errorf("official %v, want %v and %v", o, w[0], c[1])
	}
	if slices.Equal(w[0], c[0]) || slices.Equal(w[1], c[1]) {
		t.Error("the temperature makes no difference: the test shows nothing")
	}
}

func TestDecodeShowsTheSample(t *testing.T) {
	g := newGenerator(t, enginetest.Go(t), testOptions)
	paths := start(t, g, "abc", 1, 2)
	if _, err := g.Decode(t.Context(), paths); err == nil {
		t.Error("decoded a path without a step image")
	}
	if err := g.Advance(t.Context(), paths); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Decode(t.Context(), paths); err == nil {
		t.Error("decoded without a tokenizer")
	}
	g.images = grey{}
	pictures, err := g.Decode(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range pictures {
		if red := p.(*image.RGBA).Pix[0]; int32(red) != paths[i].Sample[0] {
			t.Errorf("image %d shows token %d, want %d", i, red, paths[i].Sample[0])
		}
	}
}

func TestAdvanceRefusals(t *testing.T) {
	g := newGenerator(t, enginetest.Go(t), testOptions)
	paths := start(t, g, "abc", 1, 2)
	paths[1].Step = g.Steps()
	if err := g.Advance(t.Context(), paths); err == nil || paths[0].Step != 0 {
		t.Errorf("a finished path: error %v, the other path at step %d", err, paths[0].Step)
	}
	paths[1].Step, paths[1].Tokens[3] = 1, int32(g.Config().CodebookSize)
	if err := g.Advance(t.Context(), paths); err == nil || !strings.Contains(err.Error(), "image token 3 is 32") {
		t.Errorf("a token that does not exist: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Advance(ctx, paths[:1]); err == nil || paths[0].Step != 0 {
		t.Errorf("a cancelled context: error %v, path at step %d", err, paths[0].Step)
	}
	o := testOptions
	o.Guidance = math.NaN()
	if _, err := NewDecoder(enginetest.Go(t), small(), lively(small()), o); err == nil {
		t.Error("guidance NaN was accepted")
	}
}
