package experiment

import (
	"path/filepath"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/ckpt/ckpttest"
	"imagecot/models/clip"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/models/mask2former"
	"imagecot/models/showo"
)

func shapesOf(table map[string]ckpt.Source) map[string][]int {
	out := map[string][]int{}
	for _, s := range table {
		out[s.Name] = s.Shape
	}
	return out
}

// Files of the published layouts (sparse, without weights) are told apart by their names, and every tensor finds its use.
func TestMapTensors(t *testing.T) {
	llava := llavaov.Tiny(512)
	config, err := llava.JSON()
	if err != nil {
		t.Fatal(err)
	}
	names := llavaov.Shapes(llava)
	renamed := map[string][]int{}
	for name, shape := range names {
		renamed[strings.Replace(strings.Replace(name, "model.mm_projector.0.", "multi_modal_projector.linear_1.", 1), "model.mm_projector.2.", "multi_modal_projector.linear_2.", 1)] = shape
	}
	renamed["model.vision_tower.vision_tower.vision_model.post_layernorm.bias"] = []int{128}
	generator := showo.Shapes(showo.Tiny(500, 499))
	generator["showo.stranger.weight"] = []int{1}
	delete(generator, "showo.lm_head.bias")
	generator["showo.model.final_layernorm.bias"] = []int{3}
	tokenizer := magvit.Shapes(magvit.Official())
	tokenizer["quantize.power_vals"] = []int{13}
	for _, c := range []struct {
		model   string
		shapes  map[string][]int
		config  []byte
		uses    map[string]string // some of them
		missing int
	}{
		{"LLaVA-OneVision", renamed, config, map[string]string{
			"multi_modal_projector.linear_2.bias": "model.mm_projector.2.bias", "model.image_newline": "model.image_newline",
			"model.vision_tower.vision_tower.vision_model.post_layernorm.bias": "",
		}, 0},
		{"Show-o", generator, []byte(`{"codebook_size":1024,"num_vq_tokens":64,"llm_vocab_size":500,"vocab_size":1535,"mask_token_id":1534,
			"llm_config":{"hidden_size":128,"intermediate_size":512,"num_hidden_layers":6,"num_attention_heads":4,"num_key_value_heads":4,"eos_token_id":499,"image_position_embeddings":true}}`), map[string]string{
			"showo.stranger.weight": "", "showo.model.final_layernorm.bias": "showo.model.final_layernorm.bias, which wants [128]",
		}, 1},
		{"MAGVIT-v2", tokenizer, nil, map[string]string{"encoder.conv_in.bias": "encoder.conv_in.bias", "quantize.power_vals": "the codebook, which is compared with what it must be"}, 0},
		{"CLIP", shapesOf(clip.Table(clip.ViTL14(), false)), nil, map[string]string{"text_projection.weight": "text_projection.weight"}, 0},
		{"CLIP", shapesOf(clip.Table(clip.ViTL14(), true)), nil, map[string]string{
			"visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
			"transformer.resblocks.0.attn.in_proj_bias": "text_model.encoder.layers.0.self_attn.k_proj.bias + text_model.encoder.layers.0.self_attn.q_proj.bias + " +
				"text_model.encoder.layers.0.self_attn.v_proj.bias",
		}, 0},
		{"Mask2Former", shapesOf(mask2former.Table(mask2former.SwinSmallCOCO(), true)), nil, nil, 0},
		{"Mask2Former", shapesOf(mask2former.Table(mask2former.SwinSmallCOCO(), false)), nil, nil, 0},
		{"LoRA adapter", map[string][]int{"base_model.model.a.b.lora_A.weight": {1, 2}, "base_model.model.a.b.bias": {2}}, nil, map[string]string{
			"base_model.model.a.b.lora_A.weight": "A of the change of a.b.weight", "base_model.model.a.b.bias": "in the place of a.b.bias",
		}, 0},
		{"", map[string][]int{"x": {1}}, nil, map[string]string{"x": ""}, 0},
	} {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := ckpttest.Sparse(path, c.shapes, ckpt.BF16); err != nil {
			t.Skipf("no room for a sparse file: %v", err)
		}
		f, err := ckpt.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		m := MapTensors(c.config, f)
		if m.Model != c.model || len(m.Missing) != c.missing {
			t.Errorf("%s: found %q, %d missing", c.model, m.Model, len(m.Missing))
		}
		for name, want := range c.uses {
			if got := m.Uses[name]; got != want {
				t.Errorf("%s: %s is %q, want %q", c.model, name, got, want)
			}
		}
		for name := range c.shapes {
			if _, named := c.uses[name]; !named && m.Uses[name] == "" {
				t.Errorf("%s: %s has no use", c.model, name)
			}
		}
		f.Close()
	}
}
