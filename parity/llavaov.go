package parity

import (
	"context"
	"errors"
	"fmt"
	"image"
	"math"
	"os"
	"slices"
	"sort"
	"strings"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/internal/graphx"
	"imagecot/models/llavaov"
	"imagecot/models/nn"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
)

func init() {
	register("siglip", siglip)
	register("qwen2", qwen2)
	register("llavaov-judge", llavaovJudge)
	register("llavaov-pack", llavaovPack)
	register("llava-image", llavaImage)
}

// caseWeights reads model.safetensors under its own names.
func caseWeights(c *Case) (*graphx.Weights, error) {
	f, err := c.Model()
	if err != nil {
		return nil, err
	}
	all, err := f.Tensors()
	if err != nil {
		return nil, err
	}
	return graphx.NewWeights(all), nil
}

// runNamed runs a graph function of some inputs and compares each result whose name the case expects.
func runNamed(be compute.Backend, c *Case, w *graphx.Weights, inputs []any, build func(s graphx.Scope, in []*graph.Node, show func(string, *graph.Node))) error {
	var names []string
	p, err := graphx.NewProgram(be, c.Kind, w, graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		names = nil
		var nodes []*graph.Node
		build(s, in, func(name string, x *graph.Node) {
			if c.Has(name) {
				names, nodes = append(names, name), append(nodes, x)
			}
		})
		return nodes
	})
	if err != nil {
		return err
	}
	out, err := p.Run(inputs...)
	if err != nil {
		return err
	}
	for i, name := range names {
		c.Compare(name, out[i])
	}
	graphx.Free(out...)
	return nil
}

func siglip(_ context.Context, be compute.Backend, c *Case) error {
	var params struct {
		Select int `json:"select_layer"`
	}
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	v, err := llavaov.LoadVisionConfig(c.Config)
	if err != nil {
		return err
	}
	w, err := caseWeights(c)
	if err != nil {
		return err
	}
	pixels, err := c.IO.Tensor("in.pixel_values")
	if err != nil {
		return err
	}
	return runNamed(be, c, w, []any{pixels}, func(s graphx.Scope, in []*graph.Node, show func(string, *graph.Node)) {
		s = s.In("vision_model")
		tiles := graph.TransposeAllDims(in[0], 0, 2, 3, 1)
		show("out.features", llavaov.Tower(s, v, params.Select, tiles, nil))
		h := llavaov.Tower(s, v, v.NumHiddenLayers, tiles, func(name string, x *graph.Node) { show("mid."+name, x) })
		h = nn.LayerNorm(s.In("post_layernorm"), h, v.LayerNormEps)
		show("out.last_hidden_state", h)
		if c.Has("out.pooler") {
			show("out.pooler", pool(s.In("head"), v, h))
		}
	})
}

// pool is SigLIP's pooling head, which LLaVA-OneVision leaves out: a learned query looks at all patches.
func pool(s graphx.Scope, v llavaov.VisionConfig, h *graph.Node) *graph.Node {
	d, size := h.Shape().Dimensions, v.HiddenSize
	probe := graph.BroadcastToDims(s.Float32("probe", 1, 1, size), d[0], 1, size)
	weight, bias := s.Float32("attention.in_proj_weight", 3*size, size), s.Float32("attention.in_proj_bias", 3*size)
	project := func(i int, x *graph.Node) *graph.Node {
		y := nn.MatMulT(s, x, graph.Slice(weight, graph.AxisRange(i*size, (i+1)*size), graph.AxisRange()))
		y = graph.Add(y, graph.ExpandLeftToRank(graph.Slice(bias, graph.AxisRange(i*size, (i+1)*size)), 3))
		return nn.SplitHeads(y, v.NumAttentionHeads)
	}
	a := nn.Attention(project(0, probe), project(1, h), project(2, h), nil, 1/math.Sqrt(float64(size/v.NumAttentionHeads)))
	x := nn.Linear(s.In("attention", "out_proj"), nn.MergeHeads(a))
	m := nn.GELUTanh(nn.Linear(s.In("mlp", "fc1"), nn.LayerNorm(s.In("layernorm"), x, v.LayerNormEps)))
	return graph.Squeeze(graph.Add(x, nn.Linear(s.In("mlp", "fc2"), m)), 1)
}

func qwen2(_ context.Context, be compute.Backend, c *Case) error {
	t, err := llavaov.LoadTextConfig(c.Config)
	if err != nil {
		return err
	}
	w, err := caseWeights(c)
	if err != nil {
		return err
	}
	for _, side := range []string{"right", "left"} {
		var in []any
		for _, name := range []string{"input_ids", "attention_mask", "position_ids"} {
			x, err := c.IO.Tensor("in." + side + "." + name)
			if err != nil {
				return err
			}
			in = append(in, x)
		}
		err := runNamed(be, c, w, in, func(s graphx.Scope, in []*graph.Node, show func(string, *graph.Node)) {
			real := graph.ConvertDType(in[1], dtypes.Float32)
			rows := func(name string, x *graph.Node) { // padded rows are 0 in the case
				show(name, graph.Mul(x, graph.BroadcastToShape(graph.InsertAxes(real, -1), x.Shape())))
			}
			m := s.In("model")
			h := llavaov.Decode(m, t, llavaov.Embed(m, in[0]), in[2], llavaov.PaddedMask(in[1]), func(name string, x *graph.Node) { rows("mid."+side+"."+name, x) })
			rows("out."+side+".logits", llavaov.Logits(s, h, 0))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// judgeParams are the params of llavaov-judge.
type judgeParams struct {
	Aspect string `json:"image_aspect_ratio"`
	Images map[string]struct {
		File     string `json:"file"`
		Rows     int    `json:"image_tokens"`
		Tiles    int    `json:"tiles"`
		Geometry *struct {
			Best, Resized, Paste, Tiles [2]int
		} `json:"geometry"`
	} `json:"images"`
	Tokenizer string  `json:"tokenizer"`
	ImageID   int32   `json:"image_token_id"`
	YesIDs    []int32 `json:"yes_ids"`
	NoIDs     []int32 `json:"no_ids"`
	Questions map[string]struct {
		Image  string `json:"image"`
		Text   string `json:"text"`
		Length int    `json:"length"`
	} `json:"questions"`
	Batch []string `json:"batch"`
	Gen   struct {
		Question  string `json:"question"`
		NewTokens int    `json:"new_tokens"`
		Text      string `json:"text"`
	} `json:"gen"`
}

// judgeRun is a llavaov-judge case on its way.
type judgeRun struct {
	c      *Case
	be     compute.Backend
	params judgeParams
	model  *llavaov.Model
	w      *graphx.Weights
	rows   map[string][]float32      // by image
	begun  map[string]*llavaov.State // by question: after the image rows
	rest   map[string][]int32        // by question: ids after the image
	final  map[string]*llavaov.State // by question
	cut    map[string][][]int32      // by question: rest, cut into turns by the chat template
}

func llavaovJudge(ctx context.Context, be compute.Backend, c *Case) error {
	r := judgeRun{
		c: c, be: be, rows: map[string][]float32{}, begun: map[string]*llavaov.State{}, rest: map[string][]int32{},
		final: map[string]*llavaov.State{}, cut: map[string][][]int32{},
	}
	if err := c.DecodeParams(&r.params); err != nil {
		return err
	}
	cfg, err := llavaov.LoadConfig(c.Config)
	if err != nil {
		return err
	}
	f, err := c.Model()
	if err != nil {
		return err
	}
	if r.w, err = llavaov.LoadWeightsFor(cfg, f, ckpt.Place{Engine: be, Float: c.Float}); err != nil {
		return err
	}
	if r.model, err = llavaov.NewModel(be, cfg, r.w, 2, 0); err != nil {
		return err
	}
	for _, name := range sortedKeys(r.params.Images) {
		if err := r.image(ctx, name); err != nil {
			return err
		}
	}
	if err := r.chat(); err != nil {
		return err
	}
	for _, name := range sortedKeys(r.params.Questions) {
		if err := r.question(ctx, name); err != nil {
			return err
		}
	}
	return errors.Join(r.batch(ctx), r.generate(ctx))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// image compares pixels, tower, projector and packed rows.
func (r *judgeRun) image(ctx context.Context, name string) error {
	want := r.params.Images[name]
	img, err := readImage(r.c, want.File)
	if err != nil {
		return err
	}
	cfg := r.model.Config()
	tiles, g, err := cfg.Tiles(img, r.params.Aspect)
	if err != nil {
		return err
	}
	if q := want.Geometry; q != nil {
		got := [4][2]int{g.Best, g.Resized, g.Paste, g.Tiles}
		r.c.CompareExact("geometry", name, got, [4][2]int{q.Best, q.Resized, q.Paste, q.Tiles})
	}
	r.c.Compare("out."+name+".pixel_values", channelsFirst(tiles, 0, 1, 0, 1))
	size := cfg.Vision.ImageSize
	var pixels []float32
	for _, t := range tiles {
		pixels = llavaov.AppendPixels(pixels, t)
	}
	err = runNamed(r.be, r.c, r.w, []any{graphx.Tensor(pixels, len(tiles), size, size, 3)}, func(s graphx.Scope, in []*graph.Node, show func(string, *graph.Node)) {
		h := llavaov.Tower(s.In("model", "vision_tower", "vision_tower", "vision_model"), cfg.Vision, cfg.TowerLayers, in[0], nil)
		show("mid."+name+".vision_features", h)
		show("mid."+name+".projected", llavaov.Project(s.In("model", "mm_projector"), h))
	})
	if err != nil {
		return err
	}
	rows, err := r.model.ImageRows(ctx, []image.Image{img}, r.params.Aspect)
	if err != nil {
		return err
	}
	r.rows[name] = rows[0]
	r.c.Compare("out."+name+".image_features", rows[0])
	return nil
}

// chat cuts the questions' ids at the image and, where the case's tokenizer is at hand, compares the chat template's ids
// and answer tokens with them.
func (r *judgeRun) chat() error {
	var chat *llavaov.Chat
	data, err := os.ReadFile(r.c.Path(r.params.Tokenizer))
	switch {
	case r.params.Tokenizer == "" || errors.Is(err, os.ErrNotExist): // ids alone
	case err != nil:
		return err
	default:
		tok, err := bpe.Load(data)
		if err != nil {
			return err
		}
		if chat, err = llavaov.NewChat(tok); err != nil {
			return err
		}
		yes, no, err := chat.Verdicts(false)
		if err != nil {
			return err
		}
		r.c.CompareExact("verdict ids", "yes", sorted(yes), sorted(r.params.YesIDs))
		r.c.CompareExact("verdict ids", "no", sorted(no), sorted(r.params.NoIDs))
		if r.params.Gen.Text != "" {
			ids, err := r.c.Int32("out.gen.ids")
			if err != nil {
				return err
			}
			r.c.CompareExact("gen.text", "decoded", tok.Decode(ids, false), r.params.Gen.Text)
		}
	}
	for _, name := range sortedKeys(r.params.Questions) {
		ids, err := r.c.Int32("in." + name + ".input_ids")
		if err != nil {
			return err
		}
		at := slices.Index(ids, r.params.ImageID)
		if at < 0 {
			return fmt.Errorf("question %s holds no image token %d", name, r.params.ImageID)
		}
		r.rest[name] = ids[at+1:]
		r.cut[name] = [][]int32{ids[at+1:]}
		if chat == nil {
			continue
		}
		after, text, ok := splitChat(r.params.Questions[name].Text)
		if !ok {
			continue
		}
		turns, err := chat.Turns(after, text)
		if err != nil {
			return err
		}
		r.cut[name] = turns
		r.c.CompareExact("chat ids", name+" before the image", chat.Before(), ids[:at])
		r.c.CompareExact("chat ids", name, slices.Concat(turns...), ids[at+1:])
	}
	return nil
}

func sorted(ids []int32) []int32 {
	out := slices.Clone(ids)
	slices.Sort(out)
	return out
}

// splitChat takes a rendered conversation apart; ok is false if it is not in the template qwen_1_5.
func splitChat(text string) (after []cot.Turn, last string, ok bool) {
	_, text, ok = strings.Cut(text, "<|im_start|>user\n<image> ")
	if !ok {
		return nil, "", false
	}
	parts := strings.Split(text, "<|im_end|>\n<|im_start|>assistant\n")
	if len(parts) < 2 || parts[len(parts)-1] != "" {
		return nil, "", false
	}
	question := parts[0]
	for _, p := range parts[1 : len(parts)-1] {
		answer, next, found := strings.Cut(p, "<|im_end|>\n<|im_start|>user\n")
		if !found {
			return nil, "", false
		}
		after = append(after, cot.Turn{Text: question, Answer: answer})
		question = next
	}
	return after, question, true
}

// question asks in one piece, and then turn by turn as a judge does.
func (r *judgeRun) question(ctx context.Context, name string) error {
	q := r.params.Questions[name]
	rows, ok := r.rows[q.Image]
	if !ok {
		return fmt.Errorf("question %s is about image %q, which is not there", name, q.Image)
	}
	ids, err := r.c.Int32("in." + name + ".input_ids")
	if err != nil {
		return err
	}
	begun, err := r.model.Begin(ctx, ids[:len(ids)-len(r.rest[name])-1], [][]float32{rows})
	if err != nil {
		return err
	}
	r.begun[name] = begun[0]
	for _, turns := range [][][]int32{{r.rest[name]}, r.cut[name]} {
		s := begun[0]
		for _, turn := range turns {
			next, err := r.model.Extend(ctx, []*llavaov.State{s}, [][]int32{turn})
			if err != nil {
				return err
			}
			s = next[0]
		}
		r.final[name] = s
		r.c.CompareExact("length", name, s.Len(), q.Length)
		r.c.Compare("out."+name+".last_logits", s.Logits)
		r.c.Compare("out."+name+".logp_yes_no", r.verdict(s))
	}
	return nil
}

func (r *judgeRun) verdict(s *llavaov.State) []float64 {
	return []float64{llavaov.LogP(s.Logits, r.params.YesIDs), llavaov.LogP(s.Logits, r.params.NoIDs)}
}

// batch asks several questions at once.
func (r *judgeRun) batch(ctx context.Context) error {
	if len(r.params.Batch) == 0 {
		return nil
	}
	var parents []*llavaov.State
	var ids [][]int32
	for _, name := range r.params.Batch {
		parents, ids = append(parents, r.begun[name]), append(ids, r.rest[name])
	}
	states, err := r.model.Extend(ctx, parents, ids)
	if err != nil {
		return err
	}
	var logits []float32
	var verdicts []float64
	for _, s := range states {
		logits, verdicts = append(logits, s.Logits...), append(verdicts, r.verdict(s)...)
	}
	r.c.Compare("out.batch.last_logits", logits)
	r.c.Compare("out.batch.logp_yes_no", verdicts)
	return nil
}

// generate continues a question greedily; nothing stops it.
func (r *judgeRun) generate(ctx context.Context) error {
	s := r.final[r.params.Gen.Question]
	if s == nil {
		return nil
	}
	ids, logits, err := r.model.Greedy(ctx, s, r.params.Gen.NewTokens, nil)
	if err != nil {
		return err
	}
	r.c.Compare("out.gen.ids", ids)
	r.c.Compare("out.gen.top1_logit", logits)
	return nil
}
