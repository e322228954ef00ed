package geneval

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"strconv"
	"strings"
)

// CropOptions say how an object is cut out before its colour is named, with the original's names and defaults
// (DefaultCropOptions).
type CropOptions struct {
	Background *color.RGBA // bgcolor: what the pixels outside the mask become; nil leaves them ("original")
	Whole      bool        // crop=0: the whole picture instead of the box
}

// DefaultCropOptions are the benchmark's: grey outside the mask, cut to the box.
func DefaultCropOptions() CropOptions {
	return CropOptions{Background: &color.RGBA{R: 0x99, G: 0x99, B: 0x99, A: 255}}
}

// colourNames are those of HTML 4 with grey's other spelling and orange, as far as bgcolor knows names.
var colourNames = map[string]string{
	"black": "#000", "silver": "#c0c0c0", "gray": "#808080", "grey": "#808080", "white": "#fff", "maroon": "#800000",
	"red": "#f00", "purple": "#800080", "fuchsia": "#f0f", "magenta": "#f0f", "green": "#008000", "lime": "#0f0",
	"olive": "#808000", "yellow": "#ff0", "navy": "#000080", "blue": "#00f", "teal": "#008080", "aqua": "#0ff",
	"cyan": "#0ff", "orange": "#ffa500", "pink": "#ffc0cb", "brown": "#a52a2a",
}

// ParseBackground reads the option bgcolor: "original", #rgb, #rrggbb or a common name.
func ParseBackground(text string) (*color.RGBA, error) {
	if text == "original" {
		return nil, nil
	}
	spelled := strings.ToLower(text)
	if hex, ok := colourNames[spelled]; ok {
		spelled = hex
	}
	digits, ok := strings.CutPrefix(spelled, "#")
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	v, err := strconv.ParseUint(digits, 16, 24)
	if !ok || len(digits) != 6 || err != nil {
		return nil, fmt.Errorf("geneval: bgcolor %q, want original, #rgb, #rrggbb or a name", text)
	}
	return &color.RGBA{R: uint8(v >> 16), G: uint8(v >> 8), B: uint8(v), A: 255}, nil
}

// Crop cuts one object out of a picture: pixels outside its mask become the background, at the picture's size; then the
// box is cut out, each corner rounded half to even. What of the box lies outside the picture is black.
func Crop(img *image.RGBA, d Detection, o CropOptions) (*image.RGBA, error) {
	b := img.Bounds()
	if d.Mask != nil && o.Background != nil {
		if d.Mask.Bounds().Size() != b.Size() {
			return nil, fmt.Errorf("geneval: crop: mask of %v for a picture of %v", d.Mask.Bounds().Size(), b.Size())
		}
		masked := image.NewRGBA(b)
		draw.Draw(masked, b, image.NewUniform(*o.Background), image.Point{}, draw.Src)
		draw.DrawMask(masked, b, img, b.Min, d.Mask, d.Mask.Bounds().Min, draw.Over)
		img = masked
	}
	if o.Whole {
		return img, nil
	}
	var corner [4]int
	for i, v := range d.Box {
		if !(math.Abs(float64(v)) < maxCorner) {
			return nil, fmt.Errorf("geneval: crop: box %v, want corners below %d", d.Box, maxCorner)
		}
		corner[i] = int(math.RoundToEven(float64(v)))
	}
	if corner[2] <= corner[0] || corner[3] <= corner[1] {
		return nil, fmt.Errorf("geneval: crop: box %v holds no pixel", d.Box)
	}
	out := image.NewRGBA(image.Rect(0, 0, corner[2]-corner[0], corner[3]-corner[1]))
	draw.Draw(out, out.Bounds(), image.Black, image.Point{}, draw.Src)
	draw.Draw(out, b.Sub(b.Min).Sub(image.Pt(corner[0], corner[1])), img, b.Min, draw.Src)
	return out, nil
}

// maxCorner bounds boxes, so that a wild one cannot ask for any amount of memory.
const maxCorner = 1 << 15
