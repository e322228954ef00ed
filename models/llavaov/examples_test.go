package llavaov

import (
	"math"
	"slices"
	"strings"
	"testing"

	"imagecot/cot"
)

func TestTurnsCutAConversationWhereAnswersBegin(t *testing.T) {
	c := testChat(t)
	turns, err := c.Turns([]cot.Turn{{Text: asked, Answer: "yes"}}, "the potential to iterate?")
	if err != nil {
		t.Fatal(err)
	}
	want := " " + asked + "<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>user\nthe potential to iterate?<|im_end|>\n<|im_start|>assistant\n"
	if got := slices.Concat(turns...); !slices.Equal(got, c.tok.Encode(want)) {
		t.Errorf("the turns read %q", c.tok.Decode(got, false))
	}
	first, err := c.Turns(nil, asked)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(first[0], turns[0]) {
		t.Error("the first turn of a conversation is not the question asked alone")
	}
}

// learned lists the targets of a segment that count.
func learned(c *Chat, p *PackedBatch, at int) (words []string) {
	for i := at * p.T; i < (at+1)*p.T; i++ {
		if p.Weights[i] > 0 {
			words = append(words, c.tok.Decode(p.Targets[i:i+1], false))
		}
	}
	return words
}

func TestPackCountsAnswersAndChosenWords(t *testing.T) {
	c := testChat(t)
	p, err := c.Pack(examples, 0, 0, Shares{Verdict: 1, Answer: .5, Words: .25})
	if err != nil {
		t.Fatal(err)
	}
	if p.B != 2 || p.S != 3 || p.T%8 != 0 {
		t.Fatalf("batch of %d x %d x %d", p.B, p.S, p.T)
	}
	for at, want := range []string{" a| photo| of| a| red| circle|yes|<|im_end|>", "no|<|im_end|>", "yes|<|im_end|>|No|<|im_end|>", "t|w|o| squares|<|im_end|>", "no|<|im_end|>", ""} {
		if got := strings.Join(learned(c, p, at), "|"); got != want {
			t.Errorf("segment %d learns %q, want %q", at, got, want)
		}
	}
	total, verdicts := 0., 0
	for i, w := range p.Weights {
		total += float64(w)
		if p.Answers[i] > 0 {
			verdicts++
		}
	}
	if math.Abs(total-1.75) > 1e-6 {
		t.Errorf("weights add up to %g, want the shares' sum 1.75", total)
	}
	if verdicts != 5 {
		t.Errorf("%d verdicts, want 5", verdicts)
	}
}

func TestPackRefuses(t *testing.T) {
	c := testChat(t)
	for name, e := range map[string]Example{
		"no turn": {}, "words elsewhere": {{Text: "a star?", Answer: "yes", Words: "a ring"}},
		"a turn's end": {{Text: "a star?", Answer: "yes<|im_end|>"}}, "too long": {{Text: strings.Repeat(asked, 3), Answer: "yes"}},
	} {
		if _, err := c.Pack([][]Example{{e}}, 1, 24, TinyShares); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := c.Pack(examples, 2, 0, TinyShares); err == nil {
		t.Error("three segments in two are no error")
	}
}
