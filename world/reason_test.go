package world

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"imagecot/geneval"
)

// verdictOn is GenEval's verdict on the scene's true objects.
func verdictOn(t *testing.T, s Scene, m geneval.Metadata) geneval.Result {
	t.Helper()
	o := geneval.DefaultOptions()
	kept := geneval.Keep(Classes(), s.Truth(), m.Tag, o)
	correct, reasons, err := geneval.Verdict(m, kept, func(class string, objects []geneval.Detection) ([]string, error) {
		return Detector{}.Classify(t.Context(), nil, class, objects)
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	return geneval.Result{Correct: correct, Reasons: reasons, Kept: kept}
}

func TestReasonsOfKnownScenes(t *testing.T) {
	at := func(s Shape, c Colour, col, row int) Object { return Object{Shape: s, Colour: c, Col: col, Row: row} }
	pair := []Object{at(Star, Blue, 0, 0), at(Ring, Red, 5, 0)}
	for _, c := range []struct {
		prompt  string
		objects []Object
		want    string
	}{
		{"a photo of a star", pair, ""},
		{"a photo of a circle", pair, "the circle is missing"},
		{"a photo of a circle and a heart", pair, "the circle and the heart are missing"},
		{"a photo of a circle and a star", pair, "the circle is missing"},
		{"a photo of two stars", pair, "there is one star not two"},
		{"a photo of three hearts", pair, "there are no hearts"},
		{"a photo of three stars", []Object{at(Star, Red, 0, 0), at(Star, Red, 5, 0)}, "there are two stars not three"},
		{"a photo of two stars", []Object{at(Star, Red, 0, 0), at(Star, Red, 5, 0), at(Star, Red, 0, 5)}, "there are three stars not two"},
		{"a photo of a red star", pair, "the star is blue not red"},
		{"a photo of a red star", append(pair, at(Star, Green, 0, 5)), "a star is blue not red"},
		{"a photo of two red stars", append(pair, at(Star, Red, 0, 5)), "there are too few red stars"},
		{"a photo of a red star and a blue ring", pair, "the star is blue not red and the ring is red not blue"},
		{"a photo of a red star and a blue heart", pair, "the heart is missing and the star is blue not red"},
		{"a photo of a star right of a ring", pair, "the star is left of the ring not right"},
		{"a photo of a star above a ring", pair, "the star is left of the ring not above"},
		{"a photo of a star above a heart", pair, "the heart is missing"},
		{"a photo of a red star right of a ring", pair, "the star is blue not red"},
	} {
		m, err := ParsePrompt(c.prompt)
		if err != nil {
			t.Fatal(err)
		}
		got, err := geneval.Reason(m, verdictOn(t, Scene{Objects: c.objects}, m))
		if err != nil || got != c.want {
			t.Errorf("%s: %q, want %q (%v)", c.prompt, got, c.want, err)
		}
	}
}

// Reasons name nothing but facts: every clause of every sentence is read back and looked up in the scene.
func TestReasonsAreTrue(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	mix := QuestionMix{Hard: .7, Easy: .3, Tasks: [6]float64{1, 1, 1, 1, 1, 1}}
	kinds := map[string]int{}
	for range 4000 {
		s := JudgeMix.Draw(rng)
		q := mix.Draw(rng, s)
		r := verdictOn(t, s, q.Prompt)
		reason, err := geneval.Reason(q.Prompt, r)
		if err != nil {
			t.Fatal(err)
		}
		if r.Correct != (reason == "") || len(strings.Fields(reason)) > 16 {
			t.Fatalf("%s, correct %v: %q", q.Prompt.Prompt, r.Correct, reason)
		}
		if reason == "" {
			continue
		}
		for _, clause := range clauses(reason) {
			kind, ok := holds(s, clause)
			if !ok {
				t.Fatalf("%s: %q says %q, which is not so: %v", q.Prompt.Prompt, reason, clause, s.Objects)
			}
			kinds[kind]++
		}
	}
	for _, kind := range []string{"missing", "number", "colour", "place"} {
		if kinds[kind] < 100 {
			t.Errorf("%d reasons about %s: the test sees too few (%v)", kinds[kind], kind, kinds)
		}
	}
}

// clauses splits a reason at the "and" between two clauses, not at the one between two missing shapes.
func clauses(reason string) []string {
	parts := strings.Split(reason, " and ")
	if strings.Contains(reason, " are missing") {
		parts = append([]string{parts[0] + " is missing", strings.Replace(parts[1], " are ", " is ", 1)}, parts[2:]...)
	}
	return parts
}

// holds reads one clause and says what it is about and whether the scene bears it out.
func holds(s Scene, clause string) (kind string, ok bool) {
	w := strings.Fields(clause)
	of := func(class string) (list []Object) {
		for _, o := range s.Objects {
			if o.Shape.String() == class || geneval.Plural(o.Shape.String()) == class {
				list = append(list, o)
			}
		}
		return list
	}
	named := func(article, class string) []Object { // "the" is one object, "a" at least two
		if list := of(class); len(list) == 1 == (article == "the") {
			return list
		}
		return nil
	}
	switch {
	case len(w) == 4 && w[3] == "missing":
		return "missing", len(of(w[1])) == 0
	case w[0] == "there":
		n := slices.Index([]string{"no", "one", "two", "three", "four", "five", "six"}, w[2])
		return "number", n >= 0 && len(of(w[3])) == n && (len(w) == 4 && n == 0 || len(w) == 6 && w[5] != w[2])
	case len(w) == 6 && slices.Contains(ColourNames(), w[3]):
		return "colour", w[3] != w[5] && slices.ContainsFunc(named(w[0], w[1]), func(o Object) bool { return o.Colour.String() == w[3] })
	}
	rest := strings.Join(w[3:], " ")
	relation, _ := takeRelation(w[3:])
	w = append(w[:3], strings.Fields(strings.TrimPrefix(rest, relation))...)
	if len(w) != 7 || strings.HasPrefix(relation, w[6]) {
		return "place", false
	}
	for _, a := range named(w[0], w[1]) {
		for _, b := range named(w[3], w[4]) {
			pair := Scene{Objects: []Object{a, b}}.Truth()
			set := geneval.Relation(pair[0].Box, pair[1].Box, geneval.DefaultOptions().PositionThreshold)
			ok = ok || slices.Contains(set, relation) && !slices.ContainsFunc(set, func(r string) bool { return strings.TrimSuffix(r, " of") == w[6] })
		}
	}
	return "place", ok
}

func TestReasonWithoutColours(t *testing.T) {
	m, err := ParsePrompt("a photo of a red star")
	if err != nil {
		t.Fatal(err)
	}
	kept := []geneval.Kept{{Class: "star", Objects: []geneval.Detection{{Class: "star", Score: .95}}}}
	if reason, err := geneval.Reason(m, geneval.Result{Kept: kept}); err == nil {
		t.Errorf("a detection without a colour gave %q", reason)
	}
	if reason, err := geneval.Reason(templates.Single("star"), geneval.Result{Kept: kept}); err == nil {
		t.Errorf("a verdict without a reason gave %q", reason)
	}
}
