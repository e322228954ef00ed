package parity

import (
	"context"
	"fmt"
	"image"

	"imagecot/internal/graphx"
	"imagecot/internal/imgio"
	"imagecot/models/magvit"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

func init() {
	register("magvit-encode", magvitEncode)
	register("magvit-decode", magvitDecode)
	register("image-transform", imageTransform)
}

// magvitModel reads the case's architecture and weights and checks the one against the other.
func magvitModel(c *Case) (cfg magvit.Config, w *graphx.Weights, err error) {
	if cfg, err = magvit.LoadConfig(c.Config); err != nil {
		return cfg, nil, err
	}
	f, err := c.Model()
	if err != nil {
		return cfg, nil, err
	}
	all, err := f.Tensors()
	if err != nil {
		return cfg, nil, err
	}
	w = graphx.NewWeights(all)
	return cfg, w, magvit.Check(cfg, w)
}

// observed collects named nodes for a program's outputs; images are turned to the cases' NCHW order.
type observed struct {
	names []string
	nodes []*graph.Node
}

func (o *observed) add(name string, x *graph.Node) {
	if x.Rank() == 4 {
		x = graph.TransposeAllDims(x, 0, 3, 1, 2)
	}
	o.names, o.nodes = append(o.names, name), append(o.nodes, x)
}

func (o *observed) mid(name string, x *graph.Node) { o.add("mid."+name, x) }

// observe runs a graph function of one input and compares each result that the case expects.
func observe(be compute.Backend, c *Case, w *graphx.Weights, input string, build func(s graphx.Scope, x *graph.Node, o *observed)) error {
	var o observed
	p, err := graphx.NewProgram(be, c.Kind, w, graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		o = observed{}
		build(s, in[0], &o)
		return o.nodes
	})
	if err != nil {
		return err
	}
	in, err := c.IO.Tensor(input)
	if err != nil {
		return err
	}
	out, err := p.Run(in)
	if err != nil {
		return err
	}
	for i, name := range o.names {
		if c.Has(name) {
			c.Compare(name, out[i])
		}
	}
	graphx.Free(out...)
	return nil
}

func magvitEncode(_ context.Context, be compute.Backend, c *Case) error {
	cfg, w, err := magvitModel(c)
	if err != nil {
		return err
	}
	return observe(be, c, w, "in.pixels", func(s graphx.Scope, x *graph.Node, o *observed) {
		z := magvit.EncodeObserved(s, cfg, graph.TransposeAllDims(x, 0, 2, 3, 1), o.mid)
		indices := magvit.Quantize(cfg, z)
		o.add("out.z", z)
		o.add("out.indices", indices)
		o.add("out.z_quantized", magvit.Codes(cfg, indices, z.Shape().Dimensions[1], z.Shape().Dimensions[2]))
	})
}

func magvitDecode(ctx context.Context, be compute.Backend, c *Case) error {
	var params struct {
		Height int `json:"latent_height"`
		Width  int `json:"latent_width"`
	}
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	cfg, w, err := magvitModel(c)
	if err != nil {
		return err
	}
	err = observe(be, c, w, "in.indices", func(s graphx.Scope, x *graph.Node, o *observed) {
		codes := magvit.Codes(cfg, x, params.Height, params.Width)
		o.mid("z_quantized", codes)
		o.add("out.pixels", magvit.DecodeObserved(s, cfg, codes, o.mid))
	})
	if err != nil {
		return err
	}
	flat, err := c.Int32("in.indices")
	if err != nil {
		return err
	}
	n := params.Height * params.Width
	tokens := make([][]int32, len(flat)/n)
	for i := range tokens {
		tokens[i] = flat[i*n : (i+1)*n]
	}
	tokenizer, err := magvit.New(be, cfg, w, magvit.Options{Batch: 2})
	if err != nil {
		return err
	}
	images, err := tokenizer.DecodeGrid(ctx, tokens, params.Height, params.Width)
	if err != nil {
		return err
	}
	var pixels []uint8
	for _, img := range images {
		pixels = append(pixels, colours(img)...)
	}
	c.Compare("out.image_u8", pixels)
	return nil
}

// colours of a picture, [H, W, 3].
func colours(img *image.RGBA) (out []uint8) {
	for i := 0; i < len(img.Pix); i += 4 {
		out = append(out, img.Pix[i:i+3]...)
	}
	return out
}

func imageTransform(_ context.Context, _ compute.Backend, c *Case) error {
	var params struct{ Resolution int }
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	size := params.Resolution
	for i := range c.Names("in.image") {
		img, err := pictureOf(c, fmt.Sprintf("in.image%d", i))
		if err != nil {
			return err
		}
		if resized := fmt.Sprintf("mid.resized%d", i); c.Has(resized) {
			shape := c.Shape(resized)
			c.Compare(resized, colours(imgio.ResizeBicubic(img, shape[1], shape[0])))
		}
		rows := make([]float32, size*size*3)
		magvit.Normalize(rows, magvit.Preprocess(img, size))
		planes := make([]float32, 0, len(rows))
		for colour := range 3 {
			for p := range size * size {
				planes = append(planes, rows[3*p+colour])
			}
		}
		c.Compare(fmt.Sprintf("out.pixels%d", i), planes)
	}
	return nil
}

// pictureOf reads a U8 tensor [H, W, 3].
func pictureOf(c *Case, name string) (*image.RGBA, error) {
	shape := c.Shape(name)
	if len(shape) != 3 || shape[2] != 3 {
		return nil, fmt.Errorf("%s has shape %v, want [H, W, 3]", name, shape)
	}
	flat, err := c.U8(name)
	if err != nil {
		return nil, err
	}
	img := image.NewRGBA(image.Rect(0, 0, shape[1], shape[0]))
	for p := range shape[0] * shape[1] {
		copy(img.Pix[4*p:], flat[3*p:3*p+3])
		img.Pix[4*p+3] = 255
	}
	return img, nil
}
