package world

import (
	"image"
	"math"
	"math/rand/v2"
)

// A mask is a shape's coverage on the (2r+2)^2 pixels around its centre, in 64ths of a pixel (8 x 8 sub-samples).
type mask struct {
	side  int
	cover []uint8 // 0..64, row by row
	mass  int     // sum of cover
	box   image.Rectangle
}

const full = 64 // coverage of a whole pixel

var (
	masks    = makeMasks()
	blend    = makeBlend()
	unitByte = makeUnitByte()
)

// inside reports whether the point lies in the shape; units of the radius, y downwards.
func inside(s Shape, x, y float64) bool {
	d := math.Hypot(x, y)
	switch s {
	case Circle:
		return d <= 1
	case Square:
		return math.Abs(x) <= .86 && math.Abs(y) <= .86
	case Triangle: // (0,-.95) (1,.85) (-1,.85)
		return y <= .85 && math.Abs(x) <= (y+.95)/1.8
	case Star:
		return insideStar(x, y-.06)
	case Cross:
		return (math.Abs(x) <= .33 && math.Abs(y) <= 1) || (math.Abs(y) <= .33 && math.Abs(x) <= 1)
	case Ring:
		return d >= .55 && d <= 1
	case Diamond:
		return math.Abs(x)/.8+math.Abs(y) <= 1
	default: // Heart: (X^2+Y^2-1)^3 <= X^2 Y^3
		X, Y := 1.2*x, .15-1.2*y
		q := X*X + Y*Y - 1
		return q*q*q <= X*X*Y*Y*Y
	}
}

// insideStar: ten corners, radii 1.05 and .45 in turn, the first one at the top. Every fifth of the star is symmetric,
// so the point is folded into the wedge between one outer and one inner corner and compared with the line through them.
func insideStar(x, y float64) bool {
	const outer, inner = 1.05, .45
	angle := math.Atan2(x, -y) // from the top, clockwise
	angle = math.Abs(math.Remainder(angle, 2*math.Pi/5))
	d := math.Hypot(x, y)
	px, py := d*math.Cos(angle), d*math.Sin(angle) // outer corner at (1.05, 0)
	ix, iy := inner*math.Cos(math.Pi/5), inner*math.Sin(math.Pi/5)
	// Inside is where the cross product of the edge outer -> inner with outer -> point is not below zero.
	return (ix-outer)*py-iy*(px-outer) >= 0
}

func makeMasks() (all [numShapes][numSizes]mask) {
	const sub = 8
	for s := range numShapes {
		for size := range numSizes {
			r := size.Radius()
			m := mask{side: 2*r + 2}
			m.cover = make([]uint8, m.side*m.side)
			for i := range m.cover {
				for j := range sub * sub {
					x := float64(i%m.side) + (float64(j%sub)+.5)/sub - float64(r+1)
					y := float64(i/m.side) + (float64(j/sub)+.5)/sub - float64(r+1)
					if inside(s, x/float64(r), y/float64(r)) {
						m.cover[i]++
					}
				}
				m.mass += int(m.cover[i])
				if m.cover[i] > full/2 {
					at := image.Pt(i%m.side, i/m.side)
					m.box = m.box.Union(image.Rectangle{at, at.Add(image.Pt(1, 1))})
				}
			}
			all[s][size] = m
		}
	}
	return all
}

// makeBlend tabulates background*(1-a) + colour*a for every coverage, rounded to bytes.
func makeBlend() (t [numBackgrounds][numColours][full + 1][3]uint8) {
	for b := range numBackgrounds {
		for c := range numColours {
			for a := range full + 1 {
				for ch, v := range c.RGB() {
					sum := int(b.Value())*(full-a) + int(v)*a
					t[b][c][a][ch] = uint8((sum + full/2) / full)
				}
			}
		}
	}
	return t
}

func makeUnitByte() (t [256]float32) {
	for v := range t {
		t[v] = float32(v)/127.5 - 1
	}
	return t
}

// Render draws the scene, 64 x 64 pixels. Edges are anti-aliased by coverage.
func Render(s Scene) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, Side, Side))
	v := s.Background.Value()
	pix := img.Pix
	pix[0], pix[1], pix[2], pix[3] = v, v, v, 255
	for n := 4; n < len(pix); n *= 2 {
		copy(pix[n:], pix[:n])
	}
	s.paint(func(at int, rgb *[3]uint8) {
		pix[4*at], pix[4*at+1], pix[4*at+2] = rgb[0], rgb[1], rgb[2]
	})
	return img
}

// RenderInto draws the scene into dst, [64, 64, 3] row by row in -1..1 (byte/127.5 - 1): the same picture as Render.
func RenderInto(dst []float32, s Scene) {
	dst = dst[:Side*Side*3]
	dst[0] = unitByte[s.Background.Value()]
	for n := 1; n < len(dst); n *= 2 {
		copy(dst[n:], dst[:n])
	}
	s.paint(func(at int, rgb *[3]uint8) {
		dst[3*at], dst[3*at+1], dst[3*at+2] = unitByte[rgb[0]], unitByte[rgb[1]], unitByte[rgb[2]]
	})
}

// ImageInto writes an image of 64 x 64 pixels into dst as RenderInto does.
func ImageInto(dst []float32, img image.Image) {
	var rgb [Side * Side][3]uint8
	readRGB(&rgb, img)
	for i, p := range rgb {
		dst[3*i], dst[3*i+1], dst[3*i+2] = unitByte[p[0]], unitByte[p[1]], unitByte[p[2]]
	}
}

// paint calls set for every pixel (row*64 + column) that an object or fragment covers.
func (s Scene) paint(set func(at int, rgb *[3]uint8)) {
	for _, o := range s.Objects {
		block := o.Size.Block()
		s.paintCells(o, 0, 0, block, block, o.Col, o.Row, set)
	}
	for _, f := range s.Fragments {
		s.paintCells(f.From, f.FromCol, f.FromRow, f.Wide, f.High, f.Col, f.Row, set)
	}
}

// paintCells draws the cells of an object's block from (fromCol, fromRow) on at cell (col, row) of the image. A block
// has exactly the pixels of the object's mask.
func (s Scene) paintCells(o Object, fromCol, fromRow, wide, high, col, row int, set func(at int, rgb *[3]uint8)) {
	m := &masks[o.Shape][o.Size]
	table := &blend[s.Background][o.Colour]
	for y := range high * Cell {
		line := m.cover[(fromRow*Cell+y)*m.side+fromCol*Cell:]
		at := (row*Cell+y)*Side + col*Cell
		for x, a := range line[:wide*Cell] {
			if a > 0 {
				set(at+x, &table[a])
			}
		}
	}
}

// Blur smooths an image [64, 64, 3] in place with a Gaussian of standard deviation sigma pixels; edges are repeated.
func Blur(pix []float32, sigma float64) {
	if sigma <= 0 {
		return
	}
	radius := int(math.Ceil(3 * sigma))
	kernel := make([]float32, 2*radius+1)
	var sum float64
	for i := range kernel {
		d := float64(i-radius) / sigma
		sum += math.Exp(-d * d / 2)
	}
	for i := range kernel {
		d := float64(i-radius) / sigma
		kernel[i] = float32(math.Exp(-d*d/2) / sum)
	}
	line := make([]float32, Side)
	pass := func(start, stride int) {
		for i := range line {
			line[i] = pix[start+i*stride]
		}
		for i := range line {
			var v float32
			for k, w := range kernel {
				v += w * line[max(0, min(Side-1, i+k-radius))]
			}
			pix[start+i*stride] = v
		}
	}
	for ch := range 3 {
		for i := range Side {
			pass(i*Side*3+ch, 3) // a row
		}
		for i := range Side {
			pass(i*3+ch, Side*3) // a column
		}
	}
}

// AddNoise adds Gaussian noise of the given standard deviation to every value (range -1..1), without clipping.
func AddNoise(pix []float32, std float64, rng *rand.Rand) {
	for i := range pix {
		pix[i] += float32(std * rng.NormFloat64())
	}
}

// ToImage turns values [64, 64, 3] in -1..1 into an image, clipped and rounded.
func ToImage(pix []float32) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, Side, Side))
	for i := range Side * Side {
		for ch := range 3 {
			v := (pix[3*i+ch] + 1) * 127.5
			img.Pix[4*i+ch] = uint8(max(0, min(255, v)) + .5)
		}
		img.Pix[4*i+3] = 255
	}
	return img
}
