package world

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"imagecot/geneval"

	"pgregory.net/rapid"
)

func TestPromptCounts(t *testing.T) {
	want := []int{8, 56, 24, 48, 224, 1680}
	for i, task := range geneval.Tasks() {
		prompts := AllPrompts(task)
		texts := map[string]bool{}
		for _, m := range prompts {
			texts[m.Prompt] = true
			for _, w := range strings.Fields(m.Prompt) {
				if !slices.Contains(Words(), w) {
					t.Fatalf("%q holds the unknown word %q", m.Prompt, w)
				}
			}
			if len(strings.Fields(m.Prompt)) > 12 {
				t.Errorf("%q has more than 12 words", m.Prompt)
			}
			back, err := ParsePrompt(m.Prompt)
			if err != nil || back.Dump() != m.Dump() {
				t.Fatalf("ParsePrompt(%q) = %s, %v", m.Prompt, back.Dump(), err)
			}
		}
		if len(prompts) != want[i] || len(texts) != want[i] {
			t.Errorf("%s: %d prompts, %d texts, want %d", task, len(prompts), len(texts), want[i])
		}
	}
	if n := len(Words()); n != 33 {
		t.Errorf("%d words, want 33", n)
	}
}

func TestParsePrompt(t *testing.T) {
	m, err := ParsePrompt("a photo of a red circle left of a blue square")
	want := `{"tag": "position", "include": [{"class": "square", "count": 1, "color": "blue"}, ` +
		`{"class": "circle", "count": 1, "color": "red", "position": ["left of", 0]}], "prompt": "a photo of a red circle left of a blue square"}`
	if err != nil || m.Dump() != want {
		t.Errorf("%s, %v", m.Dump(), err)
	}
	if m, err := ParsePrompt("Three red stars"); err != nil || m.Include[0].Count != 3 || m.Exclude[0].Count != 4 || m.Include[0].Color != "red" {
		t.Errorf("%+v, %v", m, err)
	}
	for _, text := range []string{"An orange  ring.", "a photo of an orange ring", "A Photo of a orange ring"} {
		if m, err := ParsePrompt(text); err != nil || m.Prompt != "a photo of a orange ring" {
			t.Errorf("%q is read as %q, %v", text, m.Prompt, err)
		}
	}
	for text, part := range map[string]string{
		"":                                    "empty",
		"a photo of a pink dog":               `does not know "pink", "dog"; it knows: a photo of`,
		"a photo of a circle a":               "cannot read",
		"a photo of circle":                   "cannot read",
		"a photo of two circle":               "cannot read",
		"a photo of a circle and":             "cannot read",
		"a photo of a circle left a star":     "cannot read",
		"a photo of two stars and a circle":   "cannot read",
		"a photo of a star and a blue star":   "twice",
		"a photo of a red":                    "cannot read",
		"a photo of":                          "cannot read",
		"a photo of a red circle and a heart": "",
	} {
		_, err := ParsePrompt(text)
		if part == "" && err != nil || part != "" && (err == nil || !strings.Contains(err.Error(), part)) {
			t.Errorf("%q: %v, want %q", text, err, part)
		}
	}
}

// The shares of section "captions", each within four standard errors.
func TestCaptionShares(t *testing.T) {
	rng := source(21)
	const n = 40000
	count := map[string]float64{}
	relations := func(text string) bool {
		return strings.Contains(text, " of a ") && (strings.Contains(text, "left of") || strings.Contains(text, "right of")) ||
			strings.Contains(text, "above") || strings.Contains(text, "below")
	}
	hasColour := func(text string) bool {
		return slices.ContainsFunc(ColourNames(), func(c string) bool { return strings.Contains(text, " "+c+" ") })
	}
	for range n {
		if text := Caption(rng, Random(rng, Single)); hasColour(text) {
			count["single with colour"]++
		}
		text := Caption(rng, Random(rng, Count))
		if strings.Contains(text, "two") || strings.Contains(text, "three") || strings.Contains(text, "four") {
			count["count with number"]++
		}
		if hasColour(text) {
			count["count with colour"]++
		}
		s := Random(rng, Pair)
		text = Caption(rng, s)
		m, err := ParsePrompt(text)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case relations(text):
			count["position"]++
			if !s.Satisfies(m) {
				count["false position"]++
			}
		case m.Tag == geneval.ColorAttr:
			count["binding"]++
			if !s.Satisfies(m) {
				count["false binding"]++
			}
		case m.Tag == geneval.TwoObject:
			count["two"]++
		default:
			count["one of two"]++
		}
	}
	for name, want := range map[string]float64{
		"single with colour": .5, "count with number": .5, "count with colour": .3,
		"position": .15, "binding": .20, "one of two": .15, "two": .50,
		"false binding": .20 * .2 * 5 / 6, // swapping equal colours changes nothing
	} {
		got := count[name] / n
		if math.Abs(got-want) > 4*math.Sqrt(want*(1-want)/n) {
			t.Errorf("%s: %.4f, want %.4f", name, got, want)
		}
	}
	// A random relation is false in 1/2 to 3/4 of the cases.
	if share := count["false position"] / count["position"]; share < .08 || share > .16 {
		t.Errorf("%.3f of the position captions are false, want about .2 x .6", share)
	}
}

// A related caption is of two objects and right; half of those whose colours differ say the colours.
func TestRelatedCaptionsAreRight(t *testing.T) {
	rng := source(23)
	told := map[string]int{}
	for range 4000 {
		s := Random(rng, Pair)
		text, ok := Related(rng, s)
		if !ok {
			t.Fatalf("no caption of %s", names(s.Objects, true))
		}
		m, err := ParsePrompt(text)
		if err != nil {
			t.Fatal(err)
		}
		if !s.Satisfies(m) || m.Tag != geneval.Position && m.Tag != geneval.ColorAttr {
			t.Fatalf("%q of %s", text, names(s.Objects, true))
		}
		if s.Objects[0].Colour == s.Objects[1].Colour {
			told["equal colours, "+m.Tag]++
			continue
		}
		told[m.Tag]++
		if m.Include[0].Class == s.Objects[0].Shape.String() {
			told["in the scene's order"]++
		}
	}
	differ := told[geneval.Position] + told[geneval.ColorAttr]
	for _, name := range []string{geneval.Position, "in the scene's order"} {
		if share := float64(told[name]) / float64(differ); math.Abs(share-.5) > .04 {
			t.Errorf("%s: %.3f, want .5", name, share)
		}
	}
	if told["equal colours, "+geneval.Position] == 0 || told["equal colours, "+geneval.ColorAttr] > 0 {
		t.Errorf("told %v", told)
	}
	for _, kind := range []Kind{Single, Count} {
		if text, ok := Related(rng, Random(rng, kind)); ok {
			t.Errorf("%q of one shape", text)
		}
	}
}

// Every question's label is the verdict on the scene, and every question has one answer.
func TestQuestions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := source(rapid.Uint64().Draw(t, "seed"))
		s := JudgeMix.Draw(rng)
		q := LaterQuestions.Draw(rng, s)
		if q.Label != s.Satisfies(q.Prompt) || q.Label != (q.Kind == True) {
			t.Fatalf("%v question %q: label %v on %s", q.Kind, q.Prompt.Prompt, q.Label, names(s.Objects, true))
		}
		// The order of the objects must not matter.
		turned := s
		turned.Objects = slices.Clone(s.Objects)
		slices.Reverse(turned.Objects)
		if turned.Satisfies(q.Prompt) != q.Label {
			t.Fatalf("%q has two answers on %s", q.Prompt.Prompt, names(s.Objects, true))
		}
		if back, err := ParsePrompt(q.Prompt.Prompt); err != nil || back.Dump() != q.Prompt.Dump() {
			t.Fatalf("%q is no template: %v", q.Prompt.Prompt, err)
		}
	})
}

func TestQuestionShares(t *testing.T) {
	rng := source(22)
	const n = 20000
	kinds := map[QuestionKind]float64{}
	tasks := map[string]float64{}
	for range n {
		q := LaterQuestions.Draw(rng, JudgeMix.Draw(rng))
		kinds[q.Kind]++
		tasks[q.Prompt.Tag]++
	}
	for kind, want := range map[QuestionKind]float64{True: .45, Hard: .38, Easy: .17} {
		if got := kinds[kind] / n; math.Abs(got-want) > .015 {
			t.Errorf("%v: %.3f, want %.2f", kind, got, want)
		}
	}
	for _, task := range geneval.Tasks() {
		if got := tasks[task] / n; got < .05 {
			t.Errorf("%s: %.3f of the questions", task, got)
		}
	}
	// Two objects of different colours offer every task but counting, so there the weights show.
	clear(tasks)
	pair := Scene{Objects: []Object{{Shape: Circle, Colour: Red}, {Shape: Star, Colour: Blue, Col: 4, Row: 4}}}
	for range n {
		if q := LaterQuestions.Draw(rng, pair); q.Kind == True {
			tasks[q.Prompt.Tag]++
		}
	}
	if got := tasks[geneval.Position] / tasks[geneval.SingleObject]; math.Abs(got-3) > .4 {
		t.Errorf("position is asked %.2f times as often as single_object, want 3", got)
	}
}

func BenchmarkQuestion(b *testing.B) {
	rng := source(1)
	s := Random(rng, Clutter)
	for b.Loop() {
		LaterQuestions.Draw(rng, s)
	}
}

func ExampleParsePrompt() {
	_, err := ParsePrompt("a photo of a red dog")
	fmt.Println(strings.SplitAfter(err.Error(), ";")[0])
	m, _ := ParsePrompt("a photo of three stars")
	fmt.Println(m.Tag, m.Include[0].Class, m.Include[0].Count)
	// Output:
	// world: the tiny world does not know "dog";
	// counting star 3
}

// The opposite of a true position question is asked about the same objects in the same order, and its answer is no.
func TestOpposite(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	asked := 0
	for range 500 {
		s := Pairs.Draw(rng)
		q := PositionQuestions.Draw(rng, s)
		if q.Prompt.Tag != geneval.Position {
			t.Fatalf("asked %q", q.Prompt.Prompt)
		}
		o, ok := Opposite(q)
		if ok != q.Label {
			t.Fatalf("%q, answer %t, has an opposite: %t", q.Prompt.Prompt, q.Label, ok)
		}
		if !ok {
			continue
		}
		asked++
		if o.Label || s.Satisfies(o.Prompt) {
			t.Errorf("%v satisfies %q and %q", s, q.Prompt.Prompt, o.Prompt.Prompt)
		}
		for i := range 2 {
			if o.Prompt.Include[i].Class != q.Prompt.Include[i].Class {
				t.Errorf("%q has the opposite %q", q.Prompt.Prompt, o.Prompt.Prompt)
			}
		}
	}
	if asked < 200 {
		t.Errorf("%d true questions of 500", asked)
	}
	if _, ok := Opposite(Question{Prompt: templates.Single("star"), Kind: True}); ok {
		t.Error("a question without a relation has an opposite")
	}
}
