package world

import (
	"math/rand/v2"

	"imagecot/geneval"
)

// Caption draws a training caption, "web-like": vaguer than the scene, and sometimes wrong. It looks at one object of a
// scene of one, at all of a scene of one shape, and otherwise at two objects of different shapes:
//
//	one object   a [colour] shape, the colour half the time
//	one shape    .50 with the number, .50 only the plural; a colour word with .3 in both
//	two shapes   .15 position without colours, a fifth of these with a random relation
//	             .20 both colours, a fifth of these swapped
//	             .15 one of the two, its colour half the time
//	             .50 both, in either order
func Caption(rng *rand.Rand, s Scene) string {
	a := s.Objects[rng.IntN(len(s.Objects))]
	if len(s.Objects) == 1 {
		return single(rng, a)
	}
	var others []Object
	for _, o := range s.Objects {
		if o.Shape != a.Shape {
			others = append(others, o)
		}
	}
	if len(others) == 0 {
		return several(rng, a, len(s.Objects))
	}
	b := others[rng.IntN(len(others))]
	switch u := rng.Float64(); {
	case u < .15:
		relations := trueRelations(a, b)
		if rng.Float64() < .2 {
			relations = geneval.Relations()
		}
		return templates.Position(a.Shape.String(), relations[rng.IntN(len(relations))], b.Shape.String()).Prompt
	case u < .35:
		ca, cb := a.Colour, b.Colour
		if rng.Float64() < .2 {
			ca, cb = cb, ca
		}
		return templates.Binding(ca.String(), a.Shape.String(), cb.String(), b.Shape.String()).Prompt
	case u < .50:
		return single(rng, a)
	}
	return templates.Two(a.Shape.String(), b.Shape.String()).Prompt
}

// TwoShapes says whether the scene is two objects of different shapes, which Related can tell something about.
func (s Scene) TwoShapes() bool {
	return len(s.Objects) == 2 && s.Objects[0].Shape != s.Objects[1].Shape
}

// Related draws a caption of two objects of different shapes that is always right: how they lie, or, half the time where their
// colours differ, which colour each has. ok is false for other scenes.
func Related(rng *rand.Rand, s Scene) (caption string, ok bool) {
	if !s.TwoShapes() {
		return "", false
	}
	first := rng.IntN(2)
	a, b := s.Objects[first], s.Objects[1-first]
	if a.Colour != b.Colour && rng.IntN(2) == 0 {
		return templates.Binding(a.Colour.String(), a.Shape.String(), b.Colour.String(), b.Shape.String()).Prompt, true
	}
	relations := trueRelations(a, b)
	return templates.Position(a.Shape.String(), relations[rng.IntN(len(relations))], b.Shape.String()).Prompt, true
}

func single(rng *rand.Rand, o Object) string {
	if rng.IntN(2) == 0 {
		return templates.Single(o.Shape.String()).Prompt
	}
	return templates.Colour(o.Colour.String(), o.Shape.String()).Prompt
}

// several captions n objects like o. More than four have no number word.
func several(rng *rand.Rand, o Object, n int) string {
	text := "a photo of "
	if rng.IntN(2) == 0 && n <= 4 {
		text += geneval.Number(n) + " "
	}
	if rng.Float64() < .3 {
		text += o.Colour.String() + " "
	}
	return text + geneval.Plural(o.Shape.String())
}

// trueRelations lists the relations of a to b by GenEval's rule; objects that do not overlap have at least one.
func trueRelations(a, b Object) []string {
	pair := Scene{Objects: []Object{a, b}}.Truth()
	return geneval.Relation(pair[0].Box, pair[1].Box, geneval.DefaultOptions().PositionThreshold)
}
