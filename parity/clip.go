package parity

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"os"

	"imagecot/geneval"
	"imagecot/internal/graphx"
	"imagecot/models/clip"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
)

func init() {
	register("clip", clipTowers)
	register("clip-tokens", func(_ context.Context, _ compute.Backend, c *Case) error { return clipTokens(c) })
	register("geneval-crops", func(_ context.Context, _ compute.Backend, c *Case) error { return genevalCrops(c) })
}

// clipTowers compares both towers, and the colours that they name.
func clipTowers(_ context.Context, be compute.Backend, c *Case) error {
	var params struct {
		Templates int     `json:"templates"`
		Factor    float64 `json:"logit_factor"`
	}
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	if params.Templates < 1 {
		return fmt.Errorf("params: %d templates", params.Templates)
	}
	cfg, err := clip.LoadConfig(c.Config)
	if err != nil {
		return err
	}
	f, err := c.Model()
	if err != nil {
		return err
	}
	w, err := clip.LoadWeights(cfg, f)
	if err != nil {
		return err
	}
	pixels, err := c.IO.Tensor("in.pixel_values")
	if err != nil {
		return err
	}
	ids, err := c.Int32("in.input_ids")
	if err != nil {
		return err
	}
	return runNamed(be, c, w, []any{pixels, graphx.Tensor(ids, c.Shape("in.input_ids")...)}, func(s graphx.Scope, in []*graph.Node, show func(string, *graph.Node)) {
		mid := func(name string, x *graph.Node) {
			if shape := c.Shape("mid." + name); shape != nil && shape[0] < x.Shape().Dimensions[0] { // some keep the first rows only
				x = graph.Slice(x, graph.AxisRange(0, shape[0]))
			}
			show("mid."+name, x)
		}
		images := clip.ImageFeatures(s, cfg, graph.TransposeAllDims(in[0], 0, 2, 3, 1), mid)
		texts := clip.TextFeatures(s, cfg, in[1], mid)
		show("out.image_features", images)
		show("out.text_features", texts)
		classifier := clip.Classifier(texts, params.Templates)
		logits := clip.Logits(images, classifier, params.Factor)
		show("out.classifier", classifier)
		show("out.color_logits", logits)
		show("out.color_probs", graph.Softmax(logits, -1))
		show("out.color_index", graph.ArgMax(logits, -1, dtypes.Int32))
		scale := graph.Exp(s.Float32("logit_scale"))
		cosines := clip.Logits(images, clip.Classifier(texts, 1), 1)
		show("out.logits_per_image", graph.Mul(cosines, graph.BroadcastToShape(scale, cosines.Shape())))
	})
}

func clipTokens(c *Case) error {
	const context = 77
	tok, err := clip.OpenTokenizer(os.DirFS(c.Dir), context)
	if err != nil {
		return err
	}
	return c.EachLine("cases.jsonl", func(n int, line []byte) error {
		var item struct {
			Text string
			IDs  []int32
		}
		if err := json.Unmarshal(line, &item); err != nil {
			return err
		}
		c.CompareExact("ids", fmt.Sprintf("line %d %q", n, item.Text), tok.Encode(item.Text), item.IDs)
		return nil
	})
}

// cropsParams are the params of geneval-crops.
type cropsParams struct {
	Size  int
	Cases []struct {
		Index   int
		Box     [4]float32
		Mask    bool
		Options map[string]string
		CropHW  [2]int `json:"crop_hw"`
		Resize  int
	}
}

// genevalCrops compares crops, what CLIP sees of them, and its pixels.
func genevalCrops(c *Case) error {
	var params cropsParams
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	for _, item := range params.Cases {
		name := func(prefix string) string { return fmt.Sprintf("%s_%d", prefix, item.Index) }
		img, err := caseImage(c, name("in.image"))
		if err != nil {
			return err
		}
		object := geneval.Detection{Box: item.Box}
		if item.Mask {
			if object.Mask, err = caseMask(c, name("in.mask")); err != nil {
				return err
			}
		}
		var given []string
		for key, value := range item.Options {
			given = append(given, key+"="+value)
		}
		_, options, err := geneval.ParseOptions(given)
		if err != nil {
			return err
		}
		crop, err := geneval.Crop(img, object, options)
		if err != nil {
			return err
		}
		size := item.Resize
		if size == 0 {
			size = params.Size
		}
		c.CompareExact("crop_hw", name("crop"), [2]int{crop.Rect.Dy(), crop.Rect.Dx()}, item.CropHW)
		c.Compare(name("out.crop"), colours(crop))
		square := clip.CentreSquare(crop, size)
		c.Compare(name("out.resized"), colours(square))
		c.Compare(name("out.pixel_values"), planes(clip.AppendPixels(nil, square)))
	}
	return nil
}

// caseImage is a u8 tensor [h, w, 3] as a picture.
func caseImage(c *Case, name string) (*image.RGBA, error) {
	flat, err := c.U8(name)
	if err != nil {
		return nil, err
	}
	shape := c.Shape(name)
	if len(shape) != 3 || shape[2] != 3 {
		return nil, fmt.Errorf("%s has shape %v, want [h, w, 3]", name, shape)
	}
	img := image.NewRGBA(image.Rect(0, 0, shape[1], shape[0]))
	for i := range shape[0] * shape[1] {
		img.SetRGBA(i%shape[1], i/shape[1], color.RGBA{R: flat[3*i], G: flat[3*i+1], B: flat[3*i+2], A: 255})
	}
	return img, nil
}

// caseMask is a u8 tensor [h, w] of 0 and 1 as a mask.
func caseMask(c *Case, name string) (*image.Alpha, error) {
	flat, err := c.U8(name)
	if err != nil {
		return nil, err
	}
	shape := c.Shape(name)
	if len(shape) != 2 {
		return nil, fmt.Errorf("%s has shape %v, want [h, w]", name, shape)
	}
	mask := image.NewAlpha(image.Rect(0, 0, shape[1], shape[0]))
	for i, v := range flat {
		if v != 0 {
			mask.Pix[i] = 255
		}
	}
	return mask, nil
}

// planes turns values [h, w, 3] into [3, h, w].
func planes(values []float32) []float32 {
	n := len(values) / 3
	out := make([]float32, len(values))
	for i, v := range values {
		out[i%3*n+i/3] = v
	}
	return out
}
