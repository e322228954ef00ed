package llavaov

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/ckpt/ckpttest"
)

const (
	authors05 = `{"architectures":["LlavaQwenForCausalLM"],"model_type":"llava","hidden_size":896,"intermediate_size":4864,"num_hidden_layers":24,
		"num_attention_heads":14,"num_key_value_heads":2,"vocab_size":151936,"tie_word_embeddings":true,"rms_norm_eps":1e-6,"rope_theta":1000000.0,
		"mm_vision_tower":"google/siglip-so400m-patch14-384","mm_projector_type":"mlp2x_gelu","mm_patch_merge_type":"spatial_unpad",
		"mm_vision_select_layer":-2,"mm_vision_select_feature":"patch","image_aspect_ratio":"anyres_max_9","image_grid_pinpoints":"(1x1),...,(6x6)"}`
	authors7 = `{"model_type":"llava","hidden_size":3584,"intermediate_size":18944,"num_hidden_layers":28,"num_attention_heads":28,
		"num_key_value_heads":4,"vocab_size":152064,"tie_word_embeddings":false,"rms_norm_eps":1e-6,"rope_theta":1000000.0,
		"mm_projector_type":"mlp2x_gelu","image_aspect_ratio":"anyres_max_9"}`
	hf05 = `{"architectures":["LlavaOnevisionForConditionalGeneration"],"model_type":"llava_onevision","vision_feature_layer":-1,
		"text_config":{"model_type":"qwen2","hidden_size":896,"intermediate_size":4864,"num_hidden_layers":24,"num_attention_heads":14,
		"num_key_value_heads":2,"vocab_size":152000,"tie_word_embeddings":true,"rms_norm_eps":1e-6,"rope_theta":1000000.0},
		"vision_config":{"model_type":"siglip_vision_model","hidden_size":1152,"intermediate_size":4304,"num_hidden_layers":26,
		"num_attention_heads":16,"image_size":384,"patch_size":14,"vision_use_head":false},"image_token_index":151646,
		"vision_aspect_ratio":"anyres_max_9","tie_word_embeddings":false}`
)

// sharded writes shapes as n shards and their index, and opens them.
func sharded(t *testing.T, shapes map[string][]int, n int) *ckpt.File {
	t.Helper()
	dir := t.TempDir()
	parts := make([]map[string][]int, n)
	var index []string
	for i, name := range slices.Sorted(maps.Keys(shapes)) {
		k := i * n / len(shapes)
		if parts[k] == nil {
			parts[k] = map[string][]int{}
		}
		parts[k][name] = shapes[name]
		index = append(index, fmt.Sprintf("%q:\"model-%05d-of-%05d.safetensors\"", name, k+1, n))
	}
	for k, part := range parts {
		if err := ckpttest.Sparse(filepath.Join(dir, fmt.Sprintf("model-%05d-of-%05d.safetensors", k+1, n)), part, ckpt.BF16); err != nil {
			t.Skipf("no room for a sparse file: %v", err)
		}
	}
	text := `{"metadata":{"total_size":1},"weight_map":{` + strings.Join(index, ",") + "}}"
	if err := os.WriteFile(filepath.Join(dir, ckpt.IndexFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ckpt.OpenModel(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Checkpoints of full size in four shards (their zeros take no room on the disk), in every naming scheme.
func TestOfficialFiles(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		head   bool
		params int // of the published file; 0: not known
	}{
		"0.5B, authors": {authors05, false, 893_618_208}, "7B, authors": {authors7, true, 8_030_348_832}, "0.5B, transformers": {hf05, true, 0},
	} {
		cfg, err := LoadConfig([]byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		shapes := Shapes(cfg)
		for _, part := range []string{"weight", "bias"} { // in the files, read by nobody
			shapes[towerPrefix+"post_layernorm."+part] = []int{1152}
		}
		if c.head {
			shapes[headName] = shapes[embedName]
		}
		total := 0
		for _, s := range shapes {
			total += ckpt.Info{Shape: s}.Size()
		}
		if c.params != 0 && total != c.params {
			t.Errorf("%s: %d parameters, want %d", name, total, c.params)
		}
		for scheme, rename := range schemes() {
			renamed := map[string][]int{}
			for n, s := range shapes {
				renamed[rename(n)] = s
			}
			if err := CheckFile(cfg, sharded(t, renamed, 4)); err != nil {
				t.Errorf("%s, %s: %v", name, scheme, err)
			}
		}
	}
}

// A wrong checkpoint is named by its likely cause.
func TestGuesses(t *testing.T) {
	cfg, err := LoadConfig([]byte(authors05))
	if err != nil {
		t.Fatal(err)
	}
	position := towerPrefix + "embeddings.position_embedding.weight"
	for name, c := range map[string]struct {
		change func(shapes map[string][]int)
		want   string
	}{
		"CLIP tower": {func(s map[string][]int) {
			s[towerPrefix+"embeddings.class_embedding"], s[position] = []int{1024}, []int{577, 1024}
		}, "a CLIP tower where SigLIP is expected"},
		"another resolution": {func(s map[string][]int) { s[position] = []int{256, 1152} }, "a tower for images of about 224 pixels where 384 are expected"},
		"512 pixels":         {func(s map[string][]int) { s[position] = []int{36 * 36, 1152} }, "about 504 pixels where 384"},
		"7B":                 {func(s map[string][]int) { s[embedName] = []int{152064, 3584} }, "a decoder of width 3584, config.json says 896"},
	} {
		shapes := Shapes(cfg)
		c.change(shapes)
		if err := CheckFile(cfg, sharded(t, shapes, 1)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want a guess of %q", name, err, c.want)
		}
	}
}
