package mask2former

import (
	"image"
	"math"
)

// The detector's input, as in the published test pipeline.
const (
	shortSide = 800
	longSide  = 1333
	divisor   = 32
)

// Normalisation says how bytes become pixels: (byte - Mean) / Std, by channel.
type Normalisation struct{ Mean, Std [3]float32 }

// Published is the normalisation of ImageNet in bytes.
var Published = Normalisation{Mean: [3]float32{123.675, 116.28, 103.53}, Std: [3]float32{58.395, 57.12, 57.375}}

// FitSize is the size, width and height, that a picture is resized to: as large as possible, keeping its proportions, so
// that no side exceeds long and the shorter one does not exceed short. Halves are rounded up.
func FitSize(w, h, long, short int) (int, int) {
	scale := min(float64(long)/float64(max(w, h)), float64(short)/float64(min(w, h)))
	fit := func(side int) int { return max(int(float64(side)*scale+.5), 1) }
	return fit(w), fit(h)
}

// coefficientBits is the number of fraction bits of OpenCV's 8-bit resizing.
const coefficientBits = 11

// side is what one result sees along an axis: pixel i with weight a and pixel j with weight b.
type side struct {
	i, j int
	a, b int32
}

// sides along an axis that goes from in to out: result k sits at (k + .5) in/out - .5. Places outside the pixels' centres
// take the nearest pixel: with inner, all of it; otherwise both of its halves, which rounds down twice.
func sides(in, out int, inner bool) []side {
	all := make([]side, out)
	scale := float64(in) / float64(out)
	for k := range all {
		at := float32((float64(k)+.5)*scale - .5)
		i := int(math.Floor(float64(at)))
		t := at - float32(i)
		if inner && (i < 0 || i >= in-1) {
			i, t = min(max(i, 0), in-1), 0
		}
		weight := func(v float32) int32 { return int32(math.RoundToEven(float64(v * (1 << coefficientBits)))) }
		all[k] = side{min(max(i, 0), in-1), min(max(i+1, 0), in-1), weight(1 - t), weight(t)}
	}
	return all
}

// ResizeOpenCV returns the picture at w x h pixels as OpenCV's INTER_LINEAR does on bytes: bilinear in fixed point,
// without antialiasing. Alpha is dropped.
func ResizeOpenCV(img *image.RGBA, w, h int) *image.RGBA {
	size := img.Bounds().Size()
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	columns := sides(size.X, w, true)
	for y, r := range sides(size.Y, h, false) {
		upper, lower := img.Pix[r.i*img.Stride:], img.Pix[r.j*img.Stride:]
		for x, c := range columns {
			at := out.Pix[y*out.Stride+4*x:]
			for k := range 3 {
				u := int32(upper[4*c.i+k])*c.a + int32(upper[4*c.j+k])*c.b
				l := int32(lower[4*c.i+k])*c.a + int32(lower[4*c.j+k])*c.b
				at[k] = uint8(((r.a*(u>>4))>>16 + (r.b*(l>>4))>>16 + 2) >> 2)
			}
			at[3] = 255
		}
	}
	return out
}

// Pixels normalises a picture and pads it right and below to multiples of div: [H, W, 3] row by row.
func Pixels(img *image.RGBA, n Normalisation, div int, pad float32) (flat []float32, height, width int) {
	size := img.Bounds().Size()
	height, width = (size.Y+div-1)/div*div, (size.X+div-1)/div*div
	flat = make([]float32, height*width*3)
	for y := range height {
		for x := range width {
			at := flat[(y*width+x)*3:]
			for k := range 3 {
				if y < size.Y && x < size.X {
					at[k] = (float32(img.Pix[img.PixOffset(x, y)+k]) - n.Mean[k]) / n.Std[k]
				} else {
					at[k] = pad
				}
			}
		}
	}
	return flat, height, width
}
