package world

import (
	"math/rand/v2"
	"slices"

	"imagecot/geneval"
)

// Spoil draws a prompt of the task that a scene satisfies, and the scene with one change after which it does not: the image
// that a correction begins with. All that the change leaves alone stays where it is. ok is false if there is no such prompt
// or change.
//
//	single, two  an object has another shape, or, of two, is not there
//	counting     one object too few or one too many
//	colors       another colour
//	position     the two have each other's place, or, in a third of the cases, one is not there
//	color_attr   the two have each other's colour, one has another colour, or one is not there
func Spoil(rng *rand.Rand, s Scene, task string) (m geneval.Metadata, bad Scene, ok bool) {
	if m, ok = TruePrompt(rng, s, task); !ok {
		return m, s, false
	}
	for range 20 {
		bad = Scene{Background: s.Background, Objects: slices.Clone(s.Objects)}
		if bad.spoil(rng, task) && !bad.Satisfies(m) { // a random change can hit what nobody asked for
			return m, bad, true
		}
	}
	return m, s, false
}

// spoil makes one change of the task's kind; false if it has no place.
func (s *Scene) spoil(rng *rand.Rand, task string) bool {
	i := rng.IntN(len(s.Objects))
	drop := func() { s.Objects = slices.Delete(s.Objects, i, i+1) }
	recolour := func() {
		s.Objects[i].Colour = (s.Objects[i].Colour + 1 + Colour(rng.IntN(int(numColours)-1))) % numColours
	}
	reshape := func() { s.Objects[i].Shape = otherShape(rng, s.Objects[i].Shape) }
	u := rng.Float64()
	switch task {
	case geneval.SingleObject:
		reshape()
	case geneval.TwoObject:
		if u < .5 {
			reshape()
		} else {
			drop()
		}
	case geneval.Counting:
		if u < .5 {
			drop()
			return true
		}
		s.Objects = append(s.Objects, s.Objects[i])
		return s.put(rng, len(s.Objects)-1)
	case geneval.Colors:
		recolour()
	default: // of two objects
		a, b := &s.Objects[i], &s.Objects[(i+1)%len(s.Objects)]
		switch {
		case u < 1./3:
			drop()
		case task == geneval.Position:
			a.Col, a.Row, b.Col, b.Row = b.Col, b.Row, a.Col, a.Row
		case u < 2./3:
			a.Colour, b.Colour = b.Colour, a.Colour
		default:
			recolour()
		}
	}
	return true
}
