package everyday

import (
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/prng"
)

// Count is how many training prompts the paper has.
const Count = 13_000

// Prompts draws n different prompts that are not GenEval's (see Pools), the tasks in turn while their pools last. The same
// seed draws the same prompts. More than there are is an error that says how many there are.
func Prompts(n int, seed uint64) ([]geneval.Metadata, error) {
	return curate.Prompts(n, seed, Pools(), geneval.Official())
}

// Pools are the candidates of each task, in a fixed order. Counting has every object two, three and four times, colors
// every object in each of its colours. The other tasks have every two objects of different classes once, in an order, a
// relation and (different) colours that are drawn from their names. GenEval's test prompts are left out (inTest): by
// scene, so that no prompt of single_object is left, whose test prompts are all 80 classes.
func Pools() map[string][]geneval.Metadata {
	pools := map[string][]geneval.Metadata{}
	add := func(m geneval.Metadata) {
		if !inTest(m) {
			pools[m.Tag] = append(pools[m.Tag], m)
		}
	}
	objects := Objects()
	for i, a := range objects {
		add(single(a))
		for n := 2; n <= 4; n++ {
			add(counting(a, n))
		}
		for _, c := range a.Colours {
			add(coloured(c, a))
		}
		for _, b := range objects[i+1:] {
			if a.Class != b.Class {
				addPairs(add, a, b)
			}
		}
	}
	return pools
}

// addPairs adds the prompts of two objects of different classes: two_object, position, and color_attr if they have two
// different colours.
func addPairs(add func(geneval.Metadata), a, b Object) {
	draw := func(what string, n int) int { return int(prng.Derive(0, what+"\x00"+a.Name+"\x00"+b.Name) % uint64(n)) }
	ordered := func(task string) (Object, Object) {
		if draw(task, 2) == 1 {
			return b, a
		}
		return a, b
	}
	first, second := ordered(geneval.TwoObject)
	add(two(first, second))
	first, second = ordered(geneval.Position)
	add(position(first, geneval.Relations()[draw("relation", 4)], second))
	first, second = ordered(geneval.ColorAttr)
	var colours [][2]string
	for _, c := range first.Colours {
		for _, d := range second.Colours {
			if c != d {
				colours = append(colours, [2]string{c, d})
			}
		}
	}
	if len(colours) > 0 {
		c := colours[draw("colours", len(colours))]
		add(binding(c[0], first, c[1], second))
	}
}

// english makes prompts with GenEval's words around the names. The metadata that it makes have names for classes.
var english geneval.Templates

// labelled puts the classes in place of the names, in the order of the clauses.
func labelled(m geneval.Metadata, objects ...Object) geneval.Metadata {
	for i, o := range objects {
		m.Include[i].Class = o.Class
	}
	return m
}

func single(o Object) geneval.Metadata { return labelled(english.Single(o.Name), o) }
func two(a, b Object) geneval.Metadata { return labelled(english.Two(a.Name, b.Name), a, b) }

// counting has a plural of its own, and the class in its exclude clause too.
func counting(o Object, n int) geneval.Metadata {
	m := english.Counting(o.Class, n)
	m.Prompt = "a photo of " + geneval.Number(n) + " " + o.Plural
	return m
}

func coloured(colour string, o Object) geneval.Metadata {
	return labelled(english.Colour(colour, o.Name), o)
}

// position lists the target, b, first, as the benchmark does.
func position(a Object, relation string, b Object) geneval.Metadata {
	return labelled(english.Position(a.Name, relation, b.Name), b, a)
}

func binding(colourA string, a Object, colourB string, b Object) geneval.Metadata {
	return labelled(english.Binding(colourA, a.Name, colourB, b.Name), a, b)
}
