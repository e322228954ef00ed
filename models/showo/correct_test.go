package showo

import (
	"math"
	"slices"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// randomGrid is a grid of tokens, two thirds of them masked if masked is set.
func randomGrid(cfg Config, rng *prng.Stream, masked bool) []int32 {
	tokens := make([]int32, cfg.NumVQTokens)
	for i := range tokens {
		if tokens[i] = int32(rng.Intn(cfg.CodebookSize)); masked && rng.Intn(3) > 0 {
			tokens[i] = cot.Masked
		}
	}
	return tokens
}

// plainCorrection is the logits [N*K] of the new image by one forward over a whole sequence.
func plainCorrection(t *testing.T, be compute.Backend, cfg Config, w *graphx.Weights, row Row, images int) []float32 {
	t.Helper()
	l, text := len(row.IDs), len(row.IDs)-images*(cfg.NumVQTokens+2)
	p, err := graphx.NewProgram(be, "plain", w, graphx.PolicyFor(be), func(s graphx.Scope, in []*Node) []*Node {
		return []*Node{Forward(s, cfg, Sequence{IDs: in[0], Allow: in[1], ImageAt: text + 1, Images: images})}
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Run(graphx.Tensor(row.IDs, 1, l), graphx.Tensor(row.Allow(), 1, l, l))
	if err != nil {
		t.Fatal(err)
	}
	all := graphx.Floats(out[0])
	var logits []float32
	for at := l - 1 - cfg.NumVQTokens; at < l-1; at++ {
		from := at*cfg.VocabSize + int(cfg.ImageOffset())
		logits = append(logits, all[from:from+cfg.CodebookSize]...)
	}
	return logits
}

func TestCorrectionEqualsForward(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		cfg := small()
		w := lively(cfg)
		d, err := NewDecoder(be, cfg, w, testOptions)
		if err != nil {
			t.Fatal(err)
		}
		prompts, rng := NewPrompting(cfg), prng.New(3, 0, prng.Tokens)
		for _, text := range []string{"", "abc wrong", "a text of more than twenty letters, which is cut"} {
			ids := letters{}.Encode(text)
			bad, tokens := randomGrid(cfg, rng, false), randomGrid(cfg, rng, true)
			prefix, err := d.Correction(prompts.CorrectionCondition(ids), bad)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.Logits(t.Context(), []State{{prefix, tokens}})
			if err != nil {
				t.Fatal(err)
			}
			image := cfg.ImageIDs(tokens)
			cond := plainCorrection(t, be, cfg, w, prompts.Correction(ids, cfg.ImageIDs(bad), image, nil), 2)
			uncond := plainCorrection(t, be, cfg, w, prompts.Uncond(image), 1)
			plain := plainCorrection(t, be, cfg, w, prompts.T2IGen(ids, image), 1)
			unlike := 0.0 // how far the bad image moves the logits
			for i := range cond {
				want := (1+testOptions.Guidance)*float64(cond[i]) - testOptions.Guidance*float64(uncond[i])
				if diff := math.Abs(float64(got[0][i]) - want); diff > 1e-4 {
					t.Fatalf("text %q, logit %d: %v, plain forward %v", text, i, got[0][i], want)
				}
				unlike = max(unlike, math.Abs(float64(cond[i]-plain[i])))
			}
			if unlike < .05 {
				t.Errorf("text %q: the bad image moves no logit by more than %v", text, unlike)
			}
		}
	})
}

// What stands before the new image must not see it, or its keys and values could not be kept.
func TestCorrectionMask(t *testing.T) {
	cfg := small()
	p := NewPrompting(cfg)
	rng := prng.New(4, 0, prng.Tokens)
	row := p.Correction(letters{}.Encode("abc"), cfg.ImageIDs(randomGrid(cfg, rng, false)), cfg.ImageIDs(randomGrid(cfg, rng, true)), nil)
	block := cfg.NumVQTokens + 2
	text := 2*cfg.MaxSeqLength + 1
	if len(row.IDs) != text+2*block || row.Pads != text-6 {
		t.Fatalf("%d ids, %d pads", len(row.IDs), row.Pads)
	}
	for _, c := range []struct {
		what string
		q, k int
		want bool
	}{
		{"text, earlier text", text - 1, row.Pads, true},
		{"text, later text", text - 2, text - 1, false},
		{"text, bad image", text - 1, text, false},
		{"bad image, text", text, text - 1, true},
		{"bad image, pad", text, row.Pads - 1, false},
		{"bad image, its own end", text, text + block - 1, true},
		{"bad image, new image", text + block - 1, text + block, false},
		{"new image, text", text + block, row.Pads, true},
		{"new image, bad image", text + block, text, true},
		{"new image, its own end", text + block, text + 2*block - 1, true},
		{"new image, pad", text + 2*block - 1, row.Pads - 1, false},
	} {
		if got := row.Allow()[c.q*len(row.IDs)+c.k] == 1; got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// The loss in the graph equals a forward with the row's own mask, and counts nothing but the hidden tokens and both marks
// of the new image.
func TestCorrectionLossAgrees(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		cfg := small()
		w := lively(cfg)
		p, rng := NewPrompting(cfg), prng.New(8, 0, prng.Masking)
		var ids, labels, pads []int32
		var want, targets float64
		for _, text := range []string{"abc", "a longer text"} {
			m := DrawMask(cfg.ImageIDs(randomGrid(cfg, rng, false)), cfg.MaskTokenID, 0, rng)
			row := p.Correction(letters{}.Encode(text), cfg.ImageIDs(randomGrid(cfg, rng, false)), m.IDs, m.Labels)
			ids, labels, pads = append(ids, row.IDs...), append(labels, row.Labels...), append(pads, int32(row.Pads))
			l := len(row.IDs)
			full, err := graphx.NewProgram(be, "full", w, graphx.PolicyFor(be), func(s graphx.Scope, in []*Node) []*Node {
				return []*Node{Forward(s, cfg, Sequence{IDs: in[0], Allow: in[1], ImageAt: 2*cfg.MaxSeqLength + 2, Images: 2})}
			})
			if err != nil {
				t.Fatal(err)
			}
			out, err := full.Run(graphx.Tensor(row.IDs, 1, l), graphx.Tensor(row.Allow(), 1, l, l))
			if err != nil {
				t.Fatal(err)
			}
			logits := graphx.Floats(out[0])
			for at := l - cfg.NumVQTokens - 2; at < l; at++ {
				if row.Labels[at] == Ignore {
					continue
				}
				v := VerdictOf(logits[at*cfg.VocabSize:(at+1)*cfg.VocabSize], []int32{row.Labels[at]}, nil)
				want, targets = want-v.LogPYes, targets+1
			}
			if hidden := m.Count + 2; row.Labels[l-1] != cfg.EOI() || len(row.Labels)-countOf(row.Labels[l-cfg.NumVQTokens-2:], Ignore) < hidden {
				t.Errorf("labels %v", row.Labels)
			}
		}
		loss, err := graphx.NewProgram(be, "loss", w, graphx.PolicyFor(be), func(s graphx.Scope, in []*Node) []*Node {
			return []*Node{CorrectionLoss(s, cfg, in[0], in[1], in[2])}
		})
		if err != nil {
			t.Fatal(err)
		}
		l := len(ids) / 2
		out, err := loss.Run(graphx.Tensor(ids, 2, l), graphx.Tensor(labels, 2, l), graphx.Tensor(pads, 2))
		if err != nil {
			t.Fatal(err)
		}
		if got := float64(graphx.Floats(out[0])[0]); math.Abs(got-want/targets) > 1e-4 {
			t.Errorf("loss %v, want %v over %v targets", got, want/targets, targets)
		}
	})
}

func countOf(list []int32, v int32) int {
	n := 0
	for _, x := range list {
		if x == v {
			n++
		}
	}
	return n
}

func TestCorrect(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		g := newGenerator(t, be, testOptions)
		prompt := cot.Prompt{Text: "abc"}
		made, err := g.Start(t.Context(), prompt, []uint64{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Correct(t.Context(), prompt, made[0], "wrong", 9); err == nil || !strings.Contains(err.Error(), "step 0 of 5") {
			t.Errorf("a path without an image was corrected: %v", err)
		}
		for range g.Steps() {
			if err := g.Advance(t.Context(), made); err != nil {
				t.Fatal(err)
			}
		}
		correct := func(bad *cot.Path, reason string, seed uint64) *cot.Path {
			t.Helper()
			before := slices.Clone(bad.Tokens)
			p, err := g.Correct(t.Context(), prompt, bad, reason, seed)
			if err != nil {
				t.Fatal(err)
			}
			if p.Step != g.Steps() || p.Seed != seed || slices.Contains(p.Tokens, cot.Masked) || !slices.Equal(p.Tokens, p.Sample) {
				t.Fatalf("corrected path %+v", p)
			}
			if !slices.Equal(before, bad.Tokens) {
				t.Error("the bad path was changed")
			}
			return p
		}
		first := correct(made[0], "wrong", 9)
		if again := correct(made[0], "wrong", 9); !slices.Equal(again.Tokens, first.Tokens) {
			t.Error("the same correction gives another image")
		}
		for what, other := range map[string]*cot.Path{
			"another bad image": correct(made[1], "wrong", 9), "another reason": correct(made[0], "right", 9), "another seed": correct(made[0], "wrong", 10),
		} {
			if slices.Equal(other.Tokens, first.Tokens) {
				t.Errorf("%s changes nothing", what)
			}
		}
	})
}

func TestCorrectionText(t *testing.T) {
	if got := CorrectionText("a photo of a cat", " it is\n a dog "); got != "a photo of a cat. it is a dog" {
		t.Errorf("%q", got)
	}
	if got := CorrectionText("a photo of a cat", " \n"); got != "a photo of a cat" {
		t.Errorf("%q", got)
	}
}
