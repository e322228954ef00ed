package world

import (
	"math/rand/v2"
	"slices"

	"imagecot/geneval"
)

// QuestionKind says how a question for judge training was made.
type QuestionKind uint8

// The kinds of questions.
const (
	True QuestionKind = iota // a prompt that the scene satisfies
	Hard                     // such a prompt with one attribute changed
	Easy                     // a true prompt of another scene
)

func (k QuestionKind) String() string { return [...]string{"true", "hard", "easy"}[k] }

// Question asks a judge whether an image of the scene follows the prompt. Label is the verdict on the scene's true
// objects.
type Question struct {
	Prompt geneval.Metadata
	Label  bool
	Kind   QuestionKind
}

// QuestionMix says how often each kind (weights) and each task (weights in the order of geneval.Tasks) is asked. Tasks
// that a scene offers no question of are left out.
type QuestionMix struct {
	True, Hard, Easy float64
	Tasks            [6]float64
}

// The mixes of the zero-shot judge's stages.
var (
	FirstQuestions = QuestionMix{True: .45, Hard: .25, Easy: .30, Tasks: [6]float64{1, 1, 1, 1, 1, 1}}
	LaterQuestions = QuestionMix{True: .45, Hard: .38, Easy: .17, Tasks: [6]float64{1, 1, 1, 1, 3, 2.5}}
	// PositionQuestions are asked about Pairs alone: a judge that is asked about everything at once learns that both
	// objects must be there and never where.
	PositionQuestions = QuestionMix{True: .48, Hard: .45, Easy: .07, Tasks: [6]float64{0, 0, 0, 0, 1, 0}}
)

// Draw draws a question about the scene. Every question has one answer: a colour is only asked of shapes whose objects
// all have one colour, a position only of shapes that occur at most once.
func (m QuestionMix) Draw(rng *rand.Rand, s Scene) Question {
	kind := QuestionKind(pick(rng, []float64{m.True, m.Hard, m.Easy}))
	draw := [...]func(*rand.Rand, Scene, string) (geneval.Metadata, bool){True: TruePrompt, Hard: HardNegative, Easy: EasyNegative}[kind]
	for range 100 {
		task := geneval.Tasks()[pick(rng, m.Tasks[:])]
		if prompt, ok := draw(rng, s, task); ok {
			return Question{Prompt: prompt, Label: kind == True, Kind: kind}
		}
	}
	prompt, _ := TruePrompt(rng, s, geneval.SingleObject)
	return Question{Prompt: prompt, Label: true, Kind: True}
}

// census counts a scene's shapes.
type census struct {
	count  [numShapes]int
	colour [numShapes]Colour // of the last object
	mixed  [numShapes]bool   // objects of more than one colour
	object [numShapes]Object // the last one
}

func newCensus(s Scene) (c census) {
	for _, o := range s.Objects {
		c.mixed[o.Shape] = c.mixed[o.Shape] || (c.count[o.Shape] > 0 && c.colour[o.Shape] != o.Colour)
		c.count[o.Shape]++
		c.colour[o.Shape], c.object[o.Shape] = o.Colour, o
	}
	return c
}

// draw draws one of the shapes that ok accepts, evenly.
func (c *census) draw(rng *rand.Rand, ok func(Shape) bool) (Shape, bool) {
	var list [numShapes]Shape
	n := 0
	for s := range numShapes {
		if ok(s) {
			list[n] = s
			n++
		}
	}
	if n == 0 {
		return 0, false
	}
	return list[rng.IntN(n)], true
}

func (c *census) present(s Shape) bool { return c.count[s] > 0 }
func (c *census) absent(s Shape) bool  { return c.count[s] == 0 }
func (c *census) once(s Shape) bool    { return c.count[s] == 1 }
func (c *census) clear(s Shape) bool   { return c.count[s] > 0 && !c.mixed[s] }

// pair draws two different shapes that ok accepts, the second one also different by the given test.
func (c *census) pair(rng *rand.Rand, ok func(Shape) bool, differ func(a, b Shape) bool) (a, b Shape, found bool) {
	var pairs [][2]Shape
	for a := range numShapes {
		for b := range numShapes {
			if a != b && ok(a) && ok(b) && differ(a, b) {
				pairs = append(pairs, [2]Shape{a, b})
			}
		}
	}
	if len(pairs) == 0 {
		return 0, 0, false
	}
	p := pairs[rng.IntN(len(pairs))]
	return p[0], p[1], true
}

func always(Shape, Shape) bool { return true }

// TruePrompt draws a prompt of the task that the scene satisfies; false if there is none.
func TruePrompt(rng *rand.Rand, s Scene, task string) (geneval.Metadata, bool) {
	c := newCensus(s)
	switch task {
	case geneval.SingleObject:
		if a, ok := c.draw(rng, c.present); ok {
			return templates.Single(a.String()), true
		}
	case geneval.TwoObject:
		if a, b, ok := c.pair(rng, c.present, always); ok {
			return templates.Two(a.String(), b.String()), true
		}
	case geneval.Counting:
		if a, ok := c.draw(rng, func(s Shape) bool { return c.count[s] >= 2 && c.count[s] <= 4 }); ok {
			return templates.Counting(a.String(), c.count[a]), true
		}
	case geneval.Colors:
		if a, ok := c.draw(rng, c.clear); ok {
			return templates.Colour(c.colour[a].String(), a.String()), true
		}
	case geneval.Position:
		if a, b, ok := c.pair(rng, c.once, always); ok {
			relations := trueRelations(c.object[a], c.object[b])
			return templates.Position(a.String(), relations[rng.IntN(len(relations))], b.String()), true
		}
	case geneval.ColorAttr:
		if a, b, ok := c.pair(rng, c.clear, func(a, b Shape) bool { return c.colour[a] != c.colour[b] }); ok {
			return templates.Binding(c.colour[a].String(), a.String(), c.colour[b].String(), b.String()), true
		}
	}
	return geneval.Metadata{}, false
}

// HardNegative draws a prompt of the task that the scene misses by one attribute; false if there is none.
//
//	single, two  one shape that is not there
//	counting     .75 another number, .25 another shape
//	colors       .75 another colour, .25 another shape
//	position     .65 the opposite relation, .15 another one, .20 one shape changed
//	color_attr   .50 colours swapped, .25 one colour, .25 one shape changed
func HardNegative(rng *rand.Rand, s Scene, task string) (geneval.Metadata, bool) {
	c := newCensus(s)
	for range 20 {
		m, ok := hard(rng, s, &c, task)
		if !ok {
			return m, false
		}
		if !s.Satisfies(m) { // a random change can hit another truth
			return m, true
		}
	}
	return geneval.Metadata{}, false
}

func hard(rng *rand.Rand, s Scene, c *census, task string) (geneval.Metadata, bool) {
	missing, ok := c.draw(rng, c.absent)
	if !ok {
		return geneval.Metadata{}, false
	}
	changed := missing.String()
	base, based := TruePrompt(rng, s, task)
	switch task {
	case geneval.SingleObject:
		return templates.Single(changed), true
	case geneval.TwoObject:
		there, ok := c.draw(rng, c.present)
		if rng.IntN(2) == 0 {
			return templates.Two(there.String(), changed), ok
		}
		return templates.Two(changed, there.String()), ok
	case geneval.Counting:
		there, ok := c.draw(rng, c.present)
		n := 2 + rng.IntN(3)
		if rng.IntN(4) == 0 {
			if c.count[there] >= 2 && c.count[there] <= 4 {
				n = c.count[there]
			}
			return templates.Counting(changed, n), ok
		}
		return templates.Counting(there.String(), n), ok
	case geneval.Colors:
		if !based {
			return base, false
		}
		one := base.Include[0]
		if rng.IntN(4) == 0 {
			return templates.Colour(one.Color, changed), true
		}
		return templates.Colour(drawOther(rng, colourNames[:], one.Color), one.Class), true
	case geneval.Position:
		return changePosition(rng, base, changed), based
	case geneval.ColorAttr:
		return changeBinding(rng, base, changed), based
	}
	return geneval.Metadata{}, false
}

// drawOther draws a name that is none of the given ones.
func drawOther(rng *rand.Rand, names []string, not ...string) string {
	for {
		if name := names[rng.IntN(len(names))]; !slices.Contains(not, name) {
			return name
		}
	}
}

// opposites of the relations.
var opposites = map[string]string{
	geneval.LeftOf: geneval.RightOf, geneval.RightOf: geneval.LeftOf, geneval.Above: geneval.Below, geneval.Below: geneval.Above,
}

// Opposite is the question of position with the opposite relation, to which the answer is no; false where q is another
// question, or one whose own answer is no.
func Opposite(q Question) (Question, bool) {
	if q.Kind != True || q.Prompt.Tag != geneval.Position {
		return Question{}, false
	}
	b, a := q.Prompt.Include[0], q.Prompt.Include[1]
	return Question{Prompt: templates.Position(a.Class, opposites[a.Relation], b.Class), Kind: Hard}, true
}

func changePosition(rng *rand.Rand, base geneval.Metadata, changed string) geneval.Metadata {
	if len(base.Include) != 2 {
		return base
	}
	b, a := base.Include[0].Class, base.Include[1].Class
	relation := base.Include[1].Relation
	switch u := rng.Float64(); {
	case u < .65:
		relation = opposites[relation]
	case u < .80:
		relation = drawOther(rng, geneval.Relations(), relation, opposites[relation])
	case u < .90:
		a = changed
	default:
		b = changed
	}
	return templates.Position(a, relation, b)
}

func changeBinding(rng *rand.Rand, base geneval.Metadata, changed string) geneval.Metadata {
	if len(base.Include) != 2 {
		return base
	}
	a, b := base.Include[0], base.Include[1]
	u := rng.Float64()
	if rng.IntN(2) == 0 { // which of the two is changed
		a, b = b, a
	}
	switch {
	case u < .50:
		a.Color, b.Color = b.Color, a.Color
	case u < .75:
		a.Color = drawOther(rng, colourNames[:], a.Color, b.Color)
	default:
		a.Class = changed
	}
	if rng.IntN(2) == 0 {
		a, b = b, a
	}
	return templates.Binding(a.Color, a.Class, b.Color, b.Class)
}

// EasyNegative draws a true prompt of another, ordinary scene that this one does not satisfy; false if 20 tries find
// none.
func EasyNegative(rng *rand.Rand, s Scene, task string) (geneval.Metadata, bool) {
	c := newCensus(s)
	for range 20 {
		other := Random(rng, Kind(pick(rng, Ordinary.Weights[:])))
		m, ok := TruePrompt(rng, other, task)
		if ok && !c.ambiguous(m) && !s.Satisfies(m) {
			return m, true
		}
	}
	return geneval.Metadata{}, false
}

// ambiguous reports whether the answer would depend on which of several objects is looked at: a colour of a shape with
// objects of several colours, or a position of a shape that occurs more than once.
func (c *census) ambiguous(m geneval.Metadata) bool {
	for _, clause := range m.Include {
		s := Shape(slices.Index(shapeNames[:], clause.Class))
		if s < numShapes && (clause.Color != "" && c.mixed[s] || m.Tag == geneval.Position && c.count[s] > 1) {
			return true
		}
	}
	return false
}
