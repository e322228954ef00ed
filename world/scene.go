// Package world is the tiny world, in which the paper's experiments run on two CPU cores: 64 x 64 pixel scenes of flat
// shapes, the six prompt templates of GenEval over them, captions as vague as the web's, and an exact detector. It takes
// the place of the real images, prompts and detectors of the paper's Sec. 2.2; everything is drawn from the *rand.Rand that
// the caller passes in. The package knows no models and no files.
package world

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Size of an image and of a token cell in pixels, and cells along a side.
const (
	Side  = 64
	Cell  = 8
	Cells = Side / Cell
)

// Shape is one of the eight classes.
type Shape uint8

// The shapes, in the order of the class list.
const (
	Circle Shape = iota
	Square
	Triangle
	Star
	Cross
	Ring
	Diamond
	Heart
	numShapes
)

var shapeNames = [numShapes]string{"circle", "square", "triangle", "star", "cross", "ring", "diamond", "heart"}

func (s Shape) String() string { return shapeNames[s] }

// Colour is one of the six colours of objects.
type Colour uint8

// The colours, in the order of GenEval's list.
const (
	Red Colour = iota
	Orange
	Yellow
	Green
	Blue
	Purple
	numColours
)

var (
	colourNames = [numColours]string{"red", "orange", "yellow", "green", "blue", "purple"}
	colourRGB   = [numColours][3]uint8{{220, 35, 45}, {250, 140, 30}, {250, 225, 50}, {40, 165, 70}, {45, 80, 220}, {150, 50, 185}}
)

func (c Colour) String() string { return colourNames[c] }

// RGB is the colour's value in 0..255.
func (c Colour) RGB() [3]uint8 { return colourRGB[c] }

// Background is one of three greys.
type Background uint8

// The backgrounds. Grey occurs in crowd scenes only.
const (
	Light Background = iota
	Dark
	Grey
	numBackgrounds
)

var (
	backgroundNames = [numBackgrounds]string{"light", "dark", "grey"}
	backgroundValue = [numBackgrounds]uint8{238, 45, 150}
)

func (b Background) String() string { return backgroundNames[b] }

// Value is the grey level in 0..255.
func (b Background) Value() uint8 { return backgroundValue[b] }

// Size of an object. Small occurs in crowd scenes only.
type Size uint8

// The sizes: radius 11 px in a block of 3 x 3 cells, radius 7 px in a block of 2 x 2.
const (
	Large Size = iota
	Small
	numSizes
)

func (s Size) String() string { return [numSizes]string{"large", "small"}[s] }

// Radius in pixels.
func (s Size) Radius() int { return [numSizes]int{11, 7}[s] }

// Block is the number of cells along a side of the object's block.
func (s Size) Block() int { return [numSizes]int{3, 2}[s] }

// Object is one object of a scene. Col and Row are the cell of its block's left upper corner, from 0.
type Object struct {
	Shape  Shape  `json:"shape"`
	Colour Colour `json:"colour"`
	Size   Size   `json:"size"`
	Col    int    `json:"col"`
	Row    int    `json:"row"`
}

// Centre of the object in pixels; it lies on the corner of four pixels.
func (o Object) Centre() (x, y int) {
	half := o.Size.Block() * Cell / 2
	return o.Col*Cell + half, o.Row*Cell + half
}

func (o Object) String() string {
	size := ""
	if o.Size == Small {
		size = "small "
	}
	return fmt.Sprintf("%s%s %s at (%d, %d)", size, o.Colour, o.Shape, o.Col, o.Row)
}

// overlaps reports whether two blocks share a cell.
func (o Object) overlaps(p Object) bool {
	a, b := o.Size.Block(), p.Size.Block()
	return o.Col < p.Col+b && p.Col < o.Col+a && o.Row < p.Row+b && p.Row < o.Row+a
}

// Fragment is a piece of an object of another scene, pasted where this scene has none: what a half-decoded or failed
// image looks like. From is the object it was cut from, FromCol and FromRow the first cell of the piece inside From's block,
// Wide and High its size in cells, Col and Row where it was pasted.
type Fragment struct {
	From    Object `json:"from"`
	FromCol int    `json:"from_col"`
	FromRow int    `json:"from_row"`
	Wide    int    `json:"wide"`
	High    int    `json:"high"`
	Col     int    `json:"col"`
	Row     int    `json:"row"`
}

// Scene is what an image shows.
type Scene struct {
	Background Background `json:"background"`
	Objects    []Object   `json:"objects"`
	Fragments  []Fragment `json:"fragments,omitempty"`
}

// Kind of scene.
type Kind uint8

// The kinds of scenes.
const (
	Single  Kind = iota // one object
	Pair                // two objects of different shapes; colours may be equal
	Count               // two, three or four objects of one shape and one colour
	Clutter             // three or four objects of two or three shapes (for judges)
	Crowd               // four to seven objects of both sizes on three backgrounds (for tokenizers)
	numKinds
)

var kindNames = [numKinds]string{"single", "pair", "count", "clutter", "crowd"}

func (k Kind) String() string { return kindNames[k] }

// Kinds lists all kinds.
func Kinds() []Kind { return []Kind{Single, Pair, Count, Clutter, Crowd} }

// ParseKind is the kind of that name.
func ParseKind(name string) (Kind, error) {
	i := slices.Index(kindNames[:], name)
	if i < 0 {
		return 0, fmt.Errorf("world: unknown kind of scene %q, want one of %v", name, kindNames)
	}
	return Kind(i), nil
}

// Mix says how often each kind of scene is drawn (weights, any sum above 0), and the share of scenes, crowds excepted,
// that get fragments.
type Mix struct {
	Weights   [numKinds]float64
	Fragments float64
}

// Weight returns the mix with the weight of one kind set.
func (m Mix) Weight(k Kind, w float64) Mix {
	m.Weights[k] = w
	return m
}

// The mixes of the recipes.
var (
	// Ordinary is what the generator learns from.
	Ordinary = Mix{Weights: [numKinds]float64{Single: .30, Pair: .40, Count: .30}}
	// TokenizerMix is what the tokenizer learns from: four fifths crowds.
	TokenizerMix = Mix{Weights: [numKinds]float64{Single: .06, Pair: .08, Count: .06, Crowd: .80}}
	// Pairs are scenes of two objects.
	Pairs = Mix{Weights: [numKinds]float64{Pair: 1}}
	// JudgeMix is what the zero-shot judge learns from at last: clutter and fragments, but never a generator's image.
	JudgeMix = Mix{Weights: [numKinds]float64{Single: .12, Pair: .36, Count: .16, Clutter: .36}, Fragments: .35}
)

// Draw draws a scene.
func (m Mix) Draw(rng *rand.Rand) Scene {
	kind := Kind(pick(rng, m.Weights[:]))
	s := Random(rng, kind)
	if kind != Crowd && rng.Float64() < m.Fragments {
		s.AddFragments(rng, 1+rng.IntN(3))
	}
	return s
}

// pick draws an index in proportion to its weight.
func pick(rng *rand.Rand, weights []float64) int {
	var sum float64
	for _, w := range weights {
		sum += w
	}
	at := rng.Float64() * sum
	last := 0
	for i, w := range weights {
		if w <= 0 {
			continue
		}
		if at < w {
			return i
		}
		at -= w
		last = i
	}
	return last
}

// Random draws a scene of one kind. Objects are placed one after the other, each evenly among the places that are left;
// if none is left, the scene is drawn again from the start.
func Random(rng *rand.Rand, kind Kind) Scene {
	for {
		s := Scene{Background: Background(rng.IntN(int(Dark) + 1)), Objects: randomObjects(rng, kind)}
		if kind == Crowd {
			s.Background = Background(rng.IntN(int(numBackgrounds)))
		}
		if s.place(rng) {
			return s
		}
	}
}

// randomObjects draws shapes, colours and sizes; the places are still open.
func randomObjects(rng *rand.Rand, kind Kind) []Object {
	shape := func() Shape { return Shape(rng.IntN(int(numShapes))) }
	colour := func() Colour { return Colour(rng.IntN(int(numColours))) }
	switch kind {
	case Pair:
		a := shape()
		return []Object{{Shape: a, Colour: colour()}, {Shape: otherShape(rng, a), Colour: colour()}}
	case Count:
		objects := make([]Object, 2+rng.IntN(3))
		one := Object{Shape: shape(), Colour: colour()}
		for i := range objects {
			objects[i] = one
		}
		return objects
	case Clutter:
		return randomClutter(rng)
	case Crowd:
		objects := make([]Object, 4+rng.IntN(4))
		for i := range objects {
			objects[i] = Object{Shape: shape(), Colour: colour(), Size: Small}
			if rng.IntN(3) == 0 {
				objects[i].Size = Large
			}
		}
		return objects
	}
	return []Object{{Shape: shape(), Colour: colour()}}
}

// randomClutter draws three or four objects (a fifth block of 3 x 3 never fits on 8 x 8 cells) of two (60 %) or three
// shapes: the first two shapes once each, the rest among all of them. Each object has its own colour or, in 40 % of the
// scenes, each shape.
func randomClutter(rng *rand.Rand) []Object {
	perm := rng.Perm(int(numShapes))
	shapes := 2
	if rng.Float64() >= .6 {
		shapes = 3
	}
	objects := make([]Object, []int{3, 3, 4, 4, 4}[rng.IntN(5)])
	byShape := rng.Float64() < .4
	var colours [3]Colour
	for i := range colours {
		colours[i] = Colour(rng.IntN(int(numColours)))
	}
	for i := range objects {
		s := i
		if i >= 2 {
			s = rng.IntN(shapes)
		}
		objects[i] = Object{Shape: Shape(perm[s]), Colour: colours[s]}
		if !byShape {
			objects[i].Colour = Colour(rng.IntN(int(numColours)))
		}
	}
	return objects
}

func otherShape(rng *rand.Rand, not ...Shape) Shape {
	for {
		if s := Shape(rng.IntN(int(numShapes))); !slices.Contains(not, s) {
			return s
		}
	}
}

// place gives every object a place, largest first; false if one finds none.
func (s *Scene) place(rng *rand.Rand) bool {
	slices.SortStableFunc(s.Objects, func(a, b Object) int { return b.Size.Block() - a.Size.Block() })
	for i := range s.Objects {
		if !s.put(rng, i) {
			return false
		}
	}
	return true
}

// put gives object i a place that those before it leave free; false if there is none.
func (s *Scene) put(rng *rand.Rand, i int) bool {
	var free [Cells * Cells][2]int
	o, n := &s.Objects[i], 0
	last := Cells - o.Size.Block()
	for row := range last + 1 {
		for col := range last + 1 {
			o.Col, o.Row = col, row
			if !slices.ContainsFunc(s.Objects[:i], o.overlaps) {
				free[n] = [2]int{col, row}
				n++
			}
		}
	}
	if n == 0 {
		return false
	}
	at := free[rng.IntN(n)]
	o.Col, o.Row = at[0], at[1]
	return true
}

// AddFragments pastes up to n pieces of 1-2 x 1-2 cells, cut from objects of another scene of the same background, on
// cells that hold no object and no other fragment. A piece that finds no place in 20 tries is left out.
func (s *Scene) AddFragments(rng *rand.Rand, n int) {
	var taken [Cells][Cells]bool // [row][column]
	mark := func(col, row, wide, high int) {
		for y := row; y < row+high; y++ {
			for x := col; x < col+wide; x++ {
				taken[y][x] = true
			}
		}
	}
	for _, o := range s.Objects {
		mark(o.Col, o.Row, o.Size.Block(), o.Size.Block())
	}
	other := Random(rng, Kind(pick(rng, Ordinary.Weights[:])))
	for range n {
		for range 20 {
			f := Fragment{From: other.Objects[rng.IntN(len(other.Objects))], Wide: 1 + rng.IntN(2), High: 1 + rng.IntN(2)}
			block := f.From.Size.Block()
			f.FromCol, f.FromRow = rng.IntN(block-f.Wide+1), rng.IntN(block-f.High+1)
			f.Col, f.Row = rng.IntN(Cells-f.Wide+1), rng.IntN(Cells-f.High+1)
			clear := true
			for y := f.Row; y < f.Row+f.High; y++ {
				for x := f.Col; x < f.Col+f.Wide; x++ {
					clear = clear && !taken[y][x]
				}
			}
			if clear {
				mark(f.Col, f.Row, f.Wide, f.High)
				s.Fragments = append(s.Fragments, f)
				break
			}
		}
	}
}

// Patch says what a cell of the image shows, for a judge's dense head: Shape, Colour and Place count from 0 and are -1
// where there is no object. Place is the cell inside the object's block, row by row (0..8 for large objects).
type Patch struct{ Shape, Colour, Place int }

// Patches describes all cells, row by row.
func (s Scene) Patches() [Cells * Cells]Patch {
	var list [Cells * Cells]Patch
	for i := range list {
		list[i] = Patch{-1, -1, -1}
	}
	for _, o := range s.Objects {
		block := o.Size.Block()
		for i := range block * block {
			at := (o.Row+i/block)*Cells + o.Col + i%block
			list[at] = Patch{int(o.Shape), int(o.Colour), i}
		}
	}
	return list
}

// Scenes written as JSON carry names, not numbers.

// MarshalText is the shape's name.
func (s Shape) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalText is the colour's name.
func (c Colour) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText is the size's name.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalText is the background's name.
func (b Background) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
