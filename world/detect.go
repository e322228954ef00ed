package world

import (
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"math/bits"
	"slices"

	"imagecot/geneval"
)

// Detector finds the tiny world's objects by rule. It implements geneval.Detector and geneval.ColourClassifier.
//
//  1. The background is the grey with most pixels nearby; its value is the median of those pixels.
//  2. Each pixel is unmixed against each colour: alpha = <p-bg, c-bg> / |c-bg|^2 in 0..1, residual = |p-bg - alpha(c-bg)|.
//     It belongs to the colour of least residual if alpha > .5 and residual < 70. Blurred edges are mixtures, so they do no
//     harm.
//  3. Connected pixels (4 neighbours) of one colour are components; 20 pixels at least.
//  4. A component's alpha map, one pixel wider than itself, is compared with every shape's mask, at offsets -1..1 around
//     the centre: soft IoU = sum of minima / sum of maxima. The best is its class; it is an object from .62 on. What is
//     not is a fragment.
//
// Scores lie in (.9, 1), rise with the IoU and are all different, for GenEval counts objects above .9.
type Detector struct {
	// Small looks for small objects as well. They occur in crowd scenes only; elsewhere a thing of their size is a
	// fragment, even if its outline happens to resemble a heart.
	Small bool
}

// Limits of the rules.
const (
	backgroundReach = 40  // pixels this near to a grey count for it (Euclid, 0..255)
	maxResidual     = 70  // a pixel farther from every mixture has no colour
	minPixels       = 20  // smaller components are specks
	minIoU          = .62 // an object
	noColour        = numColours
	onBackground    = numColours + 1
)

// Found is one object that the detector saw.
type Found struct {
	Object                 // Col and Row are the nearest place on the lattice
	Box    image.Rectangle // of the pixels that belong to it
	IoU    float64         // with the best mask, .62..1
	pixels []int16         // row*64 + column
}

// Facts is what the detector can tell about an image.
type Facts struct {
	Background Background
	Objects    []Found // by falling IoU
	Fragments  int     // components of 20 pixels or more that are no object, those of no known colour included
}

// Detect finds objects of the given classes in an image of 64 x 64 pixels, best first.
func (d Detector) Detect(_ context.Context, img image.Image, classes []string) ([]geneval.Detection, error) {
	facts, err := d.Look(img)
	if err != nil {
		return nil, err
	}
	var list []geneval.Detection
	score := float32(1)
	for _, f := range facts.Objects {
		// .62..1 -> .901..0.999; equal values are told apart by their order.
		score = min(float32(.901+.098*(f.IoU-minIoU)/(1-minIoU)), score-1e-5)
		if !slices.Contains(classes, f.Shape.String()) {
			continue
		}
		list = append(list, geneval.Detection{
			Class: f.Shape.String(), Box: corners(f.Box), Score: score, Mask: f.mask(), Colour: f.Colour.String(),
		})
	}
	return list, nil
}

// Classify returns the colours that Detect found.
func (Detector) Classify(_ context.Context, _ image.Image, class string, objects []geneval.Detection) ([]string, error) {
	names := make([]string, len(objects))
	for i, o := range objects {
		if o.Colour == "" {
			return nil, fmt.Errorf("world: a %s without a colour is no detection of the tiny world", class)
		}
		names[i] = o.Colour
	}
	return names, nil
}

// Evaluator judges images of the tiny world by GenEval's rules with the benchmark's options.
func Evaluator() geneval.Evaluator {
	return geneval.Evaluator{Detector: Detector{}, Colours: Detector{}, Classes: Classes(), Options: geneval.DefaultOptions()}
}

func corners(r image.Rectangle) [4]float32 {
	return [4]float32{float32(r.Min.X), float32(r.Min.Y), float32(r.Max.X), float32(r.Max.Y)}
}

func (f Found) mask() *image.Alpha {
	m := image.NewAlpha(image.Rect(0, 0, Side, Side))
	for _, at := range f.pixels {
		m.SetAlpha(int(at)%Side, int(at)/Side, color.Alpha{A: 255})
	}
	return m
}

// Look finds all objects and counts the fragments of an image of 64 x 64 pixels; any other size is an error.
func (d Detector) Look(img image.Image) (Facts, error) {
	if b := img.Bounds(); b.Dx() != Side || b.Dy() != Side {
		return Facts{}, fmt.Errorf("world: the image has %d x %d pixels, want %d x %d", b.Dx(), b.Dy(), Side, Side)
	}
	l := look{sizes: Small}
	if d.Small {
		l.sizes = numSizes
	}
	readRGB(&l.rgb, img)
	l.findBackground()
	l.label()
	facts := Facts{Background: l.background}
	var stack [Side * Side]int16
	for start := range l.labels {
		label := l.labels[start]
		if label == onBackground || l.seen[start] {
			continue
		}
		pixels := l.component(int16(start), stack[:0])
		if len(pixels) < minPixels {
			continue
		}
		if label < noColour {
			if f := l.match(label, pixels); f.IoU >= minIoU {
				f.pixels = slices.Clone(pixels)
				facts.Objects = append(facts.Objects, f)
				continue
			}
		}
		facts.Fragments++
	}
	slices.SortStableFunc(facts.Objects, func(a, b Found) int { return cmp.Compare(b.IoU, a.IoU) })
	return facts, nil
}

// look is the work on one image.
type look struct {
	rgb        [Side * Side][3]uint8
	sizes      Size // the sizes below this one are looked for
	background Background
	base       [3]float32             // the background's measured value
	axis       [numColours][3]float32 // colour - base
	square     [numColours]float32    // |axis|^2
	labels     [Side * Side]Colour    // a colour, noColour or onBackground
	seen       [Side * Side]bool
}

// readRGB copies the pixels. Images of the standard kinds are read without a call for every pixel.
func readRGB(dst *[Side * Side][3]uint8, img image.Image) {
	b := img.Bounds()
	pix, stride := []uint8(nil), 0
	switch m := img.(type) {
	case *image.RGBA:
		pix, stride = m.Pix[m.PixOffset(b.Min.X, b.Min.Y):], m.Stride
	case *image.NRGBA:
		pix, stride = m.Pix[m.PixOffset(b.Min.X, b.Min.Y):], m.Stride
	default:
		m2 := image.NewNRGBA(image.Rect(0, 0, Side, Side))
		draw.Draw(m2, m2.Rect, img, b.Min, draw.Src)
		pix, stride = m2.Pix, m2.Stride
	}
	for y := range Side {
		row := pix[y*stride:]
		for x := range Side {
			dst[y*Side+x] = [3]uint8{row[4*x], row[4*x+1], row[4*x+2]}
		}
	}
}

// findBackground sets background, base, axis and square. An image without any grey is taken as light.
func (l *look) findBackground() {
	near := func(p [3]uint8, b Background) bool {
		var sum int
		for _, v := range p {
			d := int(v) - int(b.Value())
			sum += d * d
		}
		return sum < backgroundReach*backgroundReach
	}
	var count [numBackgrounds]int
	for _, p := range l.rgb {
		for b := range numBackgrounds {
			if near(p, b) {
				count[b]++
			}
		}
	}
	for b := range numBackgrounds {
		if count[b] > count[l.background] {
			l.background = b
		}
	}
	var histogram [3][256]int
	for _, p := range l.rgb {
		if near(p, l.background) {
			for ch, v := range p {
				histogram[ch][v]++
			}
		}
	}
	for ch := range 3 {
		l.base[ch] = float32(l.background.Value())
		below := 0
		for v, n := range histogram[ch] {
			if below += n; 2*below > count[l.background] {
				l.base[ch] = float32(v)
				break
			}
		}
	}
	for c := range numColours {
		for ch, v := range c.RGB() {
			l.axis[c][ch] = float32(v) - l.base[ch]
			l.square[c] += l.axis[c][ch] * l.axis[c][ch]
		}
	}
}

// offset is the pixel's difference from the background.
func (l *look) offset(at int) [3]float32 {
	p := l.rgb[at]
	return [3]float32{float32(p[0]) - l.base[0], float32(p[1]) - l.base[1], float32(p[2]) - l.base[2]}
}

// alpha is the share of colour c in a pixel with offset d, clipped to 0..1.
func (l *look) alpha(d [3]float32, c Colour) float32 {
	a := &l.axis[c]
	return max(0, min(1, (d[0]*a[0]+d[1]*a[1]+d[2]*a[2])/l.square[c]))
}

// label gives every pixel its colour.
func (l *look) label() {
	least := slices.Min(l.square[:])
	for at := range l.labels {
		d := l.offset(at)
		length := d[0]*d[0] + d[1]*d[1] + d[2]*d[2]
		l.labels[at] = onBackground
		// alpha > .5 needs an offset of more than half of the axis.
		if length <= least/4 && length < maxResidual*maxResidual {
			continue
		}
		best := float32(math.MaxFloat32)
		var colour Colour
		var share float32
		for c := range numColours {
			alpha := l.alpha(d, c)
			var residual float32
			for ch, v := range d {
				r := v - alpha*l.axis[c][ch]
				residual += r * r
			}
			if residual < best {
				best, colour, share = residual, c, alpha
			}
		}
		switch {
		case best >= maxResidual*maxResidual:
			l.labels[at] = noColour
		case share > .5:
			l.labels[at] = colour
		}
	}
}

// component collects the pixels that are connected with start and have its label. The result lives in list.
func (l *look) component(start int16, list []int16) []int16 {
	label := l.labels[start]
	list = append(list, start)
	l.seen[start] = true
	for i := 0; i < len(list); i++ {
		at := list[i]
		x, y := at%Side, at/Side
		visit := func(next int16) {
			if !l.seen[next] && l.labels[next] == label {
				l.seen[next] = true
				list = append(list, next)
			}
		}
		if x > 0 {
			visit(at - 1)
		}
		if x < Side-1 {
			visit(at + 1)
		}
		if y > 0 {
			visit(at - Side)
		}
		if y < Side-1 {
			visit(at + Side)
		}
	}
	return list
}

// pad is the margin of the alpha map, so that masks that reach over the edge need no special case.
const (
	pad    = 16
	padded = Side + 2*pad
)

// match compares a component with every mask and returns the best one.
func (l *look) match(c Colour, pixels []int16) Found {
	var soft [padded * padded]uint8 // alpha in 64ths
	var box image.Rectangle
	box.Min = image.Pt(Side, Side)
	mass := 0
	for _, at := range pixels {
		x, y := int(at)%Side, int(at)/Side
		box.Min.X, box.Min.Y = min(box.Min.X, x), min(box.Min.Y, y)
		box.Max.X, box.Max.Y = max(box.Max.X, x+1), max(box.Max.Y, y+1)
		for dy := max(0, y-1); dy <= min(Side-1, y+1); dy++ {
			for dx := max(0, x-1); dx <= min(Side-1, x+1); dx++ {
				cell := &soft[(dy+pad)*padded+dx+pad]
				near := dy*Side + dx
				if *cell != 0 || (l.labels[near] != c && l.labels[near] != onBackground) {
					continue
				}
				*cell = uint8(l.alpha(l.offset(near), c)*full + .5)
				mass += int(*cell)
			}
		}
	}
	found := Found{Object: Object{Colour: c}, Box: box}
	best := 0.0
	for s := range numShapes {
		for size := range l.sizes {
			m := &masks[s][size]
			if m.mass > 2*mass || mass > 2*m.mass {
				continue
			}
			// The mask's left upper corner that brings its box's centre to the component's.
			x0 := (box.Min.X + box.Max.X - m.box.Min.X - m.box.Max.X) >> 1
			y0 := (box.Min.Y + box.Max.Y - m.box.Min.Y - m.box.Max.Y) >> 1
			for i := range 9 {
				x, y := x0+i%3-1, y0+i/3-1
				both := overlap(&soft, m, x+pad, y+pad)
				if iou := float64(both) / float64(mass+m.mass-both); iou > best {
					best = iou
					found.Shape, found.Size = s, size
					found.Col, found.Row = nearestCell(x, size), nearestCell(y, size)
				}
			}
		}
	}
	found.IoU = best
	return found
}

// nearestCell is the cell whose corner lies nearest to the pixel, kept inside the image.
func nearestCell(at int, s Size) int {
	return max(0, min(Cells-s.Block(), (at+Cell/2)>>bits.TrailingZeros(Cell)))
}

// overlap sums the minima of alpha map and mask, whose left upper corner lies at (x, y) of the padded map. What lies
// outside the map is nothing.
func overlap(soft *[padded * padded]uint8, m *mask, x, y int) int {
	sum := 0
	for my := max(0, -y); my < min(m.side, padded-y); my++ {
		x0, x1 := max(0, -x), min(m.side, padded-x)
		if x0 >= x1 {
			return 0
		}
		line := m.cover[my*m.side+x0 : my*m.side+x1]
		row := soft[(y+my)*padded+x+x0:]
		row = row[:len(line)]
		for i, a := range line {
			sum += int(min(a, row[i]))
		}
	}
	return sum
}

// Truth lists a scene's objects as a perfect detector would: boxes of the pixels that are more than half covered,
// falling scores above .9, masks left out.
func (s Scene) Truth() []geneval.Detection {
	list := make([]geneval.Detection, len(s.Objects))
	for i, o := range s.Objects {
		box := masks[o.Shape][o.Size].box.Add(image.Pt(o.Col*Cell, o.Row*Cell))
		list[i] = geneval.Detection{
			Class: o.Shape.String(), Box: corners(box), Score: .999 - float32(i)*1e-3, Colour: o.Colour.String(),
		}
	}
	return list
}

// Satisfies reports whether the scene is what the metadata asks for, by GenEval's verdict on its true objects. Fragments
// are no objects.
func (s Scene) Satisfies(m geneval.Metadata) bool {
	r, err := s.verdict(m)
	return err == nil && r.Correct
}

// Reason says why the scene is not what the metadata asks for, "" if it is: [Reason] of its true objects.
func (s Scene) Reason(m geneval.Metadata) (string, error) {
	r, err := s.verdict(m)
	if err != nil {
		return "", err
	}
	return geneval.Reason(m, r)
}

// verdict is GenEval's on the true objects.
func (s Scene) verdict(m geneval.Metadata) (r geneval.Result, err error) {
	o := geneval.DefaultOptions()
	r.Kept = geneval.Keep(Classes(), s.Truth(), m.Tag, o)
	r.Correct, r.Reasons, err = geneval.Verdict(m, r.Kept, func(class string, objects []geneval.Detection) ([]string, error) {
		return Detector{}.Classify(context.Background(), nil, class, objects)
	}, o)
	return r, err
}
