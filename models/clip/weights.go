package clip

import (
	"fmt"
	"slices"
	"strings"

	"imagecot/ckpt"
	"imagecot/internal/graphx"
)

// Table returns, for each weight under transformers' name, where a checkpoint keeps it: in transformers' own layout or,
// with open, in open_clip's.
func Table(c Config, open bool) map[string]ckpt.Source {
	t := table{}
	v, x := c.Vision, c.Text
	grid := v.Grid()
	t.at("logit_scale")
	t.at("text_model.embeddings.token_embedding.weight", x.VocabSize, x.HiddenSize)
	t.at("text_model.embeddings.position_embedding.weight", x.Context, x.HiddenSize)
	t.at("vision_model.embeddings.class_embedding", v.HiddenSize)
	t.at("vision_model.embeddings.patch_embedding.weight", v.HiddenSize, v.Channels, v.PatchSize, v.PatchSize)
	t.at("vision_model.embeddings.position_embedding.weight", 1+grid*grid, v.HiddenSize)
	t.norm("text_model.final_layer_norm", x.HiddenSize)
	t.norm("vision_model.pre_layrnorm", v.HiddenSize)
	t.norm("vision_model.post_layernorm", v.HiddenSize)
	t.at("text_projection.weight", c.ProjectionDim, x.HiddenSize)
	t.at("visual_projection.weight", c.ProjectionDim, v.HiddenSize)
	t.layers("text_model.encoder.layers.", x.TowerConfig)
	t.layers("vision_model.encoder.layers.", v.TowerConfig)
	if open {
		for name, source := range t {
			t[name] = openSource(source)
		}
	}
	return t
}

type table map[string]ckpt.Source

func (t table) at(name string, shape ...int) { t[name] = ckpt.Source{Name: name, Shape: shape} }

func (t table) norm(name string, n int) {
	t.at(name+".weight", n)
	t.at(name+".bias", n)
}

func (t table) linear(name string, in, out int) {
	t.at(name+".weight", out, in)
	t.at(name+".bias", out)
}

func (t table) layers(prefix string, c TowerConfig) {
	for i := range c.NumHiddenLayers {
		layer := fmt.Sprintf("%s%d.", prefix, i)
		t.norm(layer+"layer_norm1", c.HiddenSize)
		t.norm(layer+"layer_norm2", c.HiddenSize)
		for _, part := range []string{"q_proj", "k_proj", "v_proj", "out_proj"} {
			t.linear(layer+"self_attn."+part, c.HiddenSize, c.HiddenSize)
		}
		t.linear(layer+"mlp.fc1", c.HiddenSize, c.IntermediateSize)
		t.linear(layer+"mlp.fc2", c.IntermediateSize, c.HiddenSize)
	}
}

// openNames turns transformers' names into open_clip's.
var openNames = strings.NewReplacer(
	"vision_model.embeddings.class_embedding", "visual.class_embedding",
	"vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight",
	"vision_model.embeddings.position_embedding.weight", "visual.positional_embedding",
	"vision_model.pre_layrnorm.", "visual.ln_pre.",
	"vision_model.post_layernorm.", "visual.ln_post.",
	"vision_model.encoder.layers.", "visual.transformer.resblocks.",
	"visual_projection.weight", "visual.proj",
	"text_model.embeddings.token_embedding.weight", "token_embedding.weight",
	"text_model.embeddings.position_embedding.weight", "positional_embedding",
	"text_model.final_layer_norm.", "ln_final.",
	"text_model.encoder.layers.", "transformer.resblocks.",
	"text_projection.weight", "text_projection",
	".layer_norm1.", ".ln_1.", ".layer_norm2.", ".ln_2.",
	".self_attn.out_proj.", ".attn.out_proj.",
	".mlp.fc1.", ".mlp.c_fc.", ".mlp.fc2.", ".mlp.c_proj.",
)

// openSource says how open_clip keeps the weight that transformers keeps at s: queries, keys and values in one tensor,
// and the two projections transposed.
func openSource(s ckpt.Source) ckpt.Source {
	for i, part := range []string{"q_proj", "k_proj", "v_proj"} {
		if before, kind, ok := strings.Cut(s.Name, ".self_attn."+part+"."); ok {
			fused := slices.Clone(s.Shape)
			fused[0] *= 3
			return ckpt.Source{Name: openNames.Replace(before+".") + "attn.in_proj_" + kind, Shape: fused, Take: ckpt.Part(i, 3, fused)}
		}
	}
	out := ckpt.Source{Name: openNames.Replace(s.Name), Shape: s.Shape}
	if s.Name == "text_projection.weight" || s.Name == "visual_projection.weight" {
		out.Shape = []int{s.Shape[1], s.Shape[0]}
		out.Take = ckpt.Transposed(out.Shape)
	}
	return out
}

// ignored are buffers that some files hold and nobody reads.
func ignored(name string) bool {
	return strings.HasSuffix(name, ".position_ids") ||
		slices.Contains([]string{"attn_mask", "input_resolution", "context_length", "vocab_size"}, name)
}

// LoadWeights reads a checkpoint of either layout under transformers' names. Every weight must be there in its shape and
// nothing unknown may be; the error names the first few faults and guesses at the cause.
func LoadWeights(c Config, f *ckpt.File) (*graphx.Weights, error) {
	has := func(name string) bool { _, ok := f.Info(name); return ok }
	open := has("visual.conv1.weight")
	all, err := f.LoadTable(Table(c, open), ignored)
	if err == nil {
		return graphx.NewWeights(all), nil
	}
	guess := "does config.json belong to this checkpoint?"
	switch {
	case open || has("vision_model.embeddings.class_embedding") && has("text_projection.weight"):
	case has("vision_model.embeddings.class_embedding"):
		guess = "a vision tower alone?"
	case has("vision_model.embeddings.patch_embedding.bias"):
		guess = "a SigLIP checkpoint?"
	default:
		guess = "another architecture?"
	}
	return nil, fmt.Errorf("clip: weights: %w (%s)", err, guess)
}
