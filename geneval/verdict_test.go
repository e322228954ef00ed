package geneval

import (
	"context"
	"errors"
	"fmt"
	"image"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func box(x, y, side float32) [4]float32 { return [4]float32{x, y, x + side, y + side} }

func at(class string, x, y float32, score float32) Detection {
	return Detection{Class: class, Box: box(x, y, 20), Score: score}
}

// A score equal to the threshold in float32 is dropped, one step above is kept; counting has its own threshold.
func TestKeepThreshold(t *testing.T) {
	limit := float32(.3)
	found := []Detection{at("car", 0, 0, limit), at("car", 0, 0, limit+1e-7), at("dog", 0, 0, .95), at("car", 0, 0, .9)}
	kept := Keep([]string{"dog", "car", "cat"}, found, SingleObject, DefaultOptions())
	if len(kept) != 2 || kept[0].Class != "dog" || !slices.Equal(kept[1].Rows, []int{3, 1}) {
		t.Errorf("kept %+v", kept)
	}
	kept = Keep([]string{"car", "dog"}, found, Counting, DefaultOptions())
	if len(kept) != 1 || kept[0].Class != "dog" {
		t.Errorf("counting kept %+v", kept)
	}
}

func TestKeepTiesLimitOverlap(t *testing.T) {
	var found []Detection
	for i := range 20 {
		found = append(found, at("car", float32(i)*10, 0, .5))
	}
	kept := Keep([]string{"car"}, found, SingleObject, DefaultOptions())[0]
	if len(kept.Rows) != 16 || kept.Rows[0] != 19 || kept.Rows[15] != 4 {
		t.Errorf("equal scores: %v, want the later rows first, 16 at most", kept.Rows)
	}
	o := DefaultOptions()
	o.MaxOverlap = .4
	// Neighbours overlap by 11 of 21 px: 11/31 = .35 remains, equal places go.
	twice := append([]Detection{at("car", 0, 0, .9), at("car", 0, 0, .8)}, at("car", 10, 0, .7))
	if got := Keep([]string{"car"}, twice, SingleObject, o)[0].Rows; !slices.Equal(got, []int{0, 2}) {
		t.Errorf("suppression kept %v", got)
	}
}

func TestRelation(t *testing.T) {
	target := box(100, 100, 20)
	for _, c := range []struct {
		x, y float32
		want string
	}{
		{50, 100, "left of"},
		{150, 100, "right of"},
		{100, 50, "above"},
		{100, 150, "below"},
		{50, 50, "left of and above"},
		{150, 150, "right of and below"},
		{100, 100, ""},
		{104, 100, ""}, // the dead zone is 4 px, and half of the offset must remain
		{108, 100, ""},
		{109, 100, "right of"}, // 8 - 4 = .5 x 8 is not above the half
	} {
		if got := strings.Join(Relation(box(c.x, c.y, 20), target, .1), " and "); got != c.want {
			t.Errorf("(%v, %v): %q, want %q", c.x, c.y, got, c.want)
		}
	}
}

// a is left of b exactly when b is right of a, and likewise above and below.
func TestRelationMirror(t *testing.T) {
	mirror := map[string]string{LeftOf: RightOf, RightOf: LeftOf, Above: Below, Below: Above}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) [4]float32 {
			x, y := rapid.IntRange(0, 60).Draw(t, name+"x"), rapid.IntRange(0, 60).Draw(t, name+"y")
			w, h := rapid.IntRange(1, 60).Draw(t, name+"w"), rapid.IntRange(1, 60).Draw(t, name+"h")
			return [4]float32{float32(x), float32(y), float32(x + w), float32(y + h)}
		}
		a, b := draw("a"), draw("b")
		var turned []string
		for _, r := range Relation(b, a, .1) {
			turned = append(turned, mirror[r])
		}
		if got := Relation(a, b, .1); !slices.Equal(got, turned) {
			t.Fatalf("%v to %v: %v, and mirrored %v", a, b, got, turned)
		}
	})
}

// fakeEyes is detector and colour classifier of the tests.
type fakeEyes struct {
	found []Detection
	asked []string
}

func (f *fakeEyes) Detect(context.Context, image.Image, []string) ([]Detection, error) {
	if f.found == nil {
		return nil, errors.New("blind")
	}
	return f.found, nil
}

func (f *fakeEyes) Classify(_ context.Context, _ image.Image, class string, objects []Detection) ([]string, error) {
	f.asked = append(f.asked, fmt.Sprint(len(objects), " ", class))
	var names []string
	for _, o := range objects {
		names = append(names, o.Colour)
	}
	return names, nil
}

func TestEvaluate(t *testing.T) {
	var b Templates
	red, blue := at("car", 0, 0, .95), at("dog", 60, 0, .94)
	red.Colour, blue.Colour = "red", "blue"
	second := at("car", 0, 60, .92)
	for _, c := range []struct {
		m     Metadata
		found []Detection
		want  string // reasons, "" when correct
		asked string
	}{
		{b.Single("car"), []Detection{red, second}, "", ""},
		{b.Single("cat"), []Detection{red}, "expected cat>=1, found 0", ""},
		{b.Two("car", "cat"), []Detection{red}, "expected cat>=1, found 0", ""},
		{b.Counting("car", 2), []Detection{red, second}, "", ""},
		{b.Counting("car", 1), []Detection{red, second}, "expected car<2, found 2", ""},
		{b.Counting("car", 3), []Detection{red, second}, "expected car>=3, found 2", ""},
		{b.Colour("red", "car"), []Detection{red, blue}, "", "1 car"},
		{b.Colour("green", "dog"), []Detection{red, blue}, "expected green dog>=1, found 0 green; and 1 blue", "1 dog"},
		{b.Binding("blue", "dog", "red", "cat"), []Detection{red, blue}, "expected cat>=1, found 0", "1 dog"},
		{b.Position("car", LeftOf, "dog"), []Detection{red, blue}, "", ""},
		{b.Position("dog", LeftOf, "car"), []Detection{red, blue}, "expected dog left of target, found right of target", ""},
		{b.Position("car", LeftOf, "cat"), []Detection{red}, "expected cat>=1, found 0\nno target for car to be left of", ""},
	} {
		eyes := &fakeEyes{found: c.found}
		e := Evaluator{Detector: eyes, Colours: eyes, Classes: Classes(), Options: DefaultOptions()}
		r, err := e.Evaluate(t.Context(), nil, c.m)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Reasons, "\n"); got != c.want || r.Correct != (c.want == "") || strings.Join(eyes.asked, ", ") != c.asked {
			t.Errorf("%q: %v %q, asked %q; want %q, asked %q", c.m.Prompt, r.Correct, got, eyes.asked, c.want, c.asked)
		}
	}
}

// What a classifier saw is in the result, so that a reason can name it: the detector knows no colours.
func TestEvaluateKeepsColours(t *testing.T) {
	var b Templates
	eyes := &paintedEyes{fakeEyes{found: []Detection{at("dog", 0, 0, .95), at("dog", 60, 0, .9), at("car", 0, 60, .9)}}}
	e := Evaluator{Detector: eyes, Colours: eyes, Classes: Classes(), Options: DefaultOptions()}
	m := b.Binding("red", "dog", "pink", "car")
	r, err := e.Evaluate(t.Context(), nil, m)
	if err != nil {
		t.Fatal(err)
	}
	if reason, err := Reason(m, r); err != nil || reason != "a dog is pink not red" {
		t.Errorf("%q, %v", reason, err)
	}
}

// paintedEyes see pink wherever they are asked.
type paintedEyes struct{ fakeEyes }

func (*paintedEyes) Classify(_ context.Context, _ image.Image, _ string, objects []Detection) ([]string, error) {
	return slices.Repeat([]string{"pink"}, len(objects)), nil
}

func TestEvaluateErrors(t *testing.T) {
	var b Templates
	e := Evaluator{Detector: &fakeEyes{}, Classes: Classes(), Options: DefaultOptions()}
	if _, err := e.Evaluate(t.Context(), nil, b.Single("car")); err == nil || !strings.Contains(err.Error(), "blind") {
		t.Errorf("detector's error: %v", err)
	}
	e.Detector = &fakeEyes{found: []Detection{at("car", 0, 0, .9)}}
	if _, err := e.Evaluate(t.Context(), nil, b.Colour("red", "car")); err == nil || !strings.Contains(err.Error(), "no colour classifier") {
		t.Errorf("no colours: %v", err)
	}
	bad := Metadata{Include: []Clause{{Class: "car", Count: 1, Relation: Above, Target: 7}}}
	if _, err := e.Evaluate(t.Context(), nil, bad); err == nil || !strings.Contains(err.Error(), "clause 7 of 1") {
		t.Errorf("target beyond the clauses: %v", err)
	}
}

func ExampleEvaluator() {
	red := Detection{Class: "car", Box: [4]float32{0, 0, 20, 20}, Score: .95, Colour: "red"}
	eyes := &fakeEyes{found: []Detection{red}}
	e := Evaluator{Detector: eyes, Colours: eyes, Classes: Classes(), Options: DefaultOptions()}
	r, err := e.Evaluate(context.Background(), nil, Templates{}.Colour("blue", "car"))
	fmt.Println(r.Correct, r.Reasons, err)
	// Output: false [expected blue car>=1, found 0 blue; and 1 red] <nil>
}
