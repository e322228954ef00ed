package geneval

import (
	"slices"
	"strings"
)

// Templates builds the prompts of the six tasks together with their metadata. The rules of grammar are the
// benchmark's, mistakes included ("benchs", "a skis"): prompts must equal the test set's.
type Templates struct {
	// Article is put before a class or, where there is one, before its colour. nil means English.
	Article func(word string) string
}

// English is the benchmark's article: "an" before a, e, i, o, u (lower case), else "a".
func English(word string) string {
	if word != "" && strings.ContainsRune("aeiou", rune(word[0])) {
		return "an"
	}
	return "a"
}

// Plural is the benchmark's plural: "es" after s, else "s".
func Plural(class string) string {
	if strings.HasSuffix(class, "s") {
		return class + "es"
	}
	return class + "s"
}

// Number is the word for 0 to 10, as counting prompts spell it ("two", "three", "four").
func Number(n int) string {
	words := []string{"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"}
	return words[n]
}

func (t Templates) with(words ...string) string {
	article := t.Article
	if article == nil {
		article = English
	}
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	return article(words[0]) + " " + strings.Join(words, " ")
}

// Single asks for one object.
func (t Templates) Single(class string) Metadata {
	return Metadata{
		Tag: SingleObject, Include: []Clause{{Class: class, Count: 1}},
		Prompt: "a photo of " + t.with(class),
	}
}

// Two asks for two objects of different classes.
func (t Templates) Two(a, b string) Metadata {
	return Metadata{
		Tag: TwoObject, Include: []Clause{{Class: a, Count: 1}, {Class: b, Count: 1}},
		Prompt: "a photo of " + t.with(a) + " and " + t.with(b),
	}
}

// Counting asks for exactly n objects of a class, n in 0..10.
func (t Templates) Counting(class string, n int) Metadata {
	return Metadata{
		Tag: Counting, Include: []Clause{{Class: class, Count: n}}, Exclude: []Clause{{Class: class, Count: n + 1}},
		Prompt: "a photo of " + Number(n) + " " + Plural(class),
	}
}

// Colour asks for an object of a colour.
func (t Templates) Colour(colour, class string) Metadata {
	return Metadata{
		Tag: Colors, Include: []Clause{{Class: class, Count: 1, Color: colour}},
		Prompt: "a photo of " + t.with(colour, class),
	}
}

// Position asks for a in the relation to b. The metadata lists b, the target, first.
func (t Templates) Position(a, relation, b string) Metadata {
	return Metadata{
		Tag:     Position,
		Include: []Clause{{Class: b, Count: 1}, {Class: a, Count: 1, Relation: relation}},
		Prompt:  "a photo of " + t.with(a) + " " + relation + " " + t.with(b),
	}
}

// Binding asks for two objects, each of its own colour (the task color_attr).
func (t Templates) Binding(colourA, a, colourB, b string) Metadata {
	return Metadata{
		Tag:     ColorAttr,
		Include: []Clause{{Class: a, Count: 1, Color: colourA}, {Class: b, Count: 1, Color: colourB}},
		Prompt:  "a photo of " + t.with(colourA, a) + " and " + t.with(colourB, b),
	}
}
