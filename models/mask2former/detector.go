package mask2former

import (
	"context"
	"errors"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"slices"

	"imagecot/ckpt"
	"imagecot/geneval"
	"imagecot/internal/graphx"
	"imagecot/internal/imgio"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// limit is the number of instances that are made of a picture.
const limit = 100

// Options of a detector.
type Options struct {
	// Classes are the names of the model's labels, in their order.
	Classes []string
	// Floor is the score below or at which nobody looks at a detection; its mask is not computed.
	Floor float32
	// Short and Long bound the picture's sides at the model's input; 0 means the published 800 and 1333. Smaller input is
	// faster and gives other scores.
	Short, Long int
}

// Detector finds objects with Mask2Former. It implements geneval.Detector and may be used from several goroutines.
type Detector struct {
	cfg Config
	o   Options
	net *graphx.Program // pixels [1, H, W, 3] -> class logits, mask logits
}

// NewDetector prepares the detector over weights as LoadWeights returns them.
func NewDetector(be compute.Backend, c Config, w *graphx.Weights, o Options) (*Detector, error) {
	if len(o.Classes) != c.Classes {
		return nil, fmt.Errorf("mask2former: the model has %d classes, %d names are given", c.Classes, len(o.Classes))
	}
	if o.Short == 0 && o.Long == 0 {
		o.Short, o.Long = shortSide, longSide
	}
	if o.Short < divisor || o.Long < o.Short {
		return nil, fmt.Errorf("mask2former: input of %d to %d pixels, want %d at least", o.Short, o.Long, divisor)
	}
	d := &Detector{cfg: c, o: o}
	var err error
	d.net, err = graphx.NewProgram(be, "mask2former", w, graphx.PolicyFor(be), func(s graphx.Scope, in []*Node) []*Node {
		classes, masks := Forward(s, c, in[0], nil)
		return []*Node{classes, masks}
	})
	return d, err
}

// OpenDetector opens a model folder: weights and config.json; without the latter the model is taken for the published
// Swin-S.
func OpenDetector(be compute.Backend, dir string, o Options) (*Detector, error) {
	c := SwinSmallCOCO()
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err == nil {
		c, err = LoadConfig(text)
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("mask2former: %w", err)
	}
	f, err := ckpt.OpenModel(dir)
	if err != nil {
		return nil, fmt.Errorf("mask2former: %w", err)
	}
	w, err := LoadWeights(c, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return NewDetector(be, c, w, o)
}

// Detect returns the objects of the classes with a class probability above the floor, the most probable first.
func (d *Detector) Detect(ctx context.Context, img image.Image, classes []string) ([]geneval.Detection, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rgb := imgio.RGB(img)
	size := rgb.Bounds().Size()
	w, h := FitSize(size.X, size.Y, d.o.Long, d.o.Short)
	pixels, height, width := Pixels(ResizeOpenCV(rgb, w, h), Published, divisor, 0)
	out, err := d.net.Run(graphx.Tensor(pixels, 1, height, width, 3))
	if err != nil {
		return nil, err
	}
	grid := out[1].Shape().Dimensions
	l := Logits{Queries: d.cfg.Queries, Classes: d.cfg.Classes, Height: grid[2], Width: grid[3]}
	l.Class, l.Mask = graphx.Floats(out[0]), graphx.Floats(out[1])
	frame := Frame{Padded: [2]int{height, width}, Resized: [2]int{h, w}, Original: [2]int{size.Y, size.X}}
	found, err := l.Instances(frame, limit, d.o.Floor)
	if err != nil {
		return nil, err
	}
	var list []geneval.Detection
	for _, in := range found {
		class := d.o.Classes[in.Label]
		if slices.Contains(classes, class) {
			list = append(list, geneval.Detection{Class: class, Box: in.Box, Score: in.Score, Mask: alpha(in.Mask, size)})
		}
	}
	return list, nil
}

func alpha(mask []bool, size image.Point) *image.Alpha {
	out := image.NewAlpha(image.Rectangle{Max: size})
	for i, covered := range mask {
		if covered {
			out.Pix[i] = 255
		}
	}
	return out
}
