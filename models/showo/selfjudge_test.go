package showo

import (
	"math"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/internal/enginetest"
)

// words spell a text letter by letter, yes and no in one id each.
type words struct{ letters }

func (w words) Encode(text string) []int32 {
	switch text {
	case " yes":
		return []int32{3}
	case "yes":
		return []int32{4}
	case " no":
		return []int32{5}
	}
	return w.letters.Encode(text)
}

// The verdict is what the understander says after Show-o's wording; it follows the image and the question.
func TestSelfJudgeReadsTokens(t *testing.T) {
	cfg, be := small(), enginetest.Go(t)
	j, err := NewSelfJudge(be, cfg, lively(cfg), words{})
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]int32, cfg.NumVQTokens)
	other := append([]int32(nil), tokens...)
	other[1] = 3
	qs := []cot.Question{{Text: "a?", Tokens: tokens}, {Text: "b?", Tokens: tokens}, {Text: "a?", Tokens: other}}
	got, err := j.Ask(t.Context(), qs)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := j.understander.See(t.Context(), tokens)
	if err != nil {
		t.Fatal(err)
	}
	logits, err := j.understander.Next(t.Context(), seen, append([]int32{cfg.EOT()}, letters{}.Encode("USER: \na? ASSISTANT:")...))
	if err != nil {
		t.Fatal(err)
	}
	if want := VerdictOf(logits, []int32{3, 4}, []int32{5}); got[0] != want {
		t.Errorf("verdict %+v, want %+v", got[0], want)
	}
	if got[1] == got[0] || got[2] == got[0] || !got[0].Valid() || math.IsInf(got[0].LogPYes, 0) {
		t.Errorf("question and image make no difference: %+v", got)
	}
	for want, q := range map[string]cot.Question{
		"follows 1 others": {Text: "b?", Tokens: tokens, After: []cot.Turn{{Text: "a?", Answer: "yes"}}},
		"path 7, step 2":   {Text: "a?", Tokens: tokens[1:], Path: 7, Step: 2},
	} {
		if _, err := j.Ask(t.Context(), []cot.Question{q}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want one that says %q", err, want)
		}
	}
	if _, err := NewSelfJudge(be, cfg, lively(cfg), letters{}); err == nil || !strings.Contains(err.Error(), "0 ids for yes") {
		t.Errorf("a tokenizer without yes: %v", err)
	}
}
