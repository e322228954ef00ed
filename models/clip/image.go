package clip

import (
	"image"
	"math"

	"imagecot/internal/imgio"
)

// Mean and deviation of the pixels that CLIP was trained on, by channel, for values in [0, 1].
var (
	pixelMean = [3]float32{0.48145466, 0.4578275, 0.40821073}
	pixelStd  = [3]float32{0.26862954, 0.26130258, 0.27577711}
)

// CentreSquare is the part of a picture that CLIP sees: the shorter side becomes size pixels (bicubic, with antialiasing; the
// longer side is rounded down), then the central size x size pixels are cut out. The ends of long pictures are lost.
func CentreSquare(img image.Image, size int) *image.RGBA {
	b := img.Bounds().Size()
	w, h := size, size
	if b.X < b.Y {
		h = size * b.Y / b.X
	} else {
		w = size * b.X / b.Y
	}
	at := image.Pt(centre(w-size), centre(h-size))
	return imgio.ResizeBicubicPart(img, w, h, image.Rectangle{Min: at, Max: at.Add(image.Pt(size, size))})
}

// centre is half of the pixels that are left over, ties to even.
func centre(rest int) int { return int(math.RoundToEven(float64(rest) / 2)) }

// AppendPixels appends a picture's normalised values, row by row, three channels a pixel.
func AppendPixels(to []float32, img *image.RGBA) []float32 {
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			at := img.PixOffset(x, y)
			for c := range 3 {
				to = append(to, (float32(img.Pix[at+c])/255-pixelMean[c])/pixelStd[c])
			}
		}
	}
	return to
}
