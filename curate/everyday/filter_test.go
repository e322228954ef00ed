package everyday

import (
	"testing"

	"imagecot/geneval"
)

func TestPlain(t *testing.T) {
	for prompt, want := range map[string]string{
		"a photo of an apple":                    "apple",
		"A photo of the Apple":                   "apple",
		"a photo of three oranges":               "three oranges",
		"a photo of a kite and an apple":         "apple and kite",
		"a photo of an apple and a kite":         "apple and kite",
		"a photo of a red cup and a blue bench":  "blue bench and red cup",
		"a photo of a dog right of a teddy bear": "teddy bear left of dog",
		"a photo of a dog left of a teddy bear":  "dog left of teddy bear",
		"a photo of a couch below a cup":         "cup above couch",
		"a photo of a cup above a couch":         "cup above couch",
		"a photo of a banana and a sandwich":     "banana and sandwich",
	} {
		if got := plain(prompt); got != want {
			t.Errorf("%q: %q, want %q", prompt, got, want)
		}
	}
}

// GenEval's own prompts: a bench and a sports ball, two clocks, a blue fire hydrant, a dog right of a teddy bear, a purple
// wine glass and a black apple.
func TestInTest(t *testing.T) {
	mug, kite, soccer, bench := Object{Name: "mug", Class: "cup"}, Object{Name: "kite", Class: "kite"}, Object{Name: "soccer ball", Class: "sports ball"}, Object{Name: "park bench", Class: "bench"}
	alarm, hydrant := Object{Name: "alarm clock", Plural: "alarm clocks", Class: "clock"}, Object{Name: "fire hydrant", Class: "fire hydrant"}
	puppy, plush, apple := Object{Name: "puppy", Class: "dog"}, Object{Name: "stuffed bear", Class: "teddy bear"}, Object{Name: "apple", Class: "apple"}
	goblet := Object{Name: "goblet", Class: "wine glass"}
	for _, c := range []struct {
		m    geneval.Metadata
		want bool
	}{
		{two(bench, soccer), true},
		{two(soccer, bench), true},
		{two(soccer, mug), false},
		{counting(alarm, 2), true},
		{counting(alarm, 3), false},
		{coloured("blue", hydrant), true},
		{coloured("red", hydrant), false},
		{position(puppy, geneval.RightOf, plush), true},
		{position(plush, geneval.LeftOf, puppy), true},
		{position(puppy, geneval.LeftOf, plush), false},
		{binding("black", apple, "purple", goblet), true},
		{binding("purple", apple, "black", goblet), false},
		// other classes, and so another scene, but the words of a test prompt
		{two(Object{Name: "sports ball", Class: "cup"}, Object{Name: "bench", Class: "kite"}), true},
		{position(Object{Name: "teddy bear", Class: "cup"}, geneval.LeftOf, Object{Name: "dog", Class: "kite"}), true},
		{position(mug, geneval.LeftOf, kite), false},
	} {
		if got := inTest(c.m); got != c.want {
			t.Errorf("%s: in the test is %v", c.m.Dump(), got)
		}
	}
}
