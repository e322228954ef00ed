package imgio

import (
	"bytes"
	"compress/zlib"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func noise(w, h int) *image.RGBA {
	rng := rand.New(rand.NewPCG(uint64(w), uint64(h)))
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = uint8(rng.IntN(256))
		if i%4 == 3 {
			img.Pix[i] = 255
		}
	}
	return img
}

// resizeAxis is the definition in floating point: values of one row to n values, clamped and rounded.
func resizeAxis(v []float64, n int) []float64 {
	if len(v) == n {
		return v
	}
	scale := float64(len(v)) / float64(n)
	f := math.Max(scale, 1)
	out := make([]float64, n)
	for i := range out {
		c, sum, total := (float64(i)+.5)*scale, 0., 0.
		for j := range v {
			centre := float64(j) + .5
			w := bicubic((centre - c) / f)
			sum, total = sum+w*v[j], total+w
		}
		out[i] = math.Min(math.Max(math.Floor(sum/total+.5), 0), 255)
	}
	return out
}

func TestResizeBicubicMatchesDefinition(t *testing.T) {
	for _, c := range []struct {
		w, h, toW, toH int
		columnsFirst   bool
	}{
		{20, 13, 7, 13, false},
		{13, 20, 13, 9, false},
		{9, 11, 23, 17, false},
		{5, 5, 5, 5, false},
		{1, 1, 3, 2, false},
		{16, 16, 40, 5, true},   // 11 pixels less beside 24 more
		{9, 40, 4, 8, true},     // 32 beside 5
		{16, 20, 11, 10, false}, // 10 is not more than twice 5
		{16, 21, 11, 10, true},
	} {
		img := noise(c.w, c.h)
		got := ResizeBicubic(img, c.toW, c.toH)
		for channel := range 3 {
			grid := make([][]float64, c.h)
			for y := range grid {
				grid[y] = make([]float64, c.w)
				for x := range grid[y] {
					grid[y][x] = float64(img.Pix[y*img.Stride+4*x+channel])
				}
			}
			if c.columnsFirst {
				grid = resizeRowsOf(transpose(resizeRowsOf(transpose(grid), c.toH)), c.toW)
			} else {
				grid = transpose(resizeRowsOf(transpose(resizeRowsOf(grid, c.toW)), c.toH))
			}
			for y, row := range grid {
				for x, want := range row {
					if v := float64(got.Pix[y*got.Stride+4*x+channel]); v != want {
						t.Fatalf("%v: channel %d of pixel (%d, %d) is %v, want %v", c, channel, x, y, v, want)
					}
				}
			}
		}
	}
}

func resizeRowsOf(grid [][]float64, n int) [][]float64 {
	out := make([][]float64, len(grid))
	for y, row := range grid {
		out[y] = resizeAxis(row, n)
	}
	return out
}

func transpose(grid [][]float64) [][]float64 {
	out := make([][]float64, len(grid[0]))
	for x := range out {
		for _, row := range grid {
			out[x] = append(out[x], row[x])
		}
	}
	return out
}

func TestRGBDropsAlphaAndOrigin(t *testing.T) {
	img := image.NewNRGBA(image.Rect(3, 4, 5, 6))
	img.SetNRGBA(4, 5, color.NRGBA{200, 100, 50, 10})
	got := RGB(img)
	if got.Bounds() != image.Rect(0, 0, 2, 2) {
		t.Fatalf("bounds are %v", got.Bounds())
	}
	if c := got.RGBAAt(1, 1); c != (color.RGBA{200, 100, 50, 255}) {
		t.Errorf("pixel is %v", c)
	}
}

func TestCropCopies(t *testing.T) {
	img := noise(6, 5)
	got := Crop(img, image.Rect(2, 1, 5, 4))
	if got.Bounds() != image.Rect(0, 0, 3, 3) || got.RGBAAt(0, 0) != img.RGBAAt(2, 1) || got.RGBAAt(2, 2) != img.RGBAAt(4, 3) {
		t.Errorf("wrong part: %v", got.Bounds())
	}
	got.SetRGBA(0, 0, color.RGBA{1, 2, 3, 255})
	if img.RGBAAt(2, 1) == got.RGBAAt(0, 0) {
		t.Error("the crop shares its pixels with the picture")
	}
}

func TestDecodeReadsAndRefuses(t *testing.T) {
	var p, j bytes.Buffer
	img := noise(12, 8)
	if err := png.Encode(&p, img); err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(&j, img, nil); err != nil {
		t.Fatal(err)
	}
	got, err := Decode(bytes.NewReader(p.Bytes()), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(RGB(got).Pix, img.Pix) {
		t.Error("PNG came back differently")
	}
	if _, err := Decode(bytes.NewReader(j.Bytes()), Limits{}); err != nil {
		t.Errorf("JPEG: %v", err)
	}
	for name, c := range map[string]struct {
		data   []byte
		limits Limits
		want   string
	}{
		"too many pixels": {p.Bytes(), Limits{MaxPixels: 95}, "12 x 8 pixels"},
		"too many bytes":  {p.Bytes(), Limits{MaxBytes: int64(p.Len() - 1)}, "larger than"},
		"no picture":      {[]byte("hello"), Limits{}, "header"},
		"cut off":         {p.Bytes()[:p.Len()/2], Limits{}, "png"},
	} {
		if _, err := Decode(bytes.NewReader(c.data), c.limits); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

func TestPNGTextComesBack(t *testing.T) {
	img := noise(5, 4)
	texts := []Text{{"recipe", "name: a\nn: 20\n"}, {"prompt", "a photo of a café"}, {"Überschrift", "星の写真 ✓"}, {"empty", ""}}
	var buf bytes.Buffer
	if err := EncodePNG(&buf, img, texts...); err != nil {
		t.Fatal(err)
	}
	got, err := ReadText(bytes.NewReader(buf.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, texts) {
		t.Errorf("texts are %q, want %q", got, texts)
	}
	if !bytes.Contains(buf.Bytes(), []byte("tEXtprompt\x00")) || !bytes.Contains(buf.Bytes(), []byte("iTXt\xdcberschrift\x00")) {
		t.Error("a Latin-1 text is not tEXt, or another one is not iTXt")
	}
	back, err := Decode(&buf, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(RGB(back).Pix, img.Pix) {
		t.Error("pixels came back differently")
	}
}

func TestEncodePNGRefusesBadTexts(t *testing.T) {
	for _, bad := range []Text{{"", "x"}, {strings.Repeat("k", 80), "x"}, {"a\x00b", "x"}, {" a", "x"}, {"鍵", "x"}, {"a", "x\x00"}, {"a", "\xff"}} {
		if err := EncodePNG(&bytes.Buffer{}, noise(2, 2), bad); err == nil {
			t.Errorf("%q was written", bad)
		}
	}
}

func TestReadTextNoticesDamage(t *testing.T) {
	var buf bytes.Buffer
	if err := EncodePNG(&buf, noise(5, 4), Text{"key", "value"}); err != nil {
		t.Fatal(err)
	}
	whole := buf.Bytes()
	damaged := bytes.Replace(whole, []byte("value"), []byte("valuf"), 1)
	if _, err := ReadText(bytes.NewReader(damaged)); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("changed text: error %v", err)
	}
	for n := range len(whole) {
		if _, err := ReadText(bytes.NewReader(whole[:n])); err == nil {
			t.Fatalf("the first %d of %d bytes were accepted", n, len(whole))
		}
	}
}

func TestReadTextUnpacksCompressedChunks(t *testing.T) {
	packed := string(deflate(t, "text"))
	body := func(name, data string) []byte { return appendChunk([]byte(pngSignature), name, []byte(data)) }
	if _, err := ReadText(bytes.NewReader(appendChunk(body("zTXt", "k\x00\x00"+packed[:len(packed)-1]), "IEND", nil))); err == nil {
		t.Error("a damaged compressed text was accepted")
	}
	for name, head := range map[string]string{"zTXt": "k\x00\x00", "iTXt": "k\x00\x01\x00de\x00Schl\x00"} {
		file := appendChunk(body(name, head+string(deflate(t, "text"))), "IEND", nil)
		got, err := ReadText(bytes.NewReader(file))
		if err != nil || !slices.Equal(got, []Text{{"k", "text"}}) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func deflate(t *testing.T, text string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zlib.NewWriter(&buf)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func FuzzReadText(f *testing.F) {
	var buf bytes.Buffer
	if err := EncodePNG(&buf, noise(3, 3), Text{"key", "value"}, Text{"k", "✓"}); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = ReadText(bytes.NewReader(data)) // must not panic
	})
}
