package geneval

import (
	"image"
	"image/color"
	"testing"
)

func TestParseBackground(t *testing.T) {
	for text, want := range map[string]color.RGBA{
		"#999": {0x99, 0x99, 0x99, 255}, "#01A2f3": {1, 0xa2, 0xf3, 255}, "white": {255, 255, 255, 255}, "Gray": {128, 128, 128, 255},
	} {
		if got, err := ParseBackground(text); err != nil || *got != want {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	if got, err := ParseBackground("original"); got != nil || err != nil {
		t.Errorf("original is %v, %v", got, err)
	}
	for _, bad := range []string{"", "999", "#99", "#99999g", "#+1234", "nocolour"} {
		if _, err := ParseBackground(bad); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}

func TestCropRefusesWhatHoldsNoPixel(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 4, 4))
	for _, box := range [][4]float32{{1, 1, 1, 2}, {2, 1, 1, 2}, {0, 0, 1e9, 1}, {.5, 0, .5, 3}} {
		if _, err := Crop(img, Detection{Box: box}, DefaultCropOptions()); err == nil {
			t.Errorf("box %v is no error", box)
		}
	}
	if _, err := Crop(img, Detection{Box: [4]float32{0, 0, 2, 2}, Mask: image.NewAlpha(image.Rect(0, 0, 3, 4))}, DefaultCropOptions()); err == nil {
		t.Error("a mask of another size is no error")
	}
}
