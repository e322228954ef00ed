package world

import (
	"fmt"
	"slices"
	"strings"

	"imagecot/geneval"
)

// templates: "a" before every word, also before orange: one word less for the models.
var templates = geneval.Templates{Article: func(string) string { return "a" }}

// Classes are the names of the eight shapes: the detector's object list.
func Classes() []string { return slices.Clone(shapeNames[:]) }

// ColourNames are the names of the six colours.
func ColourNames() []string { return slices.Clone(colourNames[:]) }

// Words are the 33 words that prompts and captions of the tiny world are made of, in a fixed order.
func Words() []string {
	words := []string{"a", "photo", "of", "and", "left", "right", "above", "below", "two", "three", "four"}
	words = append(words, colourNames[:]...)
	words = append(words, shapeNames[:]...)
	for _, s := range shapeNames {
		words = append(words, geneval.Plural(s))
	}
	return words
}

// AllPrompts lists every prompt of a task, in a fixed order: 8 single_object, 56 two_object, 24 counting, 48 colors,
// 224 position, 1,680 color_attr. An unknown task has none.
func AllPrompts(task string) []geneval.Metadata {
	var list []geneval.Metadata
	add := func(m geneval.Metadata) { list = append(list, m) }
	for _, a := range shapeNames {
		switch task {
		case geneval.SingleObject:
			add(templates.Single(a))
		case geneval.Counting:
			for n := 2; n <= 4; n++ {
				add(templates.Counting(a, n))
			}
		case geneval.Colors:
			for _, c := range colourNames {
				add(templates.Colour(c, a))
			}
		}
		for _, b := range shapeNames {
			if a == b {
				continue
			}
			switch task {
			case geneval.TwoObject:
				add(templates.Two(a, b))
			case geneval.Position:
				for _, r := range geneval.Relations() {
					add(templates.Position(a, r, b))
				}
			case geneval.ColorAttr:
				for _, ca := range colourNames {
					for _, cb := range colourNames {
						if ca != cb {
							add(templates.Binding(ca, a, cb, b))
						}
					}
				}
			}
		}
	}
	return list
}

// phrase is "a red circle" or "three squares" in a prompt.
type phrase struct {
	class, colour string
	count         int
}

// ParsePrompt reads a prompt of the tiny world and says what an image has to show. Beside the six templates it reads
// colours in every place ("a photo of a red circle left of a blue square"). An unknown word is an error that lists the
// words there are, a known one in the wrong place an error that names the form. Prompt is the text as the models learnt
// it: lower case, with "a photo of", without "an" and without a full stop.
func ParsePrompt(text string) (geneval.Metadata, error) {
	words := strings.Fields(strings.TrimRight(strings.ToLower(text), " .!"))
	if len(words) == 0 {
		return geneval.Metadata{}, fmt.Errorf("world: the prompt is empty; try %q", templates.Colour("red", "circle").Prompt)
	}
	var unknown []string
	for i, w := range words {
		if w == "an" {
			words[i] = "a"
			continue
		}
		if !slices.Contains(Words(), w) {
			unknown = append(unknown, fmt.Sprintf("%q", w))
		}
	}
	if len(unknown) > 0 {
		return geneval.Metadata{}, fmt.Errorf("world: the tiny world does not know %s; it knows: %s",
			strings.Join(unknown, ", "), strings.Join(Words(), " "))
	}
	rest := words
	if len(words) >= 3 && strings.Join(words[:3], " ") == "a photo of" {
		rest = words[3:]
	}
	plain := "a photo of " + strings.Join(rest, " ")
	a, rest, ok := takePhrase(rest)
	if ok && len(rest) == 0 {
		return finish(plain, a, "", phrase{}), nil
	}
	relation := ""
	if ok {
		relation, rest = takeRelation(rest)
	}
	if relation != "" {
		b, after, ok := takePhrase(rest)
		if ok && len(after) == 0 && a.class == b.class {
			return geneval.Metadata{}, fmt.Errorf("world: %q names the %s twice; the two shapes must differ", text, a.class)
		}
		if ok && len(after) == 0 && a.count == 1 && b.count == 1 {
			return finish(plain, a, relation, b), nil
		}
	}
	return geneval.Metadata{}, fmt.Errorf("world: cannot read %q; prompts are \"a photo of a [colour] shape\", "+
		"\"... two|three|four [colour] shapes\", \"... a [colour] shape and|left of|right of|above|below a [colour] shape\"", text)
}

// takePhrase reads an article or number, an optional colour and a shape.
func takePhrase(words []string) (phrase, []string, bool) {
	if len(words) < 2 {
		return phrase{}, nil, false
	}
	p := phrase{count: 1}
	plural := false
	switch words[0] {
	case "a":
	case "two", "three", "four":
		plural = true
		for geneval.Number(p.count) != words[0] {
			p.count++
		}
	default:
		return phrase{}, nil, false
	}
	words = words[1:]
	if slices.Contains(colourNames[:], words[0]) {
		p.colour, words = words[0], words[1:]
	}
	if len(words) == 0 {
		return phrase{}, nil, false
	}
	for _, s := range shapeNames {
		if (plural && words[0] == geneval.Plural(s)) || (!plural && words[0] == s) {
			p.class = s
		}
	}
	return p, words[1:], p.class != ""
}

// takeRelation reads "and" or one of the four relations; "" if there is none.
func takeRelation(words []string) (string, []string) {
	for _, r := range append(geneval.Relations(), "and") {
		parts := strings.Fields(r)
		if len(words) >= len(parts) && slices.Equal(words[:len(parts)], parts) {
			return r, words[len(parts):]
		}
	}
	return "", nil
}

// finish makes the metadata: that of the template where the prompt has the form of one.
func finish(text string, a phrase, relation string, b phrase) geneval.Metadata {
	var m geneval.Metadata
	switch {
	case relation == "and":
		m = templates.Two(a.class, b.class)
		if a.colour != "" || b.colour != "" {
			m = templates.Binding(a.colour, a.class, b.colour, b.class)
		}
	case relation != "":
		m = templates.Position(a.class, relation, b.class)
		m.Include[0].Color, m.Include[1].Color = b.colour, a.colour
	case a.count > 1:
		m = templates.Counting(a.class, a.count)
		m.Include[0].Color = a.colour
	case a.colour != "":
		m = templates.Colour(a.colour, a.class)
	default:
		m = templates.Single(a.class)
	}
	m.Prompt = text
	return m
}
