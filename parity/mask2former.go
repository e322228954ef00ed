package parity

import (
	"context"
	"fmt"
	"math"

	"imagecot/internal/graphx"
	"imagecot/models/mask2former"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

func init() {
	register("mask2former", mask2formerModel)
	register("mask2former-post", func(_ context.Context, _ compute.Backend, c *Case) error { return mask2formerPost(c) })
	register("detector-input", func(_ context.Context, _ compute.Backend, c *Case) error { return detectorInput(c) })
}

// instanceParams say how detections are made of logits.
type instanceParams struct {
	Padded   [2]int `json:"padded_hw"`
	Resized  [2]int `json:"resized_hw"`
	Original [2]int `json:"original_hw"`
	Limit    int    `json:"max_per_image"`
	Classes  int    `json:"num_classes"`
}

func (p instanceParams) frame() mask2former.Frame {
	return mask2former.Frame{Padded: p.Padded, Resized: p.Resized, Original: p.Original}
}

// mask2formerModel compares backbone, pixel decoder, every layer's prediction, and what two ways of post-processing make
// of the last one.
func mask2formerModel(_ context.Context, be compute.Backend, c *Case) error {
	var params struct {
		Instances *instanceParams
		HF        *hfParams `json:"hf"`
	}
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	cfg, err := mask2former.LoadConfig(c.Config)
	if err != nil {
		return err
	}
	f, err := c.Model()
	if err != nil {
		return err
	}
	w, err := mask2former.LoadWeights(cfg, f)
	if err != nil {
		return err
	}
	pixels, err := c.IO.Tensor("in.pixel_values")
	if err != nil {
		return err
	}
	forward := func(s graphx.Scope, in []*graph.Node, see mask2former.Observer) (classes, masks *graph.Node) {
		return mask2former.Forward(s, cfg, graph.TransposeAllDims(in[0], 0, 2, 3, 1), see)
	}
	err = runNamed(be, c, w, []any{pixels}, func(s graphx.Scope, in []*graph.Node, show func(string, *graph.Node)) {
		classes, masks := forward(s, in, func(name string, x *graph.Node) {
			if x.Rank() == 4 && name[:3] != "aux" {
				x = graph.TransposeAllDims(x, 0, 3, 1, 2)
			}
			show("mid."+name, x)
		})
		show("out.class_queries_logits", classes)
		show("out.masks_queries_logits", masks)
	})
	if err != nil || params.Instances == nil && params.HF == nil {
		return err
	}
	p, err := graphx.NewProgram(be, c.Kind, w, graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		classes, masks := forward(s, in, nil)
		return []*graph.Node{classes, masks}
	})
	if err != nil {
		return err
	}
	out, err := p.Run(pixels)
	if err != nil {
		return err
	}
	shape := out[1].Shape().Dimensions
	classes, masks := graphx.Floats(out[0]), graphx.Floats(out[1])
	for b := range shape[0] {
		l := mask2former.Logits{Queries: cfg.Queries, Classes: cfg.Classes, Height: shape[2], Width: shape[3]}
		n, m := cfg.Queries*(cfg.Classes+1), cfg.Queries*shape[2]*shape[3]
		l.Class, l.Mask = classes[b*n:][:n], masks[b*m:][:m]
		if params.Instances != nil {
			if err := compareInstances(c, l, *params.Instances, func(name string) string { return fmt.Sprintf("inst_%s_%d", name, b) }); err != nil {
				return err
			}
		}
		if params.HF != nil {
			if err := params.HF.compare(c, l, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// compareInstances compares detections, best first, each part under the name that named makes of it.
func compareInstances(c *Case, l mask2former.Logits, p instanceParams, named func(string) string) error {
	found, err := l.Instances(p.frame(), p.Limit, 0)
	if err != nil {
		return err
	}
	var probs, scores, boxes []float32
	var labels, queries []int
	var masks []bool
	for _, in := range found {
		probs, scores, boxes = append(probs, in.Prob), append(scores, in.Score), append(boxes, in.Box[:]...)
		labels, queries, masks = append(labels, in.Label), append(queries, in.Query), append(masks, in.Mask...)
	}
	if mid := "mid." + named("class_prob"); c.Has(mid) && c.hasTolerance(mid) {
		c.Compare(mid, probs)
	}
	c.Compare("out."+named("scores"), scores)
	c.Compare("out."+named("labels"), labels)
	c.Compare("out."+named("queries"), queries)
	c.Compare("out."+named("boxes"), boxes)
	c.Compare("out."+named("masks"), masks)
	return nil
}

// mask2formerPost compares post-processing alone.
func mask2formerPost(c *Case) error {
	var params instanceParams
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	l := mask2former.Logits{Classes: params.Classes}
	var err error
	if l.Class, err = c.Float32("in.class_logits"); err != nil {
		return err
	}
	if l.Mask, err = c.Float32("in.mask_logits"); err != nil {
		return err
	}
	class, mask := c.Shape("in.class_logits"), c.Shape("in.mask_logits")
	if len(class) != 2 || len(mask) != 3 {
		return fmt.Errorf("class logits are %v, mask logits %v, want [queries, classes + 1] and [queries, h, w]", class, mask)
	}
	if l.Queries, l.Height, l.Width = mask[0], mask[1], mask[2]; l.Classes == 0 {
		l.Classes = class[1] - 1
	}
	if c.Has("mid.masks_original") {
		var all []float32
		for q := range l.Queries {
			all = append(all, l.OriginalMask(q, params.frame())...)
		}
		c.Compare("mid.masks_original", all)
	}
	return compareInstances(c, l, params, func(name string) string { return name })
}

// detectorInput compares resizing, normalisation and padding.
func detectorInput(c *Case) error {
	var params struct {
		Cases []struct {
			Index   int
			Long    int    `json:"scale_long"`
			Short   int    `json:"scale_short"`
			Resized [2]int `json:"resized_hw"`
			Padded  [2]int `json:"padded_hw"`
		}
		Mean, Std [3]float32
		Pad       float32 `json:"pad_value_after_normalisation"`
		Divisor   int
	}
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	if params.Divisor < 1 {
		return fmt.Errorf("params: divisor %d", params.Divisor)
	}
	for _, item := range params.Cases {
		name := func(prefix string) string { return fmt.Sprintf("%s_%d", prefix, item.Index) }
		img, err := caseImage(c, name("in.image"))
		if err != nil {
			return err
		}
		w, h := mask2former.FitSize(img.Rect.Dx(), img.Rect.Dy(), item.Long, item.Short)
		c.CompareExact("resized_hw", name("image"), [2]int{h, w}, item.Resized)
		resized := mask2former.ResizeOpenCV(img, w, h)
		c.Compare(name("out.resized"), colours(resized))
		pixels, height, width := mask2former.Pixels(resized, mask2former.Normalisation{Mean: params.Mean, Std: params.Std}, params.Divisor, params.Pad)
		c.CompareExact("padded_hw", name("image"), [2]int{height, width}, item.Padded)
		if out := name("out.pixel_values"); c.Has(out) {
			c.Compare(out, planes(pixels))
		}
	}
	return nil
}

// hfParams are those of transformers' own instance post-processing, which GenEval does not use.
type hfParams struct {
	Target   [2]int                   `json:"target_hw"`
	Segments []map[string][]hfSegment `json:"segments"` // by image, then by threshold
}

type hfSegment struct {
	ID    int     `json:"id"`
	Label int     `json:"label_id"`
	Score float64 `json:"score"`
}

// hfThresholds by their names in params and the output that each makes.
var hfThresholds = []struct {
	name, output string
	value        float32
}{{"threshold_0", "out.hf_binary_maps", 0}, {"threshold_0_3", "out.hf_segmentation", .3}}

// hfSize is the side of the square that transformers resizes masks to, whatever the picture.
const hfSize = 384

// hfInstance is a mask at the target size.
type hfInstance struct {
	label int
	score float32
	mask  []bool
}

// compare rebuilds transformers' maps. Their order is that of a partition in its library and decides about nothing but
// numbers and overlaps: it is taken from the case's list of segments, after each segment was found among ours.
func (p hfParams) compare(c *Case, l mask2former.Logits, image int) error {
	found, err := p.instances(l)
	if err != nil {
		return err
	}
	if image >= len(p.Segments) {
		return fmt.Errorf("params: hf: segments of %d images, image %d is asked for", len(p.Segments), image)
	}
	for _, t := range hfThresholds {
		want, ok := p.Segments[image][t.name]
		if !ok {
			continue
		}
		var ours []hfInstance
		for _, in := range found {
			if in.score >= t.value {
				ours = append(ours, in)
			}
		}
		label := fmt.Sprintf("image %d %s", image, t.name)
		if !c.CompareExact("segments", label, len(ours), len(want)) {
			continue
		}
		ordered, ok := arrange(ours, want)
		c.Check("segments", ok, "%s: a segment's label or score is not among ours", label)
		output := fmt.Sprintf("%s_%d", t.output, image)
		if !ok || !c.Has(output) {
			continue
		}
		if t.output == "out.hf_binary_maps" {
			var maps []bool
			for _, in := range ordered {
				maps = append(maps, in.mask...)
			}
			c.Compare(output, maps)
			continue
		}
		c.Compare(output, paint(ordered, p.Target[0]*p.Target[1]))
	}
	return nil
}

// instances are the best pairs of query and class, as many as there are queries, those without an empty mask.
func (p hfParams) instances(l mask2former.Logits) ([]hfInstance, error) {
	square := mask2former.Frame{Padded: [2]int{hfSize, hfSize}, Resized: [2]int{hfSize, hfSize}, Original: [2]int{hfSize, hfSize}}
	all, err := l.Instances(square, l.Queries, 0)
	if err != nil {
		return nil, err
	}
	var out []hfInstance
	for _, in := range all {
		mask := nearest(in.Mask, hfSize, p.Target)
		empty := true
		for _, v := range mask {
			empty = empty && !v
		}
		if !empty {
			out = append(out, hfInstance{in.Label, in.Score, mask})
		}
	}
	return out, nil
}

// nearest resizes a square mask as PyTorch's mode "nearest" does: result k sees source floor(k in/out).
func nearest(mask []bool, size int, to [2]int) []bool {
	at := func(k, out int) int { return min(int(float32(k)*(float32(size)/float32(out))), size-1) }
	out := make([]bool, 0, to[0]*to[1])
	for y := range to[0] {
		for x := range to[1] {
			out = append(out, mask[at(y, to[0])*size+at(x, to[1])])
		}
	}
	return out
}

// arrange puts instances in the order of segments: each takes the instance of its label with the nearest score, which
// must not be further away than a tenth of a thousandth.
func arrange(ours []hfInstance, segments []hfSegment) ([]hfInstance, bool) {
	const scoreTolerance = 1e-4
	taken := make([]bool, len(ours))
	var out []hfInstance
	for _, s := range segments {
		best, distance := -1, math.Inf(1)
		for i, in := range ours {
			if d := math.Abs(float64(in.score) - s.Score); !taken[i] && in.label == s.Label && d < distance {
				best, distance = i, d
			}
		}
		if best < 0 || distance > scoreTolerance {
			return nil, false
		}
		taken[best] = true
		out = append(out, ours[best])
	}
	return out, true
}

// paint numbers the pixels by the last mask that covers them, -1 where there is none.
func paint(instances []hfInstance, pixels int) []int {
	out := make([]int, pixels)
	for i := range out {
		out[i] = -1
	}
	for id, in := range instances {
		for i, covered := range in.mask {
			if covered {
				out[i] = id
			}
		}
	}
	return out
}
