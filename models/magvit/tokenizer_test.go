package magvit

import (
	"context"
	"image"
	"image/color"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// small is an architecture with every kind of layer, cheap on the pure-Go engine.
func small() Config {
	c := Tiny()
	c.NormGroupSize = 8
	for _, n := range []*Network{&c.Encoder, &c.Decoder} {
		n.Ch, n.ChMult, n.NumResBlocks, n.Resolution, n.MidAttn = 8, []int{1, 2, 3}, []int{1, 1, 1}, 16, true
	}
	return c
}

func randomImage(rng *rand.Rand, w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = uint8(rng.IntN(256))
		if i%4 == 3 {
			img.Pix[i] = 255
		}
	}
	return img
}

func newTokenizer(t *testing.T, be compute.Backend, cfg Config, batch int) *Tokenizer {
	t.Helper()
	tok, err := New(be, cfg, graphx.NewWeights(Init(cfg, rand.New(rand.NewPCG(1, 2)))), Options{Batch: batch})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestRowsDoNotDependOnNeighbours(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		cfg, ctx := small(), context.Background()
		rng := rand.New(rand.NewPCG(3, 4))
		tok := newTokenizer(t, be, cfg, 3)
		images := make([]image.Image, 5)
		for i := range images {
			images[i] = randomImage(rng, 16, 16)
		}
		together, err := tok.Encode(ctx, images)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := tok.Decode(ctx, together)
		if err != nil {
			t.Fatal(err)
		}
		for i := range images {
			alone, err := tok.Encode(ctx, images[i:i+1])
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(alone[0], together[i]) {
				t.Errorf("image %d: tokens alone %v, in a batch %v", i, alone[0], together[i])
			}
			picture, err := tok.Decode(ctx, alone)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(picture[0].Pix, decoded[i].Pix) {
				t.Errorf("image %d: pixels alone and in a batch differ", i)
			}
		}
		if slices.Equal(together[0], together[1]) {
			t.Error("two images have the same tokens: the test compares nothing")
		}
	})
}

// TestRowBitsDoNotDependOnNeighbours looks below tokens and 8-bit pixels, at the floats.
func TestRowBitsDoNotDependOnNeighbours(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		cfg := small()
		w := graphx.NewWeights(Init(cfg, rand.New(rand.NewPCG(1, 2))))
		p, err := graphx.NewProgram(be, "rows", w, graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
			z := Encode(s, cfg, in[0])
			return []*graph.Node{z, Decode(s, cfg, z)}
		})
		if err != nil {
			t.Fatal(err)
		}
		const row = 16 * 16 * 3
		rng := rand.New(rand.NewPCG(5, 6))
		flat := make([]float32, 4*row)
		for i := range flat {
			flat[i] = rng.Float32()*2 - 1
		}
		run := func() [][]float32 {
			out, err := p.Run(graphx.Tensor(flat, 4, 16, 16, 3))
			if err != nil {
				t.Fatal(err)
			}
			return [][]float32{graphx.Floats(out[0]), graphx.Floats(out[1])}
		}
		before := run()
		for i := range flat[row:] { // all rows but the first
			flat[row+i] = rng.Float32()*2 - 1
		}
		first := slices.Clone(flat[:row])
		copy(flat, flat[2*row:3*row]) // and the first moves to the third place
		copy(flat[2*row:], first)
		after := run()
		for k := range before {
			n := len(before[k]) / 4
			if !slices.Equal(before[k][:n], after[k][2*n:3*n]) {
				t.Errorf("output %d: the row's floats changed with its neighbours and place", k)
			}
		}
	})
}

func TestEncodeAndDecodeReportBadInput(t *testing.T) {
	tok := newTokenizer(t, enginetest.Go(t), small(), 2)
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(7, 8))
	for _, c := range []struct {
		images []image.Image
		want   string
	}{
		{[]image.Image{randomImage(rng, 18, 16)}, "multiples of 4"},
		{[]image.Image{randomImage(rng, 16, 16), randomImage(rng, 16, 20)}, "image 1"},
	} {
		if _, err := tok.Encode(ctx, c.images); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("encode: error %v, want one with %q", err, c.want)
		}
	}
	for _, c := range []struct {
		tokens [][]int32
		want   string
	}{
		{[][]int32{{1, 2, 3}}, "square"},
		{[][]int32{{1, 2, 3, 4}, {1}}, "row 1 has 1 tokens"},
		{[][]int32{{1, 2, 3, 1024}}, "is 1024, want 0 to 1023"},
		{[][]int32{{1, -1, 3, 4}}, "is -1"},
	} {
		if _, err := tok.Decode(ctx, c.tokens); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("decode: error %v, want one with %q", err, c.want)
		}
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := tok.Decode(stopped, [][]int32{{1, 2, 3, 4}}); err == nil {
		t.Error("decode went on after its context was cancelled")
	}
}

func TestDecodeGridIsRowMajor(t *testing.T) {
	tok := newTokenizer(t, enginetest.Go(t), small(), 1)
	got, err := tok.DecodeGrid(context.Background(), [][]int32{{1, 2, 3, 4, 5, 6}}, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	if size := got[0].Bounds().Size(); size != (image.Point{X: 12, Y: 8}) {
		t.Errorf("a grid of 2 rows and 3 columns became %v pixels", size)
	}
}

func TestCheckNamesFaultyWeights(t *testing.T) {
	cfg := small()
	fresh := func() map[string]*tensors.Tensor { return Init(cfg, rand.New(rand.NewPCG(1, 2))) }
	codebook := func(change bool) *tensors.Tensor {
		var flat []float32
		for code := range cfg.Codes() {
			for c := range cfg.CodebookDim {
				flat = append(flat, float32(code>>(cfg.CodebookDim-1-c)&1*2-1))
			}
		}
		if change {
			flat[len(flat)-1] = -1
		}
		return graphx.Tensor(flat, cfg.Codes(), cfg.CodebookDim)
	}
	for _, c := range []struct {
		name   string
		change func(map[string]*tensors.Tensor)
		want   []string // none: no error
	}{
		{"untouched", func(map[string]*tensors.Tensor) {}, nil},
		{"codebook", func(w map[string]*tensors.Tensor) { w[embeddingName] = codebook(false) }, nil},
		{"wrong codebook", func(w map[string]*tensors.Tensor) { w[embeddingName] = codebook(true) }, []string{embeddingName, "element"}},
		{"missing", func(w map[string]*tensors.Tensor) { delete(w, "decoder.mid.block_1.conv1.bias") }, []string{"decoder.mid.block_1.conv1.bias", "missing"}},
		{"extra", func(w map[string]*tensors.Tensor) { w["encoder.extra"] = graphx.Tensor([]float32{1}, 1) }, []string{"encoder.extra", "not used"}},
		{"misshapen", func(w map[string]*tensors.Tensor) { w["encoder.conv_in.bias"] = graphx.Tensor([]float32{1}, 1) }, []string{"encoder.conv_in.bias", "[1]", "[8]"}},
	} {
		w := fresh()
		c.change(w)
		err := Check(cfg, graphx.NewWeights(w))
		if (err != nil) != (c.want != nil) {
			t.Errorf("%s: error %v", c.name, err)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %q does not say %q", c.name, err, part)
			}
		}
	}
}

func TestOpenReadsFolderOfEitherName(t *testing.T) {
	cfg := small()
	var all []ckpt.Tensor
	for name, v := range Init(cfg, rand.New(rand.NewPCG(1, 2))) {
		x, err := ckpt.FromTensor(name, v, ckpt.F32)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	for _, name := range []string{ckpt.ModelFile, ckpt.PublishedFile} {
		dir := t.TempDir()
		if err := ckpt.Write(filepath.Join(dir, name), all, nil); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), marshal(t, cfg), 0o600); err != nil {
			t.Fatal(err)
		}
		tok, err := Open(enginetest.Go(t), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := newTokenizer(t, enginetest.Go(t), cfg, 8)
		tokens := [][]int32{{1, 1023, 512, 7}}
		a, err := tok.Decode(context.Background(), tokens)
		if err != nil {
			t.Fatal(err)
		}
		b, err := want.Decode(context.Background(), tokens)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a[0].Pix, b[0].Pix) {
			t.Errorf("%s: the opened tokenizer decodes differently", name)
		}
	}
	if _, err := Open(enginetest.Go(t), t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("empty folder: error %v", err)
	}
}

func TestTruncateRoundsTowardsZeroAndClamps(t *testing.T) {
	got := Truncate([]float32{-1, 1, 0, 2, -3, .999}, 2, 1)
	want := []uint8{0, 255, 127, 255, 255, 0, 254, 255}
	if !slices.Equal(got.Pix, want) {
		t.Errorf("pixels %v, want %v", got.Pix, want)
	}
}

func TestPreprocessCutsTheMiddle(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 30, 10)) // three squares: only the middle one is white
	for y := range 10 {
		for x := range 30 {
			img.SetRGBA(x, y, color.RGBA{A: 255})
			if x >= 10 && x < 20 {
				img.SetRGBA(x, y, color.RGBA{255, 255, 255, 255})
			}
		}
	}
	for i, v := range Preprocess(img, 10).Pix {
		if v != 255 {
			t.Fatalf("byte %d is %d, want 255", i, v)
		}
	}
}
