package mask2former

import (
	"fmt"
	"slices"
	"strings"

	"imagecot/ckpt"
	"imagecot/internal/graphx"
)

// Prefixes of transformers' names.
const (
	swinPrefix    = "model.pixel_level_module.encoder."
	pixelPrefix   = "model.pixel_level_module.decoder."
	modulePrefix  = "model.transformer_module."
	decoderPrefix = modulePrefix + "decoder."
)

// Table returns, for each weight under transformers' name, where a checkpoint keeps it: in transformers' own layout or,
// with mmdet, in that of mmdetection 2.
func Table(c Config, mmdet bool) map[string]ckpt.Source {
	t := table{}
	t.backbone(c.Swin)
	t.pixelDecoder(c)
	t.decoder(c)
	if mmdet {
		for name, source := range t {
			t[name] = mmdetSource(source)
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

func (t table) backbone(c SwinConfig) {
	t.at(swinPrefix+"embeddings.patch_embeddings.projection.weight", c.Width, 3, c.PatchSize, c.PatchSize)
	t.at(swinPrefix+"embeddings.patch_embeddings.projection.bias", c.Width)
	t.norm(swinPrefix+"embeddings.norm", c.Width)
	for i := range stages {
		n, f := c.WidthOf(i), c.FFNOf(i)
		for b := range c.Depths[i] {
			block := fmt.Sprintf("%sencoder.layers.%d.blocks.%d.", swinPrefix, i, b)
			t.norm(block+"layernorm_before", n)
			t.norm(block+"layernorm_after", n)
			for _, part := range []string{"query", "key", "value"} {
				t.at(block+"attention.self."+part+".weight", n, n)
				if c.Bias {
					t.at(block+"attention.self."+part+".bias", n)
				}
			}
			t.at(block+"attention.self.relative_position_bias_table", (2*c.Window-1)*(2*c.Window-1), c.Heads[i])
			t.linear(block+"attention.output.dense", n, n)
			t.linear(block+"intermediate.dense", n, f)
			t.linear(block+"output.dense", f, n)
		}
		t.norm(fmt.Sprintf("%shidden_states_norms.stage%d", swinPrefix, i+1), n)
		if i < stages-1 {
			merge := fmt.Sprintf("%sencoder.layers.%d.downsample.", swinPrefix, i)
			t.norm(merge+"norm", 4*n)
			t.at(merge+"reduction.weight", 2*n, 4*n)
		}
	}
}

func (t table) pixelDecoder(c Config) {
	n := c.Channels
	for i := range levels {
		projection := fmt.Sprintf("%sinput_projections.%d.", pixelPrefix, i)
		t.at(projection+"0.weight", n, c.Swin.WidthOf(stages-1-i), 1, 1)
		t.at(projection+"0.bias", n)
		t.norm(projection+"1", n)
	}
	t.at(pixelPrefix+"level_embed", levels, n)
	for i := range c.PixelLayers {
		layer := fmt.Sprintf("%sencoder.layers.%d.", pixelPrefix, i)
		t.linear(layer+"self_attn.sampling_offsets", n, c.Heads*levels*points*2)
		t.linear(layer+"self_attn.attention_weights", n, c.Heads*levels*points)
		t.linear(layer+"self_attn.value_proj", n, n)
		t.linear(layer+"self_attn.output_proj", n, n)
		t.norm(layer+"self_attn_layer_norm", n)
		t.linear(layer+"fc1", n, c.PixelFFN)
		t.linear(layer+"fc2", c.PixelFFN, n)
		t.norm(layer+"final_layer_norm", n)
	}
	t.at(pixelPrefix+"adapter_1.0.weight", n, c.Swin.Width, 1, 1)
	t.norm(pixelPrefix+"adapter_1.1", n)
	t.at(pixelPrefix+"layer_1.0.weight", n, n, 3, 3)
	t.norm(pixelPrefix+"layer_1.1", n)
	t.at(pixelPrefix+"mask_projection.weight", c.MaskChannels, n, 1, 1)
	t.at(pixelPrefix+"mask_projection.bias", c.MaskChannels)
}

func (t table) decoder(c Config) {
	n := c.Channels
	t.at(modulePrefix+"queries_features.weight", c.Queries, n)
	t.at(modulePrefix+"queries_embedder.weight", c.Queries, n)
	t.at(modulePrefix+"level_embed.weight", levels, n)
	for i := range c.DecoderLayers {
		layer := fmt.Sprintf("%slayers.%d.", decoderPrefix, i)
		t.at(layer+"cross_attn.in_proj_weight", 3*n, n)
		t.at(layer+"cross_attn.in_proj_bias", 3*n)
		t.linear(layer+"cross_attn.out_proj", n, n)
		t.norm(layer+"cross_attn_layer_norm", n)
		for _, part := range []string{"q_proj", "k_proj", "v_proj", "out_proj"} {
			t.linear(layer+"self_attn."+part, n, n)
		}
		t.norm(layer+"self_attn_layer_norm", n)
		t.linear(layer+"fc1", n, c.DecoderFFN)
		t.linear(layer+"fc2", c.DecoderFFN, n)
		t.norm(layer+"final_layer_norm", n)
	}
	t.norm(decoderPrefix+"layernorm", n)
	embedder := decoderPrefix + "mask_predictor.mask_embedder."
	t.linear(embedder+"0.0", n, n)
	t.linear(embedder+"1.0", n, n)
	t.linear(embedder+"2.0", n, c.MaskChannels)
	t.linear("class_predictor", n, c.Classes+1)
}

// mmdetNames turns transformers' names into mmdetection's, where no part of a layer is concerned.
var mmdetNames = strings.NewReplacer(
	swinPrefix+"embeddings.patch_embeddings.projection.", "backbone.patch_embed.projection.",
	swinPrefix+"embeddings.norm.", "backbone.patch_embed.norm.",
	swinPrefix+"encoder.layers.", "backbone.stages.",
	swinPrefix+"hidden_states_norms.stage1.", "backbone.norm0.", swinPrefix+"hidden_states_norms.stage2.", "backbone.norm1.",
	swinPrefix+"hidden_states_norms.stage3.", "backbone.norm2.", swinPrefix+"hidden_states_norms.stage4.", "backbone.norm3.",
	pixelPrefix+"encoder.layers.", "panoptic_head.pixel_decoder.encoder.layers.",
	pixelPrefix+"level_embed", "panoptic_head.pixel_decoder.level_encoding.weight",
	pixelPrefix+"adapter_1.0.", "panoptic_head.pixel_decoder.lateral_convs.0.conv.",
	pixelPrefix+"adapter_1.1.", "panoptic_head.pixel_decoder.lateral_convs.0.gn.",
	pixelPrefix+"layer_1.0.", "panoptic_head.pixel_decoder.output_convs.0.conv.",
	pixelPrefix+"layer_1.1.", "panoptic_head.pixel_decoder.output_convs.0.gn.",
	pixelPrefix+"mask_projection.", "panoptic_head.pixel_decoder.mask_feature.",
	modulePrefix+"queries_features.", "panoptic_head.query_feat.", modulePrefix+"queries_embedder.", "panoptic_head.query_embed.",
	modulePrefix+"level_embed.", "panoptic_head.level_embed.",
	decoderPrefix+"layers.", "panoptic_head.transformer_decoder.layers.",
	decoderPrefix+"layernorm.", "panoptic_head.transformer_decoder.post_norm.",
	decoderPrefix+"mask_predictor.mask_embedder.0.0.", "panoptic_head.mask_embed.0.",
	decoderPrefix+"mask_predictor.mask_embedder.1.0.", "panoptic_head.mask_embed.2.",
	decoderPrefix+"mask_predictor.mask_embedder.2.0.", "panoptic_head.mask_embed.4.",
	"class_predictor.", "panoptic_head.cls_embed.",
)

// mmdetParts turns the names within a layer, by the layer's kind.
var mmdetParts = map[string]*strings.Replacer{
	swinPrefix: strings.NewReplacer(
		".layernorm_before.", ".norm1.", ".layernorm_after.", ".norm2.", ".attention.output.dense.", ".attn.w_msa.proj.",
		".attention.self.relative_position_bias_table", ".attn.w_msa.relative_position_bias_table",
		".intermediate.dense.", ".ffn.layers.0.0.", ".output.dense.", ".ffn.layers.1.",
	),
	pixelPrefix: strings.NewReplacer(
		".self_attn.", ".attentions.0.", ".self_attn_layer_norm.", ".norms.0.", ".final_layer_norm.", ".norms.1.",
		".fc1.", ".ffns.0.layers.0.0.", ".fc2.", ".ffns.0.layers.1.",
	),
	decoderPrefix: strings.NewReplacer(
		".cross_attn.", ".attentions.0.attn.", ".cross_attn_layer_norm.", ".norms.0.",
		".self_attn.", ".attentions.1.attn.", ".self_attn_layer_norm.", ".norms.1.", ".final_layer_norm.", ".norms.2.",
		".fc1.", ".ffns.0.layers.0.0.", ".fc2.", ".ffns.0.layers.1.",
	),
}

// mmdetSource says how mmdetection keeps the weight that transformers keeps at s.
func mmdetSource(s ckpt.Source) ckpt.Source {
	if fused, ok := fusedSource(s); ok {
		return fused
	}
	out := ckpt.Source{Name: s.Name, Shape: s.Shape}
	if rest, ok := strings.CutPrefix(s.Name, pixelPrefix+"input_projections."); ok {
		rest = strings.Replace(strings.Replace(rest, ".0.", ".conv.", 1), ".1.", ".gn.", 1)
		out.Name = "panoptic_head.pixel_decoder.input_convs." + rest
		return out
	}
	for prefix, parts := range mmdetParts {
		if rest, ok := strings.CutPrefix(s.Name, prefix); ok && strings.Contains(rest, "layers.") {
			out.Name = parts.Replace(mmdetNames.Replace(s.Name))
			break
		}
	}
	if out.Name == s.Name {
		out.Name = mmdetNames.Replace(s.Name)
	}
	if strings.Contains(s.Name, ".downsample.") {
		out.Take = mergeOrder(s.Shape)
	}
	return out
}

// fusedSource finds the parts of queries, keys and values, which mmdetection keeps in one tensor.
func fusedSource(s ckpt.Source) (ckpt.Source, bool) {
	for _, kind := range []struct {
		parts      []string
		middle, as string
	}{
		{[]string{"query", "key", "value"}, ".attention.self.", ".attn.w_msa.qkv."},
		{[]string{"q_proj", "k_proj", "v_proj"}, ".self_attn.", ".attentions.1.attn.in_proj_"},
	} {
		for i, part := range kind.parts {
			before, rest, ok := strings.Cut(s.Name, kind.middle+part+".")
			if !ok {
				continue
			}
			fused := slices.Clone(s.Shape)
			fused[0] *= 3
			return ckpt.Source{Name: mmdetNames.Replace(before) + kind.as + rest, Shape: fused, Take: ckpt.Part(i, 3, fused)}, true
		}
	}
	return ckpt.Source{}, false
}

// mergeOrder puts the 4C inputs of a patch merging in order: mmdetection's are channel by channel, each with its pixels
// (0,0), (0,1), (1,0), (1,1) as (row, column); ours are pixel by pixel, column first, each with its channels.
func mergeOrder(shape []int) func([]float32) ([]float32, []int) {
	return func(flat []float32) ([]float32, []int) {
		inputs := shape[len(shape)-1]
		channels := inputs / 4
		out := make([]float32, len(flat))
		for i := range out {
			row, at := i/inputs, i%inputs
			pixel := [4]int{0, 2, 1, 3}[at/channels]
			out[i] = flat[row*inputs+at%channels*4+pixel]
		}
		return out, shape
	}
}

// ignored are buffers, and norms that transformers keeps without using them.
func ignored(name string) bool {
	return strings.HasSuffix(name, "relative_position_index") || strings.HasPrefix(name, "criterion.") ||
		strings.HasPrefix(name, swinPrefix+"layernorm.") || strings.HasPrefix(name, swinPrefix+"swin.layernorm.") ||
		strings.HasPrefix(name, "panoptic_head.loss_")
}

// LoadWeights reads a checkpoint of either layout under transformers' names. Every weight must be there in its shape and
// nothing unknown may be; the error names the first few faults and guesses at the cause.
func LoadWeights(c Config, f *ckpt.File) (*graphx.Weights, error) {
	shape := func(name string) []int { info, _ := f.Info(name); return info.Shape }
	mmdet := shape("backbone.patch_embed.projection.weight") != nil
	all, err := f.LoadTable(Table(c, mmdet), ignored)
	if err == nil {
		return graphx.NewWeights(all), nil
	}
	head := shape("class_predictor.weight")
	if mmdet {
		head = shape("panoptic_head.cls_embed.weight")
	}
	guess := "another architecture?"
	switch {
	case len(head) == 2 && head[0] != c.Classes+1:
		guess = fmt.Sprintf("%d classes and none instead of %d: a panoptic or semantic model?", head[0]-1, c.Classes)
	case len(head) == 2:
		guess = "does config.json belong to this checkpoint?"
	}
	return nil, fmt.Errorf("mask2former: weights: %w (%s)", err, guess)
}
