package world

import (
	"context"
	"fmt"
	"image"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"imagecot/geneval"
)

// names lists objects as a sorted text, so that multisets can be compared.
func names(objects []Object, place bool) string {
	var list []string
	for _, o := range objects {
		n := fmt.Sprint(o.Colour, " ", o.Shape)
		if place {
			n = o.String()
		}
		list = append(list, n)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func seen(f Facts) (objects []Object) {
	for _, o := range f.Objects {
		objects = append(objects, o.Object)
	}
	return objects
}

// On clean renders of every kind the detector finds every object with shape, colour, size and place, and nothing else.
func TestDetectorExact(t *testing.T) {
	rng := source(11)
	for _, kind := range Kinds() {
		for range 200 {
			s := Random(rng, kind)
			facts, err := Detector{Small: kind == Crowd}.Look(Render(s))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := names(seen(facts), true), names(s.Objects, true); got != want || facts.Background != s.Background {
				t.Errorf("%v: saw %s on %v, want %s on %v", kind, got, facts.Background, want, s.Background)
			}
			if facts.Fragments != 0 {
				t.Errorf("%v: %d fragments on a clean scene of %s", kind, facts.Fragments, names(s.Objects, true))
			}
		}
	}
}

// Blur of 1 px and noise of 6 grey levels change no shape and no colour.
func TestDetectorBlurred(t *testing.T) {
	rng := source(12)
	pix := make([]float32, Side*Side*3)
	wrong := 0
	const n = 400
	for i := range n {
		s := Random(rng, []Kind{Single, Pair, Count, Clutter}[i%4])
		RenderInto(pix, s)
		Blur(pix, 1)
		AddNoise(pix, 6/127.5, rng)
		facts, err := Detector{}.Look(ToImage(pix))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := names(seen(facts), false), names(s.Objects, false); got != want {
			wrong++
			t.Logf("saw %s, want %s", got, want)
		}
	}
	if wrong > n/200 {
		t.Errorf("%d of %d blurred scenes misread", wrong, n)
	}
}

// verdicts compares the evaluator on pictures with the verdict on the scene's own objects.
func verdicts(t *testing.T, rng *rand.Rand, mix Mix, spoil func([]float32)) (right, n int) {
	t.Helper()
	e := Evaluator()
	pix := make([]float32, Side*Side*3)
	questions := LaterQuestions
	for range 400 {
		s := mix.Draw(rng)
		RenderInto(pix, s)
		if spoil != nil {
			spoil(pix)
		}
		img := ToImage(pix)
		for range 4 {
			q := questions.Draw(rng, s)
			if q.Label != s.Satisfies(q.Prompt) {
				t.Fatalf("label %v of %q does not follow from %s", q.Label, q.Prompt.Prompt, names(s.Objects, true))
			}
			r, err := e.Evaluate(context.Background(), img, q.Prompt)
			if err != nil {
				t.Fatal(err)
			}
			n++
			if r.Correct == q.Label {
				right++
			} else {
				t.Logf("%q on %s with %d fragments: %v %v", q.Prompt.Prompt, names(s.Objects, true), len(s.Fragments), r.Correct, r.Reasons)
			}
		}
	}
	return right, n
}

func TestVerdictAgreement(t *testing.T) {
	rng := source(13)
	tidy, cluttered := JudgeMix, JudgeMix
	tidy.Fragments, cluttered.Fragments = 0, 1
	if right, n := verdicts(t, rng, tidy, nil); right != n {
		t.Errorf("clean: %d of %d verdicts agree", right, n)
	}
	// A fragment of 2 x 2 cells can look like a diamond.
	if right, n := verdicts(t, rng, cluttered, nil); 100*right < 99*n {
		t.Errorf("with fragments: %d of %d verdicts agree", right, n)
	}
	spoil := func(pix []float32) {
		Blur(pix, 1)
		AddNoise(pix, 6/127.5, rng)
	}
	if right, n := verdicts(t, rng, JudgeMix, spoil); 100*right < 99*n {
		t.Errorf("blurred: %d of %d verdicts agree", right, n)
	}
}

// Counting needs scores above .9 that no tie decides: four equal circles get four different ones.
func TestDetectScores(t *testing.T) {
	s := Scene{Objects: []Object{
		{Shape: Circle, Colour: Red, Col: 0, Row: 0},
		{Shape: Circle, Colour: Red, Col: 5, Row: 0},
		{Shape: Circle, Colour: Red, Col: 0, Row: 5},
		{Shape: Star, Colour: Blue, Col: 5, Row: 5},
	}}
	list, err := Detector{}.Detect(context.Background(), Render(s), []string{"circle"})
	if err != nil || len(list) != 3 {
		t.Fatalf("%d circles, %v", len(list), err)
	}
	for i, d := range list {
		if d.Score <= .9 || d.Score >= 1 || (i > 0 && d.Score >= list[i-1].Score) {
			t.Errorf("score %d is %v after %v", i, d.Score, list[max(0, i-1)].Score)
		}
		if d.Class != "circle" || d.Colour != "red" {
			t.Errorf("%s %s", d.Colour, d.Class)
		}
		covered := 0
		for _, a := range d.Mask.Pix {
			if a > 0 {
				covered++
			}
		}
		if area := 380; covered < area-12 || covered > area+12 { // pi 11^2
			t.Errorf("mask of %d pixels", covered)
		}
	}
	box := list[slices.IndexFunc(list, func(d geneval.Detection) bool { return d.Box[0] < 32 && d.Box[1] < 32 })].Box
	if box != [4]float32{1, 1, 23, 23} {
		t.Errorf("box %v, want 1..23", box)
	}
}

// A grey object, a half object and stray cells are fragments, not objects; an unknown size is an error.
func TestDetectorOnBrokenImages(t *testing.T) {
	img := Render(Scene{Background: Light, Objects: []Object{{Shape: Circle, Colour: Purple, Col: 3, Row: 3}}})
	grey := Render(Scene{Background: Light, Objects: []Object{{Shape: Circle, Colour: Purple, Col: 3, Row: 3}}})
	for i := 0; i < len(img.Pix); i += 4 {
		if i/4/Side >= 32 { // lower half gone: half a disc
			copy(img.Pix[i:i+3], []uint8{238, 238, 238})
		}
		if grey.Pix[i] != 238 {
			copy(grey.Pix[i:i+3], []uint8{110, 110, 110})
		}
	}
	for name, m := range map[string]image.Image{"half": img, "grey": grey} {
		facts, err := Detector{}.Look(m)
		if err != nil || len(facts.Objects) != 0 || facts.Fragments != 1 {
			t.Errorf("%s: %d objects %v, %d fragments, %v", name, len(facts.Objects), seen(facts), facts.Fragments, err)
		}
	}
	noise := image.NewRGBA(image.Rect(0, 0, Side, Side))
	rng := source(5)
	for i := range noise.Pix {
		noise.Pix[i] = uint8(rng.IntN(256))
	}
	if facts, err := (Detector{}).Look(noise); err != nil || len(facts.Objects) != 0 {
		t.Errorf("noise: %v, %v", seen(facts), err)
	}
	if _, err := (Detector{}).Look(image.NewRGBA(image.Rect(0, 0, 32, 64))); err == nil || !strings.Contains(err.Error(), "32 x 64") {
		t.Errorf("wrong size: %v", err)
	}
	// A picture whose bounds do not start at 0 is read from its own corner.
	big := image.NewRGBA(image.Rect(0, 0, 100, 100))
	part := big.SubImage(image.Rect(20, 30, 20+Side, 30+Side)).(*image.RGBA)
	src := Render(Scene{Objects: []Object{{Shape: Heart, Colour: Green, Col: 1, Row: 4}}})
	for y := range Side {
		for x := range Side {
			part.Set(20+x, 30+y, src.At(x, y))
		}
	}
	facts, err := Detector{}.Look(part)
	if err != nil || names(seen(facts), true) != "green heart at (1, 4)" {
		t.Errorf("sub-image: %s, %v", names(seen(facts), true), err)
	}
}

func BenchmarkDetect(b *testing.B) {
	rng := source(1)
	s := Random(rng, Clutter)
	s.AddFragments(rng, 3)
	img := Render(s)
	for b.Loop() {
		if _, err := (Detector{}).Look(img); err != nil {
			b.Fatal(err)
		}
	}
}
