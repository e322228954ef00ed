package magvit

import (
	"context"
	"fmt"
	"image"
	"io/fs"
	"math"
	"os"
	"path"

	"imagecot/ckpt"
	"imagecot/internal/graphx"
	"imagecot/internal/imgio"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// Options of a Tokenizer.
type Options struct {
	// Batch is the number of images that run together; 0 means 8, or 1 of a large model. Shorter batches are filled up, so a token's and a
	// pixel's bits do not depend on what else is in the call.
	Batch int
}

// Tokenizer turns images into tokens and back. It is safe for concurrent use.
type Tokenizer struct {
	cfg    Config
	batch  int
	encode *graphx.Program
	decode *graphx.Program
}

// New makes a tokenizer of weights named and shaped as Shapes says.
func New(be compute.Backend, cfg Config, w *graphx.Weights, o Options) (*Tokenizer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := Check(cfg, w); err != nil {
		return nil, err
	}
	if o.Batch == 0 {
		o.Batch = 8
		if w.Large() {
			o.Batch = 1
		}
	}
	if o.Batch < 0 {
		return nil, fmt.Errorf("magvit: batch is %d", o.Batch)
	}
	t := &Tokenizer{cfg: cfg, batch: o.Batch}
	encoder, decoder := split(w)
	policy := graphx.PolicyFor(be)
	var err error
	if t.encode, err = graphx.NewProgram(be, "magvit encode", encoder, policy, encodeProgram(cfg)); err != nil {
		return nil, err
	}
	t.decode, err = graphx.NewProgram(be, "magvit decode", decoder, policy, decodeProgram(cfg))
	return t, err
}

// Load makes a tokenizer of an open checkpoint, which may be closed afterwards.
func Load(be compute.Backend, cfg Config, f *ckpt.File, o Options) (*Tokenizer, error) {
	if err := CheckFile(cfg, f); err != nil {
		return nil, err
	}
	t, err := f.TensorsFor(ckpt.Place{Engine: be})
	if err != nil {
		return nil, fmt.Errorf("magvit: %w", err)
	}
	return New(be, cfg, graphx.NewWeights(t), o)
}

// Open makes a tokenizer of a model folder: config.json, and model.safetensors (or its shards) or
// pytorch_model.safetensors.
func Open(be compute.Backend, dir string, o Options) (*Tokenizer, error) {
	return OpenFS(be, os.DirFS(dir), ".", o)
}

// OpenFS is Open for a folder of a file system, for example an embedded one.
func OpenFS(be compute.Backend, fsys fs.FS, dir string, o Options) (*Tokenizer, error) {
	data, err := fs.ReadFile(fsys, path.Join(dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("magvit: %w", err)
	}
	cfg, err := LoadConfig(data)
	if err != nil {
		return nil, err
	}
	f, err := ckpt.OpenModelFS(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("magvit: %w", err)
	}
	defer f.Close()
	return Load(be, cfg, f, o)
}

// Config of the tokenizer.
func (t *Tokenizer) Config() Config { return t.cfg }

func encodeProgram(cfg Config) graphx.Func {
	return func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		return []*graph.Node{Quantize(cfg, Encode(s, cfg, in[0]))}
	}
}

// decodeProgram takes tokens [B, h, w], so that the grid is part of the shape.
func decodeProgram(cfg Config) graphx.Func {
	return func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		d := in[0].Shape().Dimensions
		return []*graph.Node{DecodeCodes(s, cfg, in[0], d[1], d[2])}
	}
}

// Encode returns the tokens of each image, row by row: (H/f)*(W/f) indices below Codes(). All images must have the
// same size, divisible by f = Factor(); see Preprocess for others. Transparency is dropped.
func (t *Tokenizer) Encode(ctx context.Context, images []image.Image) ([][]int32, error) {
	if len(images) == 0 {
		return nil, nil
	}
	size, f := images[0].Bounds().Size(), t.cfg.Factor()
	if size.X < 1 || size.Y < 1 || size.X%f != 0 || size.Y%f != 0 {
		return nil, fmt.Errorf("magvit: encode: image of %d x %d pixels, want multiples of %d", size.X, size.Y, f)
	}
	for i, img := range images {
		if img.Bounds().Size() != size {
			return nil, fmt.Errorf("magvit: encode: image %d has %v pixels, image 0 has %v", i, img.Bounds().Size(), size)
		}
	}
	n := size.X / f * size.Y / f
	tokens := make([][]int32, 0, len(images))
	for first := 0; first < len(images); first += t.batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part := images[first:min(first+t.batch, len(images))]
		flat := make([]float32, t.batch*size.X*size.Y*3)
		for i, img := range part {
			Normalize(flat[i*size.X*size.Y*3:], imgio.RGB(img))
		}
		in := graphx.Tensor(flat, t.batch, size.Y, size.X, 3)
		out, err := t.encode.Run(in)
		graphx.Free(in)
		if err != nil {
			return nil, fmt.Errorf("magvit: encode %d images of %d x %d: %w", len(part), size.X, size.Y, err)
		}
		all := graphx.Ints(out[0])
		for i := range part {
			tokens = append(tokens, all[i*n:(i+1)*n:(i+1)*n])
		}
	}
	return tokens, nil
}

// Decode returns the image of each row of tokens, which form a square grid: each row has n*n indices below Codes(),
// n the same for all. Pixels are truncated to 8 bits, 255 clamp((x+1)/2, 0, 1), as the published code does.
func (t *Tokenizer) Decode(ctx context.Context, tokens [][]int32) ([]*image.RGBA, error) {
	if len(tokens) == 0 {
		return nil, nil
	}
	n := int(math.Round(math.Sqrt(float64(len(tokens[0])))))
	if n == 0 || n*n != len(tokens[0]) {
		return nil, fmt.Errorf("magvit: decode: %d tokens are no square grid", len(tokens[0]))
	}
	return t.DecodeGrid(ctx, tokens, n, n)
}

// DecodeGrid is Decode for grids of h rows and w columns.
func (t *Tokenizer) DecodeGrid(ctx context.Context, tokens [][]int32, h, w int) ([]*image.RGBA, error) {
	for i, row := range tokens {
		if len(row) != h*w {
			return nil, fmt.Errorf("magvit: decode: row %d has %d tokens, want %d x %d", i, len(row), h, w)
		}
		for j, v := range row {
			if v < 0 || int(v) >= t.cfg.Codes() {
				return nil, fmt.Errorf("magvit: decode: token %d of row %d is %d, want 0 to %d", j, i, v, t.cfg.Codes()-1)
			}
		}
	}
	images := make([]*image.RGBA, 0, len(tokens))
	for first := 0; first < len(tokens); first += t.batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part := tokens[first:min(first+t.batch, len(tokens))]
		flat := make([]int32, t.batch*h*w)
		for i, row := range part {
			copy(flat[i*h*w:], row)
		}
		in := graphx.Tensor(flat, t.batch, h, w)
		out, err := t.decode.Run(in)
		graphx.Free(in)
		if err != nil {
			return nil, fmt.Errorf("magvit: decode %d rows of %d x %d tokens: %w", len(part), h, w, err)
		}
		d := out[0].Shape().Dimensions
		pixels := graphx.Floats(out[0])
		for i := range part {
			images = append(images, Truncate(pixels[i*d[1]*d[2]*3:], d[2], d[1]))
		}
	}
	return images, nil
}
