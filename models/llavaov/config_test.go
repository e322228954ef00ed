package llavaov

import (
	"reflect"
	"strings"
	"testing"
)

const hfConfig = `{"model_type": "llava_onevision", "tie_word_embeddings": false, "vision_aspect_ratio": "anyres_max_9",
 "vision_feature_layer": -2, "image_grid_pinpoints": [[28, 14], [14, 28]],
 "text_config": {"vocab_size": 100, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 6,
  "num_key_value_heads": 2, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "tie_word_embeddings": true},
 "vision_config": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 14, "patch_size": 4}}`

func TestLoadConfigReadsBothLayouts(t *testing.T) {
	c, err := LoadConfig([]byte(hfConfig))
	if err != nil {
		t.Fatal(err)
	}
	if c.Layout != HF || c.Text.RopeTheta != 1e6 || c.TowerLayers != 1 || c.Tied == nil || !*c.Tied || c.Text.RMSNormEps != 1e-6 {
		t.Errorf("read as %+v", c)
	}
	if want := [][2]int{{14, 28}, {28, 14}}; !reflect.DeepEqual(c.Pinpoints, want) {
		t.Errorf("pinpoints %v, want %v as width, height", c.Pinpoints, want)
	}
	flat := `{"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
	 "num_key_value_heads": 4, "rope_theta": 1000000.0, "model_type": "llava", "image_aspect_ratio": "anyres_max_9",
	 "image_grid_pinpoints": "(1x1),...,(6x6)", "mm_vision_select_layer": -2, "tie_word_embeddings": false}`
	if c, err = LoadConfig([]byte(flat)); err != nil {
		t.Fatal(err)
	}
	if c.Layout != Authors || c.TowerLayers != 26 || c.Vision.HiddenSize != 1152 || c.Vision.Grid() != 27 || len(c.Pinpoints) != 36 ||
		c.Pinpoints[1] != [2]int{384, 768} {
		t.Errorf("read as %+v", c)
	}
}

func TestConfigComesBackFromItsJSON(t *testing.T) {
	want := Tiny(500)
	text, err := want.JSON()
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	if got.Vision.ModelType = want.Vision.ModelType; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v came back as %+v", want, got)
	}
	if want.Text.VocabSize != 512 {
		t.Errorf("vocabulary of %d rows for 500 tokens, want a multiple of 64", want.Text.VocabSize)
	}
}

func TestLoadConfigRefuses(t *testing.T) {
	for _, change := range [][2]string{
		{`"num_attention_heads": 6`, `"num_attention_heads": 5`},
		{`"num_key_value_heads": 2`, `"num_key_value_heads": 4`},
		{`"patch_size": 4`, `"patch_size": 15`},
		{`"rope_type": "default"`, `"rope_type": "yarn"`},
		{`"vision_feature_layer": -2`, `"vision_feature_layer": 3`},
		{`[28, 14]`, `[28, 15]`},
		{`anyres_max_9`, `anyres`},
		{`"hidden_size": 24`, `"hidden_size": 0`},
		{`"vocab_size": 100`, `"vocab_size": 1000000000000`},
		{`"vision_feature_layer": -2`, `"projector_hidden_act": "relu"`},
		{`{"model_type"`, `["model_type"`},
	} {
		text := strings.Replace(hfConfig, change[0], change[1], 1)
		if text == hfConfig {
			t.Fatalf("%q is not in the config", change[0])
		}
		if _, err := LoadConfig([]byte(text)); err == nil {
			t.Errorf("%s is no error", change[1])
		}
	}
}
