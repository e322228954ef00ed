// Package imgio reads, resizes and writes pictures: safe decoding, Pillow's 8-bit bicubic resize (which the published
// models were trained and tested with), and PNG files that carry text.
package imgio

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	_ "image/gif"  // registers the format
	_ "image/jpeg" // registers the format
	_ "image/png"  // registers the format
	"io"
)

// Limits guard Decode against pictures that are too large to unpack.
type Limits struct {
	MaxBytes  int64 // of the file; 0 means 64 MiB
	MaxPixels int   // width times height; 0 means 64 million
}

func (l Limits) orDefault() Limits {
	if l.MaxBytes == 0 {
		l.MaxBytes = 64 << 20
	}
	if l.MaxPixels == 0 {
		l.MaxPixels = 64 << 20
	}
	return l
}

// Decode reads a PNG, JPEG or GIF (its first frame). The size in the header is checked before any pixel is unpacked.
func Decode(r io.Reader, l Limits) (image.Image, error) {
	l = l.orDefault()
	data, err := io.ReadAll(io.LimitReader(r, l.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("imgio: decode: %w", err)
	}
	if int64(len(data)) > l.MaxBytes {
		return nil, fmt.Errorf("imgio: decode: file is larger than %d bytes", l.MaxBytes)
	}
	c, format, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("imgio: decode: header: %w", err)
	}
	if c.Width < 1 || c.Height < 1 || c.Width > l.MaxPixels/c.Height {
		return nil, fmt.Errorf("imgio: decode: %s of %d x %d pixels, want 1 to %d", format, c.Width, c.Height, l.MaxPixels)
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("imgio: decode: %s: %w", format, err)
	}
	return img, nil
}

// RGB returns the picture with its origin at (0, 0) and without transparency: colours are kept as stored, alpha is
// dropped, as Pillow's convert("RGB") does. An opaque *image.RGBA at the origin is returned itself.
func RGB(img image.Image) *image.RGBA {
	b := img.Bounds()
	if m, ok := img.(*image.RGBA); ok && b.Min == (image.Point{}) && m.Opaque() {
		return m
	}
	out := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	if o, ok := img.(interface{ Opaque() bool }); ok && o.Opaque() {
		draw.Draw(out, out.Bounds(), img, b.Min, draw.Src)
		return out
	}
	for y := range b.Dy() {
		for x := range b.Dx() {
			c := color.NRGBAModel.Convert(img.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
			out.SetRGBA(x, y, color.RGBA{R: c.R, G: c.G, B: c.B, A: 255})
		}
	}
	return out
}

// Crop copies the rectangle, which must lie inside the picture, to a new picture with its origin at (0, 0).
func Crop(img *image.RGBA, r image.Rectangle) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, r.Dx(), r.Dy()))
	draw.Draw(out, out.Bounds(), img, r.Min, draw.Src)
	return out
}
