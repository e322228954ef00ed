package clip

import (
	"image"
	"image/color"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/geneval"
	"imagecot/internal/enginetest"

	"github.com/gomlx/compute"
)

// small is an architecture whose sizes all differ.
func small() Config {
	c := defaults()
	c.ProjectionDim = 10
	c.Text.TowerConfig = TowerConfig{HiddenSize: 12, IntermediateSize: 20, NumHiddenLayers: 2, NumAttentionHeads: 3, HiddenAct: "quick_gelu", LayerNormEps: 1e-5}
	c.Text.VocabSize, c.Text.Context, c.Text.EndID = 514, 20, 513
	c.Vision.TowerConfig = TowerConfig{HiddenSize: 16, IntermediateSize: 24, NumHiddenLayers: 1, NumAttentionHeads: 2, HiddenAct: "gelu", LayerNormEps: 1e-5}
	c.Vision.ImageSize, c.Vision.PatchSize = 22, 7
	return c
}

// random weights under transformers' names.
func random(c Config) map[string]ckpt.Tensor {
	rng := rand.New(rand.NewPCG(1, 2))
	out := map[string]ckpt.Tensor{}
	for name, source := range Table(c, false) {
		values := make([]float32, (ckpt.Info{Shape: source.Shape}).Size())
		out[name] = ckpt.Tensor{Name: name, DType: ckpt.F32, Shape: source.Shape, Values: values}
	}
	for _, name := range slices.Sorted(maps.Keys(out)) {
		values := out[name].Values.([]float32)
		for i := range values {
			values[i] = float32(rng.NormFloat64()) / 3
		}
	}
	return out
}

func as(t ckpt.Tensor, name string) ckpt.Tensor {
	t.Name = name
	return t
}

// opened writes weights under transformers' names the way open_clip does, by hand and not by the table under test.
func opened(w map[string]ckpt.Tensor, c Config) map[string]ckpt.Tensor {
	out := map[string]ckpt.Tensor{}
	put := func(name string, t ckpt.Tensor) { t.Name = name; out[name] = t }
	tower := func(from, to string, layers int) {
		for i := range layers {
			f, t := from+string(rune('0'+i))+".", to+string(rune('0'+i))+"."
			for _, kind := range []string{"weight", "bias"} {
				var fused []float32
				var shape []int
				for _, part := range []string{"q_proj", "k_proj", "v_proj"} {
					p := w[f+"self_attn."+part+"."+kind]
					fused, shape = append(fused, p.Values.([]float32)...), slices.Clone(p.Shape)
				}
				shape[0] *= 3
				put(t+"attn.in_proj_"+kind, ckpt.Tensor{DType: ckpt.F32, Shape: shape, Values: fused})
				for a, b := range map[string]string{"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"} {
					put(t+b+"."+kind, w[f+a+"."+kind])
				}
			}
		}
	}
	tower("text_model.encoder.layers.", "transformer.resblocks.", c.Text.NumHiddenLayers)
	tower("vision_model.encoder.layers.", "visual.transformer.resblocks.", c.Vision.NumHiddenLayers)
	for a, b := range map[string]string{
		"logit_scale": "logit_scale", "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
		"text_model.embeddings.position_embedding.weight": "positional_embedding", "text_model.final_layer_norm.weight": "ln_final.weight",
		"text_model.final_layer_norm.bias": "ln_final.bias", "vision_model.embeddings.class_embedding": "visual.class_embedding",
		"vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight", "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
		"vision_model.pre_layrnorm.weight": "visual.ln_pre.weight", "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
		"vision_model.post_layernorm.weight": "visual.ln_post.weight", "vision_model.post_layernorm.bias": "visual.ln_post.bias",
	} {
		put(b, w[a])
	}
	for a, b := range map[string]string{"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"} {
		rows, cols := w[a].Shape[0], w[a].Shape[1]
		turned := make([]float32, rows*cols)
		for i := range rows {
			for j := range cols {
				turned[j*rows+i] = w[a].Values.([]float32)[i*cols+j]
			}
		}
		put(b, ckpt.Tensor{DType: ckpt.F32, Shape: []int{cols, rows}, Values: turned})
	}
	put("attn_mask", ckpt.Tensor{DType: ckpt.F32, Shape: []int{2, 2}, Values: make([]float32, 4)})
	return out
}

func file(t *testing.T, w map[string]ckpt.Tensor) (string, *ckpt.File) {
	t.Helper()
	dir := t.TempDir()
	list := slices.Collect(maps.Values(w))
	slices.SortFunc(list, func(a, b ckpt.Tensor) int { return strings.Compare(a.Name, b.Name) })
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
	_, ours := file(t, random(c))
	_, theirs := file(t, opened(random(c), c))
	a, err := LoadWeights(c, ours)
	if err != nil {
		t.Fatal(err)
	}
	b, err := LoadWeights(c, theirs)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Names(), b.Names()) {
		t.Fatalf("names differ: %d and %d", len(a.Names()), len(b.Names()))
	}
	for _, name := range a.Names() {
		if !a.Get(name).Equal(b.Get(name)) {
			t.Errorf("%s differs", name)
		}
	}
}

func TestWrongCheckpointsAreNamed(t *testing.T) {
	c := small()
	for name, test := range map[string]struct {
		change func(map[string]ckpt.Tensor)
		want   []string
	}{
		"missing": {func(w map[string]ckpt.Tensor) { delete(w, "text_model.final_layer_norm.bias") }, []string{`"text_model.final_layer_norm.bias" is missing`, "config.json"}},
		"misshapen": {func(w map[string]ckpt.Tensor) {
			w["logit_scale"] = as(w["text_model.final_layer_norm.bias"], "logit_scale")
		}, []string{`"logit_scale" has shape [12], want []`}},
		"unknown": {func(w map[string]ckpt.Tensor) { w["vision_model.head"] = as(w["logit_scale"], "vision_model.head") }, []string{`"vision_model.head" is not known`}},
		"vision only": {func(w map[string]ckpt.Tensor) {
			maps.DeleteFunc(w, func(n string, _ ckpt.Tensor) bool { return strings.HasPrefix(n, "text_") })
		}, []string{"a vision tower alone?", "and"}},
		"other": {func(w map[string]ckpt.Tensor) {
			maps.DeleteFunc(w, func(n string, _ ckpt.Tensor) bool { return n != "logit_scale" })
		}, []string{"another architecture?", "more"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := random(c)
			test.change(w)
			_, f := file(t, w)
			_, err := LoadWeights(c, f)
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v lacks %q", err, want)
				}
			}
		})
	}
}

func TestConfigOfBothLayouts(t *testing.T) {
	open := `{"model_cfg":{"embed_dim":768,"quick_gelu":true,"vision_cfg":{"image_size":224,"layers":24,"width":1024,"patch_size":14},
		"text_cfg":{"context_length":77,"vocab_size":49408,"width":768,"heads":12,"layers":12}}}`
	c, err := LoadConfig([]byte(open))
	if err != nil || c != ViTL14() {
		t.Errorf("open_clip's ViT-L/14 is %+v, %v", c, err)
	}
	ours := `{"projection_dim":768,"text_config":{"hidden_size":768,"intermediate_size":3072,"num_attention_heads":12,"eos_token_id":49407},
		"vision_config":{"hidden_size":1024,"intermediate_size":4096,"num_hidden_layers":24,"num_attention_heads":16,"patch_size":14}}`
	if c, err = LoadConfig([]byte(ours)); err != nil || c != ViTL14() {
		t.Errorf("transformers' ViT-L/14 is %+v, %v", c, err)
	}
	for _, bad := range []string{`{`, `{"text_config":{"hidden_act":"relu"}}`, `{"vision_config":{"num_attention_heads":7}}`, `{"vision_config":{"patch_size":0}}`, `{"vision_config":{"patch_size":500}}`} {
		if _, err := LoadConfig([]byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "clip: ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// vocabulary of all single symbols, without merges.
func vocabulary() (vocab, merges string) {
	var b strings.Builder
	b.WriteString("{")
	for i, r := range alphabet {
		text := string(r)
		if r == '"' || r == '\\' {
			text = `\` + text
		}
		b.WriteString(`"` + text + `":` + strconv.Itoa(i) + `,"` + text + `</w>":` + strconv.Itoa(256+i) + ",")
	}
	return b.String() + `"<|startoftext|>":512,"<|endoftext|>":513}`, "#version: 0.2\n"
}

func TestTextIsCleanedCutAndMarked(t *testing.T) {
	vocab, merges := vocabulary()
	tok, err := LoadTokenizer([]byte(vocab), []byte(merges), 8)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]int32{
		"":                {512, 513},
		"A b\u00a0\n C":   {512, 'a' + 256, 'b' + 256, 'c' + 256, 513},
		"\u2019s":         {512, '\'', 's' + 256, 513},
		"&amp;lt;12":      {512, '<' + 256, '1' + 256, '2' + 256, 513},
		"abcdefghij":      {512, 'a', 'b', 'c', 'd', 'e', 'f', 513},
		"<|endoftext|> a": {512, 513, 'a' + 256, 513},
	} {
		if got := tok.Encode(text); !slices.Equal(got, want) {
			t.Errorf("%q gives %v, want %v", text, got, want)
		}
	}
	for _, bad := range [][2]string{{"{}", merges}, {"[]", merges}, {vocab, "a b c"}, {vocab, "ab"}} {
		if _, err := LoadTokenizer([]byte(bad[0]), []byte(bad[1]), 8); err == nil {
			t.Errorf("vocabulary %.10q with merges %q is no error", bad[0], bad[1])
		}
	}
}

func TestCentreSquareSizes(t *testing.T) {
	for _, size := range [][2]int{{5, 5}, {1, 900}, {900, 1}, {40, 31}, {31, 40}} {
		img := image.NewRGBA(image.Rect(0, 0, size[0], size[1]))
		for i := range img.Pix {
			img.Pix[i] = 255
		}
		img.SetRGBA(size[0]/2, size[1]/2, color.RGBA{A: 255})
		got := CentreSquare(img, 16)
		if got.Rect != image.Rect(0, 0, 16, 16) {
			t.Errorf("%v gives %v", size, got.Rect)
		}
	}
}

func TestColoursOfAFolder(t *testing.T) {
	c := small()
	c.Vision.HiddenAct = "quick_gelu"
	w := random(c)
	dir, _ := file(t, w)
	vocab, merges := vocabulary()
	config := `{"projection_dim":10,"text_config":{"hidden_size":12,"intermediate_size":20,"num_hidden_layers":2,"num_attention_heads":3,
		"vocab_size":514,"max_position_embeddings":20,"eos_token_id":513},"vision_config":{"hidden_size":16,"intermediate_size":24,
		"num_hidden_layers":1,"num_attention_heads":2,"image_size":22,"patch_size":7}}`
	for name, text := range map[string]string{"vocab.json": vocab, "merges.txt": merges, "config.json": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	img := image.NewRGBA(image.Rect(0, 0, 30, 20))
	for i := range img.Pix {
		img.Pix[i] = uint8(i * 7)
	}
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		k, err := OpenColours(be, dir, geneval.DefaultCropOptions())
		if err != nil {
			t.Fatal(err)
		}
		mask := image.NewAlpha(img.Rect)
		for i := range mask.Pix {
			mask.Pix[i] = uint8(255 * (i / 10 % 2))
		}
		objects := []geneval.Detection{{Box: [4]float32{2, 3, 12, 17}}, {Box: [4]float32{0, 0, 30, 20}, Mask: mask}, {Box: [4]float32{2, 3, 12, 17}}}
		together, err := k.Classify(t.Context(), img, "car", objects)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range objects {
			alone, err := k.Classify(t.Context(), img, "car", []geneval.Detection{o})
			if err != nil || alone[0] != together[i] || !slices.Contains(geneval.Colours(), alone[0]) {
				t.Errorf("object %d is %v alone and %q among others: %v", i, alone, together[i], err)
			}
		}
		if _, err := k.Classify(t.Context(), img, "car", []geneval.Detection{{Box: [4]float32{3, 3, 3, float32(math.NaN())}}}); err == nil {
			t.Error("a box of no size is no error")
		}
	})
	if _, err := OpenColours(enginetest.Go(t), t.TempDir(), geneval.DefaultCropOptions()); err == nil {
		t.Error("an empty folder is no error")
	}
}
