package magvit

import (
	"image"
	"math"

	"imagecot/internal/imgio"
)

// Preprocess brings a picture to size x size pixels as Show-o does: the shorter side becomes size (bicubic, 8 bits,
// the longer side rounded down), then the middle is cut out.
func Preprocess(img image.Image, size int) *image.RGBA {
	d := img.Bounds().Size()
	w, h := size, size
	if d.X < d.Y {
		h = size * d.Y / d.X
	} else {
		w = size * d.X / d.Y
	}
	resized := imgio.ResizeBicubic(img, w, h)
	left, top := halfEven(w-size), halfEven(h-size)
	return imgio.Crop(resized, image.Rect(left, top, left+size, top+size))
}

func halfEven(n int) int { return int(math.RoundToEven(float64(n) / 2)) }

// grey is v/255 brought to [-1, 1] in the steps of the published transform.
var grey = func() (t [256]float32) {
	for v := range t {
		t[v] = (float32(float64(v)/255) - .5) / .5
	}
	return t
}()

// Normalize writes the picture's colours in [-1, 1] to dst [H, W, 3].
func Normalize(dst []float32, img *image.RGBA) {
	d, i := img.Bounds().Size(), 0
	for y := range d.Y {
		row := img.Pix[y*img.Stride : y*img.Stride+4*d.X]
		for x := 0; x < len(row); x += 4 {
			dst[i], dst[i+1], dst[i+2] = grey[row[x]], grey[row[x+1]], grey[row[x+2]]
			i += 3
		}
	}
}

// Truncate makes a picture of x [h, w, 3]: 255 clamp((x+1)/2, 0, 1), rounded towards 0. NaN becomes 0.
func Truncate(x []float32, w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for p := range w * h {
		for c := range 3 {
			v := (x[3*p+c] + 1) / 2
			if !(v > 0) {
				v = 0
			}
			img.Pix[4*p+c] = uint8(min(v, 1) * 255)
		}
		img.Pix[4*p+3] = 255
	}
	return img
}
