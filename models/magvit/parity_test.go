package magvit

import (
	"encoding/json"
	"fmt"
	"image"
	"math"
	"os"
	"path/filepath"
	"testing"

	"imagecot/ckpt"
	"imagecot/internal/enginetest"
	"imagecot/internal/goldens"
	"imagecot/internal/graphx"
	"imagecot/internal/imgio"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// golden is one parity case on disk.
type golden struct {
	t      *testing.T
	io     *ckpt.File
	params map[string]any
}

func openGolden(t *testing.T, dir string) golden {
	t.Helper()
	io, err := ckpt.Open(filepath.Join(dir, "io.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { io.Close() })
	text, err := os.ReadFile(filepath.Join(dir, "case.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct{ Params map[string]any }
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return golden{t, io, c.Params}
}

// near compares with an expected tensor, within atol + rtol |want|.
func (g golden) near(name string, got []float32, atol, rtol float64) {
	g.t.Helper()
	info, _ := g.io.Info(name)
	var want []float32
	var err error
	if info.DType == ckpt.U8 {
		bytes, failed := g.io.U8(name)
		for _, v := range bytes {
			want = append(want, float32(v))
		}
		err = failed
	} else {
		want, err = g.io.Float32(name)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	if len(got) != len(want) {
		g.t.Errorf("%s: %d values, want %d", name, len(got), len(want))
		return
	}
	for i := range got {
		if d := math.Abs(float64(got[i] - want[i])); !(d <= atol+rtol*math.Abs(float64(want[i]))) {
			g.t.Errorf("%s: value %d is %g, want %g", name, i, got[i], want[i])
			return
		}
	}
}

// model reads config and weights of a case.
func goldenModel(t *testing.T, dir string) (Config, *graphx.Weights) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ckpt.OpenModel(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := f.Tensors()
	if err != nil {
		t.Fatal(err)
	}
	w := graphx.NewWeights(all)
	if err := Check(cfg, w); err != nil {
		t.Fatal(err)
	}
	return cfg, w
}

// toNCHW is the order of the cases' tensors.
func toNCHW(x *Node) *Node { return TransposeAllDims(x, 0, 3, 1, 2) }

// runObserved runs a program of one input and returns named results as float32.
func runObserved(t *testing.T, be compute.Backend, w *graphx.Weights, in any,
	build func(s graphx.Scope, x *Node, see Observer)) map[string][]float32 {
	t.Helper()
	var names []string
	p, err := graphx.NewProgram(be, "golden", w, graphx.PolicyFor(be), func(s graphx.Scope, in []*Node) (out []*Node) {
		names = nil
		build(s, in[0], func(name string, x *Node) {
			names, out = append(names, name), append(out, ConvertDType(x, dtypes.Float32))
		})
		return out
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]float32{}
	for i, name := range names {
		values[name] = graphx.Floats(out[i])
	}
	return values
}

func TestEncodeGoldens(t *testing.T) {
	for _, dir := range goldens.Cases(t, "magvit-encode-*") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			enginetest.Each(t, func(t *testing.T, be compute.Backend) {
				g := openGolden(t, dir)
				cfg, w := goldenModel(t, dir)
				x, err := g.io.Tensor("in.pixels")
				if err != nil {
					t.Fatal(err)
				}
				got := runObserved(t, be, w, x, func(s graphx.Scope, x *Node, see Observer) {
					z := EncodeObserved(s, cfg, TransposeAllDims(x, 0, 2, 3, 1), func(name string, x *Node) { see("mid."+name, toNCHW(x)) })
					see("out.z", toNCHW(z))
					see("out.indices", Quantize(cfg, z))
					d := z.Shape().Dimensions
					see("out.z_quantized", toNCHW(Codes(cfg, Quantize(cfg, z), d[1], d[2])))
				})
				indices, err := g.io.Int32("out.indices")
				if err != nil {
					t.Fatal(err)
				}
				for i, v := range indices {
					if float32(v) != got["out.indices"][i] {
						t.Errorf("token %d is %v, want %d", i, got["out.indices"][i], v)
					}
				}
				for _, name := range g.io.Names() {
					switch {
					case name == "in.pixels" || name == "out.indices":
					case got[name] == nil:
						t.Errorf("%s is not compared", name)
					default:
						g.near(name, got[name], 5e-5, 5e-5)
					}
				}
			})
		})
	}
}

func TestDecodeGoldens(t *testing.T) {
	for _, dir := range goldens.Cases(t, "magvit-decode-*") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			enginetest.Each(t, func(t *testing.T, be compute.Backend) {
				g := openGolden(t, dir)
				cfg, w := goldenModel(t, dir)
				indices, err := g.io.Tensor("in.indices")
				if err != nil {
					t.Fatal(err)
				}
				h, width := int(g.params["latent_height"].(float64)), int(g.params["latent_width"].(float64))
				got := runObserved(t, be, w, indices, func(s graphx.Scope, x *Node, see Observer) {
					codes := Codes(cfg, x, h, width)
					see("mid.z_quantized", toNCHW(codes))
					y := DecodeObserved(s, cfg, codes, func(name string, x *Node) { see("mid."+name, toNCHW(x)) })
					see("out.pixels", toNCHW(y))
					see("rows", y)
				})
				info, _ := g.io.Info("out.image_u8")
				for i := range info.Shape[0] {
					size := info.Shape[1] * info.Shape[2]
					img := Truncate(got["rows"][i*size*3:], info.Shape[2], info.Shape[1])
					got["out.image_u8"] = append(got["out.image_u8"], colours(img)...)
				}
				for _, name := range g.io.Names() {
					switch {
					case name == "in.indices":
					case got[name] == nil:
						t.Errorf("%s is not compared", name)
					case name == "out.image_u8":
						g.near(name, got[name], 1, 0)
					default:
						g.near(name, got[name], 5e-5, 5e-5)
					}
				}
			})
		})
	}
}

// colours of a picture, [H, W, 3].
func colours(img *image.RGBA) (out []float32) {
	for i, v := range img.Pix {
		if i%4 != 3 {
			out = append(out, float32(v))
		}
	}
	return out
}

func TestPreprocessGolden(t *testing.T) {
	g := openGolden(t, goldens.Case(t, "image-transform-a"))
	size := int(g.params["resolution"].(float64))
	for i := range 5 {
		info, ok := g.io.Info(fmt.Sprintf("in.image%d", i))
		if !ok {
			t.Fatalf("no picture %d", i)
		}
		flat, err := g.io.U8(fmt.Sprintf("in.image%d", i))
		if err != nil {
			t.Fatal(err)
		}
		img := image.NewRGBA(image.Rect(0, 0, info.Shape[1], info.Shape[0]))
		for p := range info.Shape[0] * info.Shape[1] {
			copy(img.Pix[4*p:], flat[3*p:3*p+3])
			img.Pix[4*p+3] = 255
		}
		resized, _ := g.io.Info(fmt.Sprintf("mid.resized%d", i))
		g.near(fmt.Sprintf("mid.resized%d", i), colours(imgio.ResizeBicubic(img, resized.Shape[1], resized.Shape[0])), 1, 0)
		rows := make([]float32, size*size*3)
		Normalize(rows, Preprocess(img, size))
		planes := make([]float32, 0, len(rows))
		for c := range 3 {
			for p := range size * size {
				planes = append(planes, rows[3*p+c])
			}
		}
		g.near(fmt.Sprintf("out.pixels%d", i), planes, .0079, 0)
	}
}
