package mask2former

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/ckpt"
)

// small is an architecture whose sizes differ where they may.
func small() Config {
	return Config{
		Swin: SwinConfig{
			PatchSize: 4, Width: 8, Depths: [stages]int{2, 1, 1, 1}, Heads: [stages]int{1, 2, 2, 4}, Window: 3,
			MLPRatio: 2, LayerNormEps: 1e-5, Bias: true,
		},
		Channels: 32, MaskChannels: 16, Heads: 2, PixelLayers: 1, PixelFFN: 24, DecoderLayers: 2, DecoderFFN: 20,
		Activation: "relu", Queries: 7, Classes: 80,
	}
}

const smallConfig = `{"backbone_config":{"model_type":"swin","embed_dim":8,"depths":[2,1,1,1],"num_heads":[1,2,2,4],"window_size":3,"mlp_ratio":2},
	"feature_size":32,"mask_feature_size":16,"hidden_dim":32,"num_attention_heads":2,"encoder_layers":1,"encoder_feedforward_dim":24,
	"decoder_layers":3,"dim_feedforward":20,"num_queries":7,"id2label":{%s}}`

// random weights under transformers' names.
func random(c Config) map[string]ckpt.Tensor {
	rng := rand.New(rand.NewPCG(3, 4))
	out := map[string]ckpt.Tensor{}
	for _, name := range slices.Sorted(maps.Keys(Table(c, false))) {
		shape := Table(c, false)[name].Shape
		values := make([]float32, (ckpt.Info{Shape: shape}).Size())
		for i := range values {
			values[i] = float32(rng.NormFloat64()) / 3
		}
		out[name] = ckpt.Tensor{Name: name, DType: ckpt.F32, Shape: shape, Values: values}
	}
	return out
}

func values(t ckpt.Tensor) []float32 { return t.Values.([]float32) }

// mmdetection writes weights under transformers' names the way mmdetection does, by hand and not by the table under test.
func mmdetection(w map[string]ckpt.Tensor, c Config) map[string]ckpt.Tensor {
	out := map[string]ckpt.Tensor{}
	put := func(name string, t ckpt.Tensor) { t.Name = name; out[name] = t }
	both := func(to, from string) {
		for _, kind := range []string{".weight", ".bias"} {
			if t, ok := w[from+kind]; ok {
				put(to+kind, t)
			}
		}
	}
	fuse := func(to string, from ...string) {
		var t ckpt.Tensor
		var flat []float32
		for _, name := range from {
			t = w[name]
			flat = append(flat, values(t)...)
		}
		shape := slices.Clone(t.Shape)
		shape[0] *= len(from)
		put(to, ckpt.Tensor{DType: ckpt.F32, Shape: shape, Values: flat})
	}
	unmerge := func(to, from string) { // [4, C] with pixels (0,0) (1,0) (0,1) (1,1) to [C, 4] with (0,0) (0,1) (1,0) (1,1)
		t := w[from]
		n := t.Shape[len(t.Shape)-1]
		flat := make([]float32, len(values(t)))
		for row := range len(flat) / n {
			for channel := range n / 4 {
				for ours, theirs := range []int{0, 2, 1, 3} {
					flat[row*n+channel*4+theirs] = values(t)[row*n+ours*n/4+channel]
				}
			}
		}
		put(to, ckpt.Tensor{DType: ckpt.F32, Shape: t.Shape, Values: flat})
	}
	const swin = "model.pixel_level_module.encoder."
	both("backbone.patch_embed.projection", swin+"embeddings.patch_embeddings.projection")
	both("backbone.patch_embed.norm", swin+"embeddings.norm")
	for s := range 4 {
		for b := range c.Swin.Depths[s] {
			from, to := fmt.Sprintf("%sencoder.layers.%d.blocks.%d.", swin, s, b), fmt.Sprintf("backbone.stages.%d.blocks.%d.", s, b)
			for _, kind := range []string{"weight", "bias"} {
				self := from + "attention.self."
				fuse(to+"attn.w_msa.qkv."+kind, self+"query."+kind, self+"key."+kind, self+"value."+kind)
			}
			put(to+"attn.w_msa.relative_position_bias_table", w[from+"attention.self.relative_position_bias_table"])
			put(to+"attn.w_msa.relative_position_index", ckpt.Tensor{DType: ckpt.I64, Shape: []int{1}, Values: []int64{0}})
			both(to+"attn.w_msa.proj", from+"attention.output.dense")
			both(to+"norm1", from+"layernorm_before")
			both(to+"norm2", from+"layernorm_after")
			both(to+"ffn.layers.0.0", from+"intermediate.dense")
			both(to+"ffn.layers.1", from+"output.dense")
		}
		if s < 3 {
			for _, part := range []string{"norm.weight", "norm.bias", "reduction.weight"} {
				unmerge(fmt.Sprintf("backbone.stages.%d.downsample.%s", s, part), fmt.Sprintf("%sencoder.layers.%d.downsample.%s", swin, s, part))
			}
		}
		both(fmt.Sprintf("backbone.norm%d", s), fmt.Sprintf("%shidden_states_norms.stage%d", swin, s+1))
	}
	const pixel, theirs = "model.pixel_level_module.decoder.", "panoptic_head.pixel_decoder."
	for i := range 3 {
		both(fmt.Sprintf("%sinput_convs.%d.conv", theirs, i), fmt.Sprintf("%sinput_projections.%d.0", pixel, i))
		both(fmt.Sprintf("%sinput_convs.%d.gn", theirs, i), fmt.Sprintf("%sinput_projections.%d.1", pixel, i))
	}
	for i := range c.PixelLayers {
		from, to := fmt.Sprintf("%sencoder.layers.%d.", pixel, i), fmt.Sprintf("%sencoder.layers.%d.", theirs, i)
		for _, part := range []string{"sampling_offsets", "attention_weights", "value_proj", "output_proj"} {
			both(to+"attentions.0."+part, from+"self_attn."+part)
		}
		both(to+"norms.0", from+"self_attn_layer_norm")
		both(to+"norms.1", from+"final_layer_norm")
		both(to+"ffns.0.layers.0.0", from+"fc1")
		both(to+"ffns.0.layers.1", from+"fc2")
	}
	put(theirs+"level_encoding.weight", w[pixel+"level_embed"])
	both(theirs+"lateral_convs.0.conv", pixel+"adapter_1.0")
	both(theirs+"lateral_convs.0.gn", pixel+"adapter_1.1")
	both(theirs+"output_convs.0.conv", pixel+"layer_1.0")
	both(theirs+"output_convs.0.gn", pixel+"layer_1.1")
	both(theirs+"mask_feature", pixel+"mask_projection")

	const module = "model.transformer_module."
	both("panoptic_head.query_feat", module+"queries_features")
	both("panoptic_head.query_embed", module+"queries_embedder")
	both("panoptic_head.level_embed", module+"level_embed")
	for i := range c.DecoderLayers {
		from, to := fmt.Sprintf("%sdecoder.layers.%d.", module, i), fmt.Sprintf("panoptic_head.transformer_decoder.layers.%d.", i)
		for _, kind := range []string{"weight", "bias"} {
			put(to+"attentions.0.attn.in_proj_"+kind, w[from+"cross_attn.in_proj_"+kind])
			self := from + "self_attn."
			fuse(to+"attentions.1.attn.in_proj_"+kind, self+"q_proj."+kind, self+"k_proj."+kind, self+"v_proj."+kind)
		}
		both(to+"attentions.0.attn.out_proj", from+"cross_attn.out_proj")
		both(to+"attentions.1.attn.out_proj", from+"self_attn.out_proj")
		both(to+"norms.0", from+"cross_attn_layer_norm")
		both(to+"norms.1", from+"self_attn_layer_norm")
		both(to+"norms.2", from+"final_layer_norm")
		both(to+"ffns.0.layers.0.0", from+"fc1")
		both(to+"ffns.0.layers.1", from+"fc2")
	}
	both("panoptic_head.transformer_decoder.post_norm", module+"decoder.layernorm")
	for i := range 3 {
		both(fmt.Sprintf("panoptic_head.mask_embed.%d", 2*i), fmt.Sprintf("%sdecoder.mask_predictor.mask_embedder.%d.0", module, i))
	}
	both("panoptic_head.cls_embed", "class_predictor")
	return out
}

func write(t *testing.T, w map[string]ckpt.Tensor) (string, *ckpt.File) {
	t.Helper()
	dir := t.TempDir()
	var list []ckpt.Tensor
	for _, name := range slices.Sorted(maps.Keys(w)) {
		list = append(list, w[name])
	}
	if err := ckpt.Write(filepath.Join(dir, ckpt.ModelFile), list, nil); err != nil {
		t.Fatal(err)
	}
	f, err := ckpt.OpenModel(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return dir, f
}

func TestBothLayoutsAreTheSameWeights(t *testing.T) {
	c := small()
	_, ours := write(t, random(c))
	_, theirs := write(t, mmdetection(random(c), c))
	a, err := LoadWeights(c, ours)
	if err != nil {
		t.Fatal(err)
	}
	b, err := LoadWeights(c, theirs)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Names(), b.Names()) {
		t.Fatalf("%d names and %d names", len(a.Names()), len(b.Names()))
	}
	for _, name := range a.Names() {
		if !a.Get(name).Equal(b.Get(name)) {
			t.Errorf("%s differs", name)
		}
	}
}

func TestPublishedSize(t *testing.T) {
	for _, mmdet := range []bool{false, true} {
		size := map[string]int{}
		for _, source := range Table(SwinSmallCOCO(), mmdet) {
			size[source.Name] = ckpt.Info{Shape: source.Shape}.Size()
		}
		total := 0
		for _, n := range size {
			total += n
		}
		if total < 68_600_000 || total > 68_800_000 {
			t.Errorf("mmdetection %t: %d parameters, want about 68.7 million", mmdet, total)
		}
	}
}

func TestWrongCheckpointsAreNamed(t *testing.T) {
	c := small()
	for name, test := range map[string]struct {
		change func(map[string]ckpt.Tensor)
		want   []string
	}{
		"missing": {
			func(w map[string]ckpt.Tensor) { delete(w, "model.transformer_module.decoder.layers.1.fc1.bias") },
			[]string{`"model.transformer_module.decoder.layers.1.fc1.bias" is missing`, "config.json"},
		},
		"unknown": {
			func(w map[string]ckpt.Tensor) {
				w["extra"] = ckpt.Tensor{Name: "extra", DType: ckpt.F32, Shape: []int{1}, Values: []float32{1}}
			},
			[]string{`"extra" is not known`},
		},
		"panoptic": {
			func(w map[string]ckpt.Tensor) {
				w["class_predictor.bias"] = ckpt.Tensor{Name: "class_predictor.bias", DType: ckpt.F32, Shape: []int{134}, Values: make([]float32, 134)}
				w["class_predictor.weight"] = ckpt.Tensor{Name: "class_predictor.weight", DType: ckpt.F32, Shape: []int{134, 32}, Values: make([]float32, 134*32)}
			},
			[]string{`"class_predictor.bias" has shape [134], want [81]`, "133 classes and none instead of 80"},
		},
		"other": {
			func(w map[string]ckpt.Tensor) {
				maps.DeleteFunc(w, func(n string, _ ckpt.Tensor) bool { return n != "class_predictor.bias" })
			},
			[]string{"another architecture?", "more"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := random(c)
			test.change(w)
			_, f := write(t, w)
			_, err := LoadWeights(c, f)
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v lacks %q", err, want)
				}
			}
		})
	}
}

func TestConfig(t *testing.T) {
	labels := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`"%d":"x"`, i))
		}
		return strings.Join(list, ",")
	}
	if c, err := LoadConfig(fmt.Appendf(nil, smallConfig, labels(80))); err != nil || c != small() {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := LoadConfig(fmt.Appendf(nil, `{"id2label":{%s}}`, labels(80))); err != nil || c != SwinSmallCOCO() {
		t.Errorf("defaults are %+v, %v", c, err)
	}
	for _, bad := range []string{
		`{`, `{}`, `{"id2label":{"0":"x"},"pre_norm":true}`, `{"id2label":{"0":"x"},"hidden_dim":128}`,
		`{"id2label":{"0":"x"},"backbone_config":{"depths":[1]}}`, `{"id2label":{"0":"x"},"backbone_config":{"model_type":"resnet"}}`,
		`{"id2label":{"0":"x"},"feature_strides":[4,8]}`, `{"id2label":{"0":"x"},"num_attention_heads":7}`,
		`{"id2label":{"0":"x"},"activation_function":"selu"}`, `{"id2label":{"0":"x"},"decoder_layers":1}`,
	} {
		if _, err := LoadConfig([]byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "mask2former: ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
