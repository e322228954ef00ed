package world

import (
	"image"
	"image/color"
	"image/draw"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// SheetOptions lays out a contact sheet. Zero values mean 8 columns and twice the size.
type SheetOptions struct {
	Columns int
	Scale   int // every pixel becomes Scale x Scale
}

// Sheet puts images in rows, each with its caption below when there are captions (parallel to images; shorter is
// allowed). Captions are wrapped at the image's width. Images of other sizes than the first one are cut or leave a rim.
func Sheet(images []image.Image, captions []string, o SheetOptions) *image.RGBA {
	if o.Columns <= 0 {
		o.Columns = 8
	}
	if o.Scale <= 0 {
		o.Scale = 2
	}
	const gap, lineHeight, charWidth = 4, 13, 7
	if len(images) == 0 {
		return image.NewRGBA(image.Rect(0, 0, gap, gap))
	}
	wide, high := images[0].Bounds().Dx()*o.Scale, images[0].Bounds().Dy()*o.Scale
	lines := make([][]string, len(images))
	most := 0
	for i := range min(len(images), len(captions)) {
		lines[i] = wrap(captions[i], max(1, wide/charWidth))
		most = max(most, len(lines[i]))
	}
	cellHigh := high + gap
	if most > 0 {
		cellHigh += most*lineHeight + gap
	}
	columns := min(o.Columns, len(images))
	rows := (len(images) + o.Columns - 1) / o.Columns
	sheet := image.NewRGBA(image.Rect(0, 0, columns*(wide+gap)+gap, rows*cellHigh+gap))
	draw.Draw(sheet, sheet.Rect, image.White, image.Point{}, draw.Src)
	pen := font.Drawer{Dst: sheet, Src: image.NewUniform(color.Gray{Y: 30}), Face: basicfont.Face7x13}
	for i, img := range images {
		x, y := gap+i%o.Columns*(wide+gap), gap+i/o.Columns*cellHigh
		enlarge(sheet, image.Rect(x, y, x+wide, y+high), img, o.Scale)
		for l, line := range lines[i] {
			pen.Dot = fixed.P(x, y+high+(l+1)*lineHeight)
			pen.DrawString(line)
		}
	}
	return sheet
}

// enlarge repeats pixels.
func enlarge(dst *image.RGBA, r image.Rectangle, src image.Image, scale int) {
	b := src.Bounds()
	for y := range r.Dy() {
		for x := range r.Dx() {
			at := image.Pt(b.Min.X+x/scale, b.Min.Y+y/scale)
			if at.In(b) {
				dst.Set(r.Min.X+x, r.Min.Y+y, src.At(at.X, at.Y))
			}
		}
	}
}

// wrap breaks text at spaces into lines of at most width characters; longer words stay whole.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
