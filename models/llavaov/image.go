package llavaov

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"

	"imagecot/internal/imgio"
)

// padLevel is the grey around images that are not square in pad mode: int(.5 * 255).
const padLevel = 127

// Geometry is how an image of W x H pixels is cut under anyres. In pad mode Tiles is {0, 0}.
type Geometry struct {
	W, H    int    // the image
	Best    [2]int // the pinpoint, {width, height} in pixels
	Resized [2]int // the image inside the pinpoint
	Paste   [2]int // its place there
	Tiles   [2]int // columns and rows of tiles
}

// AnyRes chooses the pinpoint that keeps most of the image's pixels, then the one that wastes least, then the first.
func AnyRes(w, h, tile int, pinpoints [][2]int) Geometry {
	g := Geometry{W: w, H: h}
	mostArea, leastWaste := -1, 0
	for _, p := range pinpoints {
		s := math.Min(float64(p[0])/float64(w), float64(p[1])/float64(h))
		area := min(int(float64(w)*s)*int(float64(h)*s), w*h)
		waste := p[0]*p[1] - area
		if area > mostArea || area == mostArea && waste < leastWaste {
			mostArea, leastWaste, g.Best = area, waste, p
		}
	}
	sw, sh := float64(g.Best[0])/float64(w), float64(g.Best[1])/float64(h)
	if sw < sh {
		g.Resized = [2]int{g.Best[0], min(int(math.Ceil(float64(h)*sw)), g.Best[1])}
	} else {
		g.Resized = [2]int{min(int(math.Ceil(float64(w)*sh)), g.Best[0]), g.Best[1]}
	}
	g.Paste = [2]int{(g.Best[0] - g.Resized[0]) / 2, (g.Best[1] - g.Resized[1]) / 2}
	g.Tiles = [2]int{g.Best[0] / tile, g.Best[1] / tile}
	return g
}

// Tiles prepares an image: its tiles of c.Vision.ImageSize pixels a side and their geometry. In mode "pad" there is one
// tile, the image centred on a grey square; in mode "anyres_max_N" the whole image squeezed to a tile comes first, then
// the grid row by row. Resizing is Pillow's.
func (c Config) Tiles(img image.Image, aspect string) ([]*image.RGBA, Geometry, error) {
	_, anyres, err := maxTiles(aspect)
	if err != nil {
		return nil, Geometry{}, err
	}
	rgb := imgio.RGB(img)
	w, h, s := rgb.Bounds().Dx(), rgb.Bounds().Dy(), c.Vision.ImageSize
	if w < 1 || h < 1 || w > limit || h > limit {
		return nil, Geometry{}, fmt.Errorf("llavaov: image of %d x %d pixels", w, h)
	}
	if !anyres {
		return []*image.RGBA{imgio.ResizeBicubic(square(rgb), s, s)}, Geometry{W: w, H: h}, nil
	}
	g := AnyRes(w, h, s, c.Pinpoints)
	tiles := []*image.RGBA{imgio.ResizeBicubic(rgb, s, s)}
	if w == h && g.Resized == g.Best && g.Best == [2]int{s, s} {
		return append(tiles, tiles[0]), g, nil // the grid is the whole image again: one picture, two places
	}
	canvas := image.NewRGBA(image.Rect(0, 0, g.Best[0], g.Best[1]))
	draw.Draw(canvas, canvas.Bounds(), image.NewUniform(color.Black), image.Point{}, draw.Src)
	at := image.Pt(g.Paste[0], g.Paste[1])
	resized := imgio.ResizeBicubic(rgb, g.Resized[0], g.Resized[1])
	draw.Draw(canvas, resized.Bounds().Add(at), resized, image.Point{}, draw.Src)
	for y := range g.Tiles[1] {
		for x := range g.Tiles[0] {
			tiles = append(tiles, imgio.Crop(canvas, image.Rect(x*s, y*s, (x+1)*s, (y+1)*s)))
		}
	}
	return tiles, g, nil
}

// square centres an image on a grey square.
func square(img *image.RGBA) *image.RGBA {
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	if w == h {
		return img
	}
	side := max(w, h)
	out := image.NewRGBA(image.Rect(0, 0, side, side))
	draw.Draw(out, out.Bounds(), image.NewUniform(color.RGBA{padLevel, padLevel, padLevel, 255}), image.Point{}, draw.Src)
	draw.Draw(out, img.Bounds().Add(image.Pt((side-w)/2, (side-h)/2)), img, image.Point{}, draw.Src)
	return out
}

// levels holds (v/255 - .5)/.5 of each byte, v/255 taken in float64.
var levels = func() (t [256]float32) {
	for v := range t {
		t[v] = (float32(float64(v)/255) - .5) / .5
	}
	return t
}()

// AppendPixels appends a tile's pixels in [-1, 1], row by row, RGB.
func AppendPixels(dst []float32, tile *image.RGBA) []float32 {
	b := tile.Bounds()
	for y := range b.Dy() {
		row := tile.Pix[y*tile.Stride : y*tile.Stride+4*b.Dx()]
		for x := 0; x < len(row); x += 4 {
			dst = append(dst, levels[row[x]], levels[row[x+1]], levels[row[x+2]])
		}
	}
	return dst
}
