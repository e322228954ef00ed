package world

import (
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func source(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// Objects lie on the lattice inside the image, never overlap, and are what the kind says.
func TestScenes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := source(rapid.Uint64().Draw(t, "seed"))
		kind := rapid.SampledFrom(Kinds()).Draw(t, "kind")
		s := Random(rng, kind)
		if kind != Crowd {
			s.AddFragments(rng, 3)
		}
		shapes, colours := map[Shape]int{}, map[Colour]int{}
		var cover [Side * Side]int
		for i, o := range s.Objects {
			shapes[o.Shape]++
			colours[o.Colour]++
			if o.Col < 0 || o.Row < 0 || o.Col+o.Size.Block() > Cells || o.Row+o.Size.Block() > Cells {
				t.Fatalf("%v leaves the image", o)
			}
			if kind != Crowd && (o.Size != Large || s.Background == Grey) {
				t.Fatalf("%v scene with %v on %v", kind, o, s.Background)
			}
			for _, p := range s.Objects[:i] {
				if o.overlaps(p) || p.overlaps(o) {
					t.Fatalf("%v overlaps %v", o, p)
				}
			}
		}
		s.paint(func(at int, _ *[3]uint8) { cover[at]++ })
		if slices.Max(cover[:]) > 1 {
			t.Fatal("a pixel is painted twice")
		}
		n := len(s.Objects)
		ok := map[Kind]bool{
			Single:  n == 1,
			Pair:    n == 2 && len(shapes) == 2,
			Count:   n >= 2 && n <= 4 && len(shapes) == 1 && len(colours) == 1,
			Clutter: n >= 3 && n <= 4 && (len(shapes) == 2 || len(shapes) == 3),
			Crowd:   n >= 4 && n <= 7,
		}[kind]
		if !ok {
			t.Fatalf("%v scene with %v", kind, s.Objects)
		}
	})
}

func TestSceneJSON(t *testing.T) {
	got, err := json.Marshal(Scene{Background: Dark, Objects: []Object{{Shape: Heart, Colour: Orange, Col: 2, Row: 1}}})
	want := `{"background":"dark","objects":[{"shape":"heart","colour":"orange","size":"large","col":2,"row":1}]}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}

func TestMixShares(t *testing.T) {
	rng := source(4)
	const n = 20000
	var fragments, five int
	numbers := map[int]int{}
	for range n {
		s := JudgeMix.Draw(rng)
		if len(s.Fragments) > 0 {
			fragments++
		}
		if len(s.Objects) > 4 {
			five++
		}
		numbers[len(s.Objects)]++
	}
	if share := float64(fragments) / n; math.Abs(share-.35) > .02 {
		t.Errorf("%.3f of the scenes have fragments, want .35", share)
	}
	if five > 0 {
		t.Errorf("%d scenes with five objects of 3 x 3 cells on 8 x 8", five)
	}
	if share := float64(numbers[1]) / n; math.Abs(share-.12) > .01 {
		t.Errorf("%.3f of the scenes have one object, want .12", share)
	}
}

func TestSeedGivesScene(t *testing.T) {
	for _, kind := range Kinds() {
		a, b := Random(source(7), kind), Random(source(7), kind)
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%v: same seed, %v and %v", kind, a, b)
		}
	}
}

// The area of a mask is that of its shape: formulas in units of the radius.
func TestMaskAreas(t *testing.T) {
	// A star of ten corners: ten triangles of sides 1.05 and .45 with 36 degrees between them.
	star := 10 * .5 * 1.05 * .45 * math.Sin(math.Pi/5)
	want := [numShapes]float64{
		Circle: math.Pi, Square: 1.72 * 1.72, Triangle: 1.8, Star: star, Cross: 4*.66 - .66*.66,
		Ring: math.Pi * (1 - .55*.55), Diamond: 1.6, Heart: 3.66 / 1.44,
	}
	for s := range numShapes {
		for size := range numSizes {
			m := masks[s][size]
			r := float64(size.Radius())
			if got := float64(m.mass) / full / r / r; math.Abs(got-want[s]) > .025*want[s] {
				t.Errorf("size %d %v: area %.3f, want %.3f", size, s, got, want[s])
			}
		}
	}
}

func TestRenderPixels(t *testing.T) {
	s := Scene{Background: Dark, Objects: []Object{{Shape: Square, Colour: Yellow, Col: 1, Row: 2}}}
	img := Render(s)
	// Centre at (20, 28); the half side is .86 x 11 = 9.46 px, so column 29 is covered to 46 %: 4 of 8 sub-columns.
	for _, c := range []struct{ x, y, r, g, b int }{
		{0, 0, 45, 45, 45},
		{20, 28, 250, 225, 50},
		{28, 28, 250, 225, 50},
		{30, 28, 45, 45, 45},
		{29, 28, (250*4 + 45*4 + 4) / 8, (225*4 + 45*4) / 8, (50*4 + 45*4 + 4) / 8},
	} {
		p := img.RGBAAt(c.x, c.y)
		if int(p.R) != c.r || int(p.G) != c.g || int(p.B) != c.b || p.A != 255 {
			t.Errorf("pixel (%d, %d) is %v, want %v", c.x, c.y, p, c)
		}
	}
}

// RenderInto, ImageInto and ToImage agree with Render to the bit.
func TestRenderInto(t *testing.T) {
	rng := source(3)
	a, b := make([]float32, Side*Side*3), make([]float32, Side*Side*3)
	for _, kind := range Kinds() {
		s := Random(rng, kind)
		s.AddFragments(rng, 2)
		img := Render(s)
		RenderInto(a, s)
		ImageInto(b, img)
		if !slices.Equal(a, b) || !slices.Equal(ToImage(a).Pix, img.Pix) {
			t.Errorf("%v: Render and RenderInto differ", kind)
		}
		gray := image.NewPaletted(img.Rect, color.Palette{color.Black, color.White})
		ImageInto(b, gray)
		if b[0] != -1 {
			t.Error("an image of another kind is not read through its colour model")
		}
	}
}

func TestBlurAndNoise(t *testing.T) {
	pix := make([]float32, Side*Side*3)
	pix[(32*Side+32)*3+1] = 1
	Blur(pix, 1)
	var sum, spread float64
	for i, v := range pix {
		if i%3 != 1 && v != 0 {
			t.Fatal("blur mixes channels")
		}
		x, y := float64(i/3%Side-32), float64(i/3/Side-32)
		sum += float64(v)
		spread += float64(v) * (x*x + y*y)
	}
	if math.Abs(sum-1) > 1e-5 || math.Abs(spread-2) > .06 {
		t.Errorf("blurred point: mass %.4f, variance in two axes %.3f, want 1 and 2", sum, spread)
	}
	clear(pix)
	AddNoise(pix, .06, source(1))
	var square float64
	for _, v := range pix {
		square += float64(v) * float64(v)
	}
	if std := math.Sqrt(square / float64(len(pix))); math.Abs(std-.06) > .002 {
		t.Errorf("noise of standard deviation %.4f, want .06", std)
	}
}

func TestPatches(t *testing.T) {
	s := Scene{Objects: []Object{{Shape: Ring, Colour: Blue, Col: 2, Row: 4}}}
	p := s.Patches()
	n := 0
	for _, v := range p {
		if v.Shape >= 0 {
			n++
		}
	}
	if n != 9 || p[4*Cells+2] != (Patch{int(Ring), int(Blue), 0}) || p[6*Cells+4].Place != 8 || p[0].Shape != -1 {
		t.Errorf("%d patches, corner %v", n, p[4*Cells+2])
	}
}

func TestSheet(t *testing.T) {
	imgs := []image.Image{Render(Random(source(1), Pair)), Render(Random(source(2), Pair)), Render(Random(source(3), Count))}
	plain := Sheet(imgs, nil, SheetOptions{Columns: 2, Scale: 1})
	if plain.Rect.Dx() != 2*(64+4)+4 || plain.Rect.Dy() != 2*(64+4)+4 {
		t.Errorf("sheet of %v", plain.Rect)
	}
	if plain.At(4+64+4+10, 4+10) != imgs[1].At(10, 10) {
		t.Error("the second image is not in its place")
	}
	captioned := Sheet(imgs, []string{"a photo of a circle", "a photo of a star and a ring"}, SheetOptions{})
	if captioned.Rect.Dy() <= 2*64+8 {
		t.Errorf("no room for captions: %v", captioned.Rect)
	}
	if got := wrap("a photo of a star and a ring", 12); !slices.Equal(got, []string{"a photo of a", "star and a", "ring"}) {
		t.Errorf("wrap: %q", got)
	}
}

func BenchmarkRender(b *testing.B) {
	s := Random(source(1), Clutter)
	for b.Loop() {
		Render(s)
	}
}

func BenchmarkRenderInto(b *testing.B) {
	s := Random(source(1), Clutter)
	dst := make([]float32, Side*Side*3)
	for b.Loop() {
		RenderInto(dst, s)
	}
}

func BenchmarkRandomClutter(b *testing.B) {
	rng := source(1)
	for b.Loop() {
		Random(rng, Clutter)
	}
}

func ExampleRender() {
	s := Scene{Background: Light, Objects: []Object{
		{Shape: Circle, Colour: Red, Col: 0, Row: 2},
		{Shape: Square, Colour: Blue, Col: 5, Row: 3},
	}}
	facts, err := Detector{}.Look(Render(s))
	if err != nil {
		panic(err)
	}
	for _, f := range facts.Objects {
		fmt.Println(f.Object)
	}
	// Unordered output:
	// red circle at (0, 2)
	// blue square at (5, 3)
}
