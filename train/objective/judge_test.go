package objective

import (
	"strings"
	"testing"

	"imagecot/internal/prng"
	"imagecot/train"
	"imagecot/world"
)

// With opposites, a position that is answered yes is asked about with the opposite relation too, and answered no.
func TestOppositesAreAsked(t *testing.T) {
	opposite := strings.NewReplacer("left of", "right of", "right of", "left of", "above", "below", "below", "above")
	for _, opposites := range []bool{true, false} {
		j, err := NewJudge(train.Recipe{Kind: "judge", MaxSteps: 1, Batch: 1, Accum: 1, Data: map[string]any{"opposites": opposites, "questions": 5}})
		if err != nil {
			t.Fatal(err)
		}
		rng := prng.New(1, 0, prng.Scene).Rand()
		asked, yes, after := 0, 0, 0
		for range 50 {
			turns := j.examples(world.Pairs.Draw(rng), world.PositionQuestions, false, rng)[:j.data.Questions]
			for i, e := range turns {
				asked++
				if e[0].Answer != "yes" || i+1 == len(turns) {
					continue
				}
				yes++
				if next := turns[i+1][0]; next.Text == opposite.Replace(e[0].Text) && next.Answer == "no" {
					after++
				}
			}
		}
		if asked != 250 || yes < 50 || opposites && after != yes || !opposites && after > yes/2 {
			t.Errorf("opposites %t: %d questions, %d of them yes, %d followed by the opposite", opposites, asked, yes, after)
		}
	}
}

// The shares of a run follow one another: tidy scenes, then positions of two objects, then everything.
func TestPositionIsAShareOfTheRun(t *testing.T) {
	j, err := NewJudge(train.Recipe{Kind: "judge", MaxSteps: 10, Batch: 2, Accum: 1, Data: map[string]any{"tidy": .2, "position": .3, "opposites": true}})
	if err != nil {
		t.Fatal(err)
	}
	for step, want := range map[int]world.QuestionMix{0: world.FirstQuestions, 1: world.FirstQuestions, 2: world.PositionQuestions, 4: world.PositionQuestions, 5: world.LaterQuestions, 9: world.LaterQuestions} {
		if _, got := j.mixes(step); got != want {
			t.Errorf("step %d asks %+v", step, got)
		}
	}
}
