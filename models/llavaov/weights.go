package llavaov

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"imagecot/ckpt"
	"imagecot/internal/graphx"

	"github.com/gomlx/gomlx/core/tensors"
)

// Prefixes of the canonical names.
const (
	towerPrefix     = "model.vision_tower.vision_tower.vision_model."
	projectorPrefix = "model.mm_projector."
	newlineName     = "model.image_newline"
	headName        = "lm_head.weight"
	embedName       = "model.embed_tokens.weight"
)

// renames lists, longest first where one begins another, the prefixes of the four naming schemes and what they become.
var renames = []struct{ from, to string }{
	{towerPrefix, towerPrefix},
	{"model.vision_tower.vision_model.", towerPrefix},
	{"model.vision_tower.", towerPrefix},
	{"vision_tower.vision_model.", towerPrefix},
	{"vision_tower.", towerPrefix},
	{projectorPrefix, projectorPrefix},
	{"model.multi_modal_projector.linear_1.", projectorPrefix + "0."},
	{"model.multi_modal_projector.linear_2.", projectorPrefix + "2."},
	{"multi_modal_projector.linear_1.", projectorPrefix + "0."},
	{"multi_modal_projector.linear_2.", projectorPrefix + "2."},
	{newlineName, newlineName},
	{"image_newline", newlineName},
	{"language_model.lm_head.", "lm_head."},
	{"language_model.model.", "model."},
	{"model.language_model.", "model."},
}

// Canonical returns the authors' name of a tensor in any of the four naming schemes.
func Canonical(name string) string {
	for _, r := range renames {
		if rest, ok := strings.CutPrefix(name, r.from); ok {
			return r.to + rest
		}
	}
	return name
}

// ignored reports whether a checkpoint may hold a tensor (canonical name) that nobody reads.
func (c Config) ignored(name string) bool {
	for _, part := range []string{
		"rotary_emb.inv_freq", "embeddings.position_ids", ".vision_resampler.", "faster_token",
		towerPrefix + "post_layernorm.", towerPrefix + "head.",
	} {
		if strings.Contains(name, part) {
			return true
		}
	}
	for i := c.TowerLayers; i < c.Vision.NumHiddenLayers; i++ {
		if strings.HasPrefix(name, fmt.Sprintf("%sencoder.layers.%d.", towerPrefix, i)) {
			return true
		}
	}
	return false
}

// Shapes returns the canonical name and shape of every weight that is needed. A head of its own (lm_head.weight
// [V, D]) is not among them.
func Shapes(c Config) map[string][]int {
	t := shapeTable{}
	v, h := c.Vision, c.Vision.HiddenSize
	t[towerPrefix+"embeddings.patch_embedding.weight"] = []int{h, 3, v.PatchSize, v.PatchSize}
	t[towerPrefix+"embeddings.patch_embedding.bias"] = []int{h}
	t[towerPrefix+"embeddings.position_embedding.weight"] = []int{v.Grid() * v.Grid(), h}
	for i := range c.TowerLayers {
		layer := fmt.Sprintf("%sencoder.layers.%d.", towerPrefix, i)
		for _, norm := range []string{"layer_norm1", "layer_norm2"} {
			t[layer+norm+".weight"], t[layer+norm+".bias"] = []int{h}, []int{h}
		}
		for _, part := range []string{"q_proj", "k_proj", "v_proj", "out_proj"} {
			t.linear(layer+"self_attn."+part, h, h, true)
		}
		t.linear(layer+"mlp.fc1", h, v.IntermediateSize, true)
		t.linear(layer+"mlp.fc2", v.IntermediateSize, h, true)
	}
	d := c.Text.HiddenSize
	t.linear(projectorPrefix+"0", h, d, true)
	t.linear(projectorPrefix+"2", d, d, true)
	t[newlineName] = []int{d}
	t.decoder(c.Text)
	return t
}

type shapeTable map[string][]int

func (t shapeTable) linear(name string, in, out int, bias bool) {
	t[name+".weight"] = []int{out, in}
	if bias {
		t[name+".bias"] = []int{out}
	}
}

func (t shapeTable) decoder(c TextConfig) {
	d, kv := c.HiddenSize, c.NumKeyValueHeads*c.HeadSize()
	t[embedName] = []int{c.VocabSize, d}
	t["model.norm.weight"] = []int{d}
	for i := range c.NumHiddenLayers {
		layer := fmt.Sprintf("model.layers.%d.", i)
		t[layer+"input_layernorm.weight"], t[layer+"post_attention_layernorm.weight"] = []int{d}, []int{d}
		t.linear(layer+"self_attn.q_proj", d, d, true)
		t.linear(layer+"self_attn.k_proj", d, kv, true)
		t.linear(layer+"self_attn.v_proj", d, kv, true)
		t.linear(layer+"self_attn.o_proj", d, d, false)
		t.linear(layer+"mlp.gate_proj", d, c.IntermediateSize, false)
		t.linear(layer+"mlp.up_proj", d, c.IntermediateSize, false)
		t.linear(layer+"mlp.down_proj", c.IntermediateSize, d, false)
	}
}

// CheckFile holds names and shapes of a checkpoint in any naming scheme against the architecture, before anything of it is
// loaded. Every weight of Shapes must be there in its shape, nothing unknown may be, and no two tensors may be the same
// weight; the error names the first few faults and guesses at the cause.
func CheckFile(c Config, f *ckpt.File) error {
	_, err := match(c, f)
	return err
}

// match returns the file's name of every weight, by its canonical name.
func match(c Config, f *ckpt.File) (from map[string]string, err error) {
	shapes := Shapes(c)
	from = map[string]string{}
	var faults []string
	for _, name := range f.Names() {
		canonical := Canonical(name)
		if _, needed := shapes[canonical]; !needed && canonical != headName {
			if !c.ignored(canonical) {
				faults = append(faults, fmt.Sprintf("%q is not known", name))
			}
			continue
		}
		if twin, ok := from[canonical]; ok {
			faults = append(faults, fmt.Sprintf("%q and %q are the same weight", twin, name))
		}
		from[canonical] = name
		want := shapes[canonical]
		if canonical == headName {
			want = shapes[embedName]
		}
		if info, _ := f.Info(name); !slices.Equal(info.Shape, want) {
			faults = append(faults, fmt.Sprintf("%q has shape %v, want %v", name, info.Shape, want))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		if _, ok := from[name]; !ok {
			faults = append(faults, fmt.Sprintf("%q is missing", name))
		}
	}
	if _, ok := from[headName]; !ok && c.Tied != nil && !*c.Tied {
		faults = append(faults, fmt.Sprintf("%q is missing and config.json says tie_word_embeddings false", headName))
	}
	if len(faults) > 0 {
		return nil, faultError(faults, guess(c, from, f))
	}
	return from, nil
}

// LoadWeights reads a checkpoint in any naming scheme under canonical names, after CheckFile. A head is taken if the file
// holds one; without one config.json must not deny tying.
func LoadWeights(c Config, f *ckpt.File) (*graphx.Weights, error) {
	return LoadWeightsFor(c, f, ckpt.Place{})
}

// LoadWeightsFor is LoadWeights with the weights at their place.
func LoadWeightsFor(c Config, f *ckpt.File, place ckpt.Place) (*graphx.Weights, error) {
	from, err := match(c, f)
	if err != nil {
		return nil, err
	}
	for _, name := range from {
		if !isFloat(f, name) {
			return nil, fmt.Errorf("llavaov: weights: %q is not floating", name)
		}
	}
	loaded, err := f.TensorsFor(place, slices.Collect(maps.Values(from))...)
	if err != nil {
		return nil, fmt.Errorf("llavaov: weights: %w", err)
	}
	out := make(map[string]*tensors.Tensor, len(from))
	for canonical, name := range from {
		out[canonical] = loaded[name]
	}
	return graphx.NewWeights(out), nil
}

func isFloat(f *ckpt.File, name string) bool {
	info, _ := f.Info(name)
	return info.DType.IsFloat()
}

func faultError(faults []string, guess string) error {
	const shown = 5
	text := strings.Join(faults[:min(shown, len(faults))], ", ")
	if len(faults) > shown {
		text += fmt.Sprintf(" and %d more", len(faults)-shown)
	}
	return fmt.Errorf("llavaov: weights: %s%s", text, guess)
}

// guess says what a wrong checkpoint may be.
func guess(c Config, from map[string]string, f *ckpt.File) string {
	has := func(prefix string) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(from)), func(n string) bool { return strings.HasPrefix(n, prefix) })
	}
	for _, name := range f.Names() {
		switch {
		case strings.Contains(name, "lora_"):
			return " (a LoRA adapter? merge it into its base first)"
		case strings.Contains(name, "class_embedding") || strings.Contains(name, "pre_layrnorm"):
			return " (a CLIP tower where SigLIP is expected?)"
		}
	}
	switch {
	case len(from) == 0:
		return " (another architecture?)"
	case !has("model.layers.") && has(towerPrefix):
		return " (a vision tower alone?)"
	case !has(towerPrefix):
		return " (a language model without its vision tower?)"
	}
	shape := func(canonical string) []int {
		info, _ := f.Info(from[canonical])
		return info.Shape
	}
	if s := shape(towerPrefix + "embeddings.position_embedding.weight"); len(s) == 2 && s[1] == c.Vision.HiddenSize && s[0] != c.Vision.Grid()*c.Vision.Grid() {
		side := int(math.Round(math.Sqrt(float64(s[0]))))
		return fmt.Sprintf(" (a tower for images of about %d pixels where %d are expected?)", side*c.Vision.PatchSize, c.Vision.ImageSize)
	}
	if s := shape(embedName); len(s) == 2 && s[1] != c.Text.HiddenSize {
		return fmt.Sprintf(" (a decoder of width %d, config.json says %d: LLaVA-OneVision of another size?)", s[1], c.Text.HiddenSize)
	}
	return " (does config.json belong to this checkpoint?)"
}

// Init returns random weights to train from, with a tied head. The tensors depend on the generator's state alone.
//
//	matrices N(0, 1/fan-in), the last one of each block at half of that; biases 0, norms 1
//	words N(0, .05), newline N(0, .05)
//	positions of the tower: 2-D sinusoids times .2, a quarter of the channels each for sine and cosine of row and
//	column, angular steps log-spaced from pi down to pi 10^-1.2 a cell
func Init(c Config, rng *rand.Rand) map[string]*tensors.Tensor {
	return initialize(Shapes(c), c.Vision, rng)
}

func initialize(shapes map[string][]int, v VisionConfig, rng *rand.Rand) map[string]*tensors.Tensor {
	out := make(map[string]*tensors.Tensor, len(shapes))
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		dims := shapes[name]
		n := 1
		for _, d := range dims {
			n *= d
		}
		flat := make([]float32, n)
		std := 0.
		switch isWeight := strings.HasSuffix(name, ".weight"); {
		case strings.HasSuffix(name, "position_embedding.weight"):
			sinusoids(flat, v.Grid(), v.HiddenSize)
		case name == embedName || name == newlineName:
			std = .05
		case isWeight && len(dims) == 1:
			for i := range flat {
				flat[i] = 1
			}
		case isWeight:
			std = 1 / math.Sqrt(float64(n/dims[0]))
			if part := strings.TrimSuffix(name, ".weight"); strings.HasSuffix(part, ".o_proj") || strings.HasSuffix(part, ".out_proj") ||
				strings.HasSuffix(part, ".fc2") || strings.HasSuffix(part, ".down_proj") {
				std /= 2
			}
		}
		if std > 0 {
			for i := range flat {
				flat[i] = float32(rng.NormFloat64() * std)
			}
		}
		out[name] = graphx.Tensor(flat, dims...)
	}
	return out
}

// sinusoids fills a table [grid*grid, h] of 2-D positions.
func sinusoids(flat []float32, grid, h int) {
	const scale, decades = .2, 1.2
	quarter := h / 4
	for i := range quarter {
		step := math.Pi * math.Pow(10, -decades*float64(i)/float64(max(quarter-1, 1)))
		for row := range grid {
			for col := range grid {
				at := flat[(row*grid+col)*h:]
				at[i], at[quarter+i] = float32(scale*math.Sin(step*float64(row))), float32(scale*math.Cos(step*float64(row)))
				at[2*quarter+i], at[3*quarter+i] = float32(scale*math.Sin(step*float64(col))), float32(scale*math.Cos(step*float64(col)))
			}
		}
	}
}
