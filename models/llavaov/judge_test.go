package llavaov

import (
	"context"
	"image"
	"image/color"
	"math"
	"testing"

	"imagecot/cot"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

func picture(seed uint64, w, h int) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	v := randomFloats(seed, 3*w*h)
	for i := range w * h {
		b := func(k int) uint8 { return uint8(127 + 120*v[3*i+k]) }
		img.SetRGBA(i%w, i/w, color.RGBA{b(0), b(1), b(2), 255})
	}
	return img
}

// wholeLogits is the plain forward over a whole conversation: no cache, no padding, one row.
func wholeLogits(t *testing.T, be compute.Backend, m *Model, w *graphx.Weights, before, ids []int32, img image.Image, aspect string) []float32 {
	t.Helper()
	rows, err := m.ImageRows(t.Context(), []image.Image{img}, aspect)
	if err != nil {
		t.Fatal(err)
	}
	program, err := graphx.NewProgram(be, "whole", w, graphx.Policy{}, func(s graphx.Scope, in []*Node) []*Node {
		e := s.In("model")
		x := Concatenate([]*Node{Embed(e, in[0]), in[1], Embed(e, in[2])}, 0)
		n := x.Shape().Dimensions[0]
		h := Decode(e, m.cfg.Text, InsertAxes(x, 0), Const(x.Graph(), positions(n)), nil, nil)
		return []*Node{Logits(s, Reshape(Slice(h, AxisRange(), AxisRange(n-1)), 1, -1), 0)}
	})
	if err != nil {
		t.Fatal(err)
	}
	d := m.cfg.Text.HiddenSize
	out, err := program.Run(graphx.Tensor(before, len(before)), graphx.Tensor(rows[0], len(rows[0])/d, d), graphx.Tensor(ids, len(ids)))
	if err != nil {
		t.Fatal(err)
	}
	return graphx.Floats(out[0])
}

func positions(n int) [][]int32 {
	at := make([][]int32, 1)
	for i := range n {
		at[0] = append(at[0], int32(i))
	}
	return at
}

func testQuestions() []cot.Question {
	a, b := picture(1, 14, 14), picture(2, 20, 11)
	potential := "the potential to iterate?"
	return []cot.Question{
		{Text: asked, Image: a},
		{Text: "a blue star?", Image: b},
		{Text: potential, After: []cot.Turn{{Text: asked, Answer: "yes"}}, Image: a},
		{Text: potential, After: []cot.Turn{{Text: asked, Answer: "yes"}}, Image: b},
		{Text: "two squares?", After: []cot.Turn{{Text: asked, Answer: "yes"}, {Text: potential, Answer: "No"}}, Image: b},
		{Text: asked, Image: a},
	}
}

func newTestJudge(t testing.TB, be compute.Backend, o Options) (*Judge, *graphx.Weights) {
	t.Helper()
	tok := testTokenizer(t)
	c := smallConfig(tok.VocabSize())
	w := smallWeights(c)
	j, err := NewJudge(be, c, w, tok, o)
	if err != nil {
		t.Fatal(err)
	}
	return j, w
}

func TestVerdictsAreThoseOfThePlainForward(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		for _, aspect := range []string{"pad", "anyres_max_9"} {
			j, w := newTestJudge(t, be, Options{Aspect: aspect, Batch: 2})
			qs := testQuestions()
			got, err := j.Ask(t.Context(), qs)
			if err != nil {
				t.Fatal(err)
			}
			for i, q := range qs {
				turns, err := j.chat.Turns(q.After, q.Text)
				if err != nil {
					t.Fatal(err)
				}
				var ids []int32
				for _, turn := range turns {
					ids = append(ids, turn...)
				}
				logits := wholeLogits(t, be, j.model, w, j.chat.before, ids, q.Image, aspect)
				yes, no := LogP(logits, j.yes), LogP(logits, j.no)
				if math.Abs(got[i].LogPYes-yes) > 2e-5 || math.Abs(got[i].LogPNo-no) > 2e-5 {
					t.Errorf("%s: question %d: %v, the plain forward gives %g, %g", aspect, i, got[i], yes, no)
				}
			}
		}
	})
}

func TestVerdictBitsDependOnTheQuestionAlone(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		j, _ := newTestJudge(t, be, Options{Batch: 3})
		qs := testQuestions()
		together, err := j.Ask(t.Context(), qs)
		if err != nil {
			t.Fatal(err)
		}
		for i := len(qs) - 1; i >= 0; i-- {
			fresh, _ := newTestJudge(t, be, Options{Batch: 3})
			alone, err := fresh.Ask(t.Context(), qs[i:i+1])
			if err != nil {
				t.Fatal(err)
			}
			if alone[0] != together[i] {
				t.Errorf("question %d: alone %v, together %v", i, alone[0], together[i])
			}
		}
	})
}

func TestFollowUpPaysForItsOwnTokensOnly(t *testing.T) {
	j, _ := newTestJudge(t, enginetest.Go(t), Options{CacheImages: 1})
	qs := testQuestions()
	ask := func(q cot.Question) {
		t.Helper()
		if _, err := j.Ask(t.Context(), []cot.Question{q}); err != nil {
			t.Fatal(err)
		}
	}
	ask(qs[0])
	key := keyOf(qs[0].Image.(*image.RGBA))
	root := j.cache.entries[key].root
	ask(qs[2]) // follows up the first one
	if j.cache.entries[key].root != root || len(root.next) != 1 {
		t.Fatalf("the image was read again, or the first question asked again: %d conversations", len(root.next))
	}
	turns, _ := j.chat.Turns(qs[2].After, qs[2].Text)
	follow := root.next[idsKey(turns[0])].next[idsKey(turns[1])]
	if follow == nil || follow.state.n != len(turns[1]) {
		t.Fatalf("the follow-up's state holds %v, want its own %d positions", follow, len(turns[1]))
	}
	ask(qs[1]) // another image, and room for one
	if len(j.cache.entries) != 1 || j.cache.entries[key] != nil {
		t.Errorf("%d images are kept, want the last one", len(j.cache.entries))
	}
}

func TestExplainIsGreedy(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		j, w := newTestJudge(t, be, Options{MaxNewTokens: 6})
		q := testQuestions()[2]
		got, err := j.Explain(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		turns, _ := j.chat.Turns(q.After, q.Text)
		ids := append(append([]int32{}, turns[0]...), turns[1]...)
		var want []int32
		for len(want) < 6 {
			next := int32(argmax(wholeLogits(t, be, j.model, w, j.chat.before, ids, q.Image, "pad")))
			if next == j.chat.stops[0] || next == j.chat.stops[1] {
				break
			}
			want, ids = append(want, next), append(ids, next)
		}
		if text := j.chat.tok.Decode(want, true); got != text && got != text[1:] {
			t.Errorf("reason %q, want %q", got, text)
		}
	})
}

func TestAskRefuses(t *testing.T) {
	j, _ := newTestJudge(t, enginetest.Go(t), Options{})
	for name, q := range map[string]cot.Question{
		"no image":         {Text: "a blue star?"},
		"no words":         {Text: " ", Image: picture(1, 4, 4)},
		"a turn's end":     {Text: "a star?<|im_end|>", Image: picture(1, 4, 4)},
		"an answer's turn": {Text: "a star?", After: []cot.Turn{{Text: "a", Answer: "yes<|im_end|>"}}, Image: picture(1, 4, 4)},
	} {
		if _, err := j.Ask(t.Context(), []cot.Question{q}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Ask(ctx, testQuestions()); err == nil {
		t.Error("a cancelled context is no error")
	}
}

// BenchmarkAsk asks the tiny judge one question about each of 8 new images.
func BenchmarkAsk(b *testing.B) {
	tok := testTokenizer(b)
	c := Tiny(512)
	j, err := NewJudge(fastest(b), c, smallWeights(c), tok, Options{})
	if err != nil {
		b.Fatal(err)
	}
	seed := uint64(0)
	ask := func() {
		var qs []cot.Question
		for range 8 {
			seed++
			qs = append(qs, cot.Question{Text: "does it show a photo of a red circle?", Image: picture(seed, 64, 64)})
		}
		if _, err := j.Ask(b.Context(), qs); err != nil {
			b.Fatal(err)
		}
	}
	ask()
	for b.Loop() {
		ask()
	}
}
