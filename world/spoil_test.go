package world

import (
	"slices"
	"testing"

	"imagecot/geneval"

	"pgregory.net/rapid"
)

// A spoilt scene misses the prompt that its origin satisfies, has a reason, and differs from it in one thing.
func TestSpoil(t *testing.T) {
	for _, task := range geneval.Tasks() {
		seen := map[string]bool{}
		rapid.Check(t, func(t *rapid.T) {
			s := Ordinary.Draw(source(rapid.Uint64().Draw(t, "seed")))
			before := slices.Clone(s.Objects)
			m, bad, ok := Spoil(source(rapid.Uint64().Draw(t, "spoil")), s, task)
			if !slices.Equal(s.Objects, before) {
				t.Fatal("the scene was changed")
			}
			if !ok {
				return
			}
			reason, err := bad.Reason(m)
			if err != nil || reason == "" || m.Tag != task || !s.Satisfies(m) || bad.Satisfies(m) {
				t.Fatalf("%q, spoilt %s, reason %q (%v)", m.Prompt, names(bad.Objects, true), reason, err)
			}
			kind := change(s, bad)
			if kind == "" {
				t.Fatalf("%s became %s", names(s.Objects, true), names(bad.Objects, true))
			}
			seen[kind] = true
		})
		want := map[string][]string{
			geneval.SingleObject: {"shape"}, geneval.TwoObject: {"missing", "shape"}, geneval.Counting: {"missing", "one more"},
			geneval.Colors: {"colour"}, geneval.Position: {"missing", "places"}, geneval.ColorAttr: {"missing", "colour", "colours"},
		}[task]
		for _, kind := range want {
			if !seen[kind] {
				t.Errorf("%s: no %s in %v", task, kind, seen)
			}
			delete(seen, kind)
		}
		if len(seen) > 0 {
			t.Errorf("%s: also %v", task, seen)
		}
	}
}

// change names what alone differs, "" if it is not one thing.
func change(good, bad Scene) string {
	if good.Background != bad.Background || len(bad.Fragments) > 0 {
		return ""
	}
	for i, a := range bad.Objects {
		if slices.ContainsFunc(bad.Objects[:i], a.overlaps) {
			return ""
		}
	}
	var gone, come []Object
	for _, o := range good.Objects {
		if !slices.Contains(bad.Objects, o) {
			gone = append(gone, o)
		}
	}
	for _, o := range bad.Objects {
		if !slices.Contains(good.Objects, o) {
			come = append(come, o)
		}
	}
	switch {
	case len(gone) == 1 && len(come) == 0:
		return "missing"
	case len(gone) == 0 && len(come) == 1:
		return "one more"
	case len(gone) == 1 && len(come) == 1:
		a, b := gone[0], come[0]
		switch {
		case a.Shape != b.Shape && a.Colour == b.Colour && a.Col == b.Col && a.Row == b.Row:
			return "shape"
		case a.Shape == b.Shape && a.Colour != b.Colour && a.Col == b.Col && a.Row == b.Row:
			return "colour"
		}
	case len(gone) == 2 && len(come) == 2:
		if come[0].Shape != gone[0].Shape {
			slices.Reverse(come)
		}
		a, b, c, d := gone[0], gone[1], come[0], come[1]
		switch {
		case a.Shape != c.Shape || b.Shape != d.Shape:
		case a.Colour == d.Colour && b.Colour == c.Colour && a.Col == c.Col && a.Row == c.Row && b.Col == d.Col && b.Row == d.Row:
			return "colours"
		case a.Colour == c.Colour && b.Colour == d.Colour && a.Col == d.Col && a.Row == d.Row && b.Col == c.Col && b.Row == c.Row:
			return "places"
		}
	}
	return ""
}
