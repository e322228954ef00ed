package imgio

import (
	"image"
	"math"
)

// precision is the number of fraction bits of resampling weights.
const precision = 22

// ResizeBicubic returns the picture at w x h pixels, bit for bit as Pillow 13 does on 8-bit RGB: bicubic (a = -0.5) with
// antialiasing, first along rows, then along columns, rounded to 8 bits in between; the other way round where the height
// shrinks by more than twice as many pixels as the width. An axis that keeps its size is left alone. Alpha is dropped (see
// RGB). w and h must be positive.
func ResizeBicubic(img image.Image, w, h int) *image.RGBA {
	return ResizeBicubicPart(img, w, h, image.Rect(0, 0, w, h))
}

// ResizeBicubicPart is the given part of the picture at w x h pixels; the rest of it is not computed. part must lie
// inside and not be empty.
func ResizeBicubicPart(img image.Image, w, h int, part image.Rectangle) *image.RGBA {
	src := RGB(img)
	size := src.Bounds().Size()
	rows, columns := windows(size.X, w)[part.Min.X:part.Max.X], windows(size.Y, h)[part.Min.Y:part.Max.Y]
	less := size.Y - h
	columnsFirst := less > 0 && less > 2*(size.X-w)
	if columnsFirst {
		src = resizeColumns(src, columns)
	}
	if size.X != w || len(rows) != w {
		src = resizeRows(src, rows)
	}
	if (size.Y != h || len(columns) != h) && !columnsFirst {
		src = resizeColumns(src, columns)
	}
	return src
}

// window is the part of the source that one result sees, with fixed-point weights.
type window struct {
	first   int
	weights []int64
}

// windows for an axis going from in to out pixels. Result i sits at c = (i + .5) in/out and sees 2f pixels on both
// sides, where f = max(in/out, 1) widens the kernel when shrinking.
func windows(in, out int) []window {
	scale := float64(in) / float64(out)
	f := max(scale, 1)
	all := make([]window, out)
	for i := range all {
		c := (float64(i) + .5) * scale
		lo, hi := max(0, int(c-2*f+.5)), min(in, int(c+2*f+.5))
		weights, sum := make([]float64, hi-lo), 0.
		for j := range weights {
			weights[j] = bicubic((float64(lo+j) - c + .5) * (1 / f))
			sum += weights[j]
		}
		fixed := make([]int64, len(weights))
		for j, v := range weights {
			fixed[j] = int64(v/sum*(1<<precision) + math.Copysign(.5, v/sum))
		}
		all[i] = window{lo, fixed}
	}
	return all
}

// bicubic is Keys' kernel with a = -0.5.
func bicubic(x float64) float64 {
	const a = -.5
	x = math.Abs(x)
	switch {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}

func resizeRows(src *image.RGBA, to []window) *image.RGBA {
	h := src.Bounds().Dy()
	dst := image.NewRGBA(image.Rect(0, 0, len(to), h))
	for y := range h {
		row := src.Pix[y*src.Stride:]
		for x, win := range to {
			blend(dst.Pix[y*dst.Stride+4*x:], row[4*win.first:], 4, win.weights)
		}
	}
	return dst
}

func resizeColumns(src *image.RGBA, to []window) *image.RGBA {
	w := src.Bounds().Dx()
	dst := image.NewRGBA(image.Rect(0, 0, w, len(to)))
	for y, win := range to {
		for x := range w {
			blend(dst.Pix[y*dst.Stride+4*x:], src.Pix[win.first*src.Stride+4*x:], src.Stride, win.weights)
		}
	}
	return dst
}

// blend writes one opaque pixel, the weighted sum of source pixels that lie step bytes apart.
func blend(dst, src []uint8, step int, weights []int64) {
	const half = 1 << (precision - 1)
	r, g, b := int64(half), int64(half), int64(half)
	at := 0
	for _, w := range weights {
		r += w * int64(src[at])
		g += w * int64(src[at+1])
		b += w * int64(src[at+2])
		at += step
	}
	dst[0], dst[1], dst[2], dst[3] = clamp8(r>>precision), clamp8(g>>precision), clamp8(b>>precision), 255
}

func clamp8(v int64) uint8 { return uint8(min(max(v, 0), 255)) }
