package everyday

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"imagecot/geneval"
)

func TestObjects(t *testing.T) {
	objects := Objects()
	if len(objects) != 200 {
		t.Errorf("%d objects, want the paper's 200", len(objects))
	}
	var classes, colours []string
	forms := map[string]string{} // name or plural -> object
	names := map[string]int{}    // class -> how many objects
	plain := regexp.MustCompile(`^[a-z]+([ -][a-z]+)*$`)
	// The article follows the first letter: these would need the other one. "and" and relations part the two objects.
	trap := regexp.MustCompile(`^(hour|hono|heir|uni|use|uti|eu|one)| (and|left|right|above|below) `)
	for _, o := range objects {
		for _, form := range slices.Compact([]string{o.Name, o.Plural}) {
			if other, ok := forms[form]; ok {
				t.Errorf("%q is a form of %s and of %s", form, other, o.Name)
			}
			forms[form] = o.Name
			if !plain.MatchString(form) || trap.MatchString(form) {
				t.Errorf("%q: want words in lower case that take their article by the first letter", form)
			}
		}
		names[o.Class]++
		classes = append(classes, o.Class)
		colours = append(colours, o.Colours...)
		if o.Class == "person" && len(o.Colours) > 0 {
			t.Errorf("%s has colours", o.Name)
		}
	}
	for class, n := range names {
		if n > 8 {
			t.Errorf("%d objects of class %s, at most 8: no class should rule the prompts", n, class)
		}
	}
	if order := slices.Compact(classes); !slices.Equal(order, geneval.Classes()) {
		t.Errorf("the objects' classes are %q, want every class of the detector, in its order", order)
	}
	slices.Sort(colours)
	if all := slices.Compact(colours); len(all) != len(geneval.Colours()) {
		t.Errorf("only the colours %q occur", all)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"mug; cup":                                "want name; class; colours",
		"; cup; red":                              "want name; class; colours",
		"mug; cup; red; mugs; more":               "want name; class; colours",
		"mug; mugs; red":                          `unknown class "mugs"`,
		"mug; cup; red grey":                      `"grey"`,
		"mug; cup; red blue red":                  `"red"`,
		"mug; cup; red\n# a line\nmug; bowl; red": "mug stands there twice",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %s", text, err, want)
		}
	}
}

func TestPlurals(t *testing.T) {
	plurals := map[string]string{}
	for _, o := range Objects() {
		plurals[o.Name] = o.Plural
	}
	for name, want := range map[string]string{
		"mug": "mugs", "bench": "benches", "toothbrush": "toothbrushes", "bus": "buses", "wine glass": "wine glasses",
		"pony": "ponies", "dictionary": "dictionaries", "kitchen knife": "kitchen knives", "calf": "calves", "sheep": "sheep", "goose": "geese",
		"child": "children", "woman": "women", "person": "people", "computer mouse": "computer mice", "giraffe": "giraffes",
		"pair of scissors": "pairs of scissors", "slice of pizza": "slices of pizza", "potted cactus": "potted cacti", "taxi": "taxis",
	} {
		if plurals[name] != want {
			t.Errorf("%s: plural %q, want %q", name, plurals[name], want)
		}
	}
	for name, want := range map[string]string{"toy": "toys", "tray": "trays", "box": "boxes", "dish": "dishes"} {
		if got := plural(name); got != want {
			t.Errorf("plural(%s) = %q, want %q", name, got, want)
		}
	}
}
