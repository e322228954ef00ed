package llavaov

import (
	"encoding/json"
	"errors"
	"fmt"
)

// limit bounds every size in a config.json, so that products of two stay far from overflow.
const limit = 1 << 20

func sizes(what string, fields ...any) error {
	for i := 0; i < len(fields); i += 2 {
		if n := fields[i+1].(int); n < 1 || n > limit {
			return fmt.Errorf("llavaov: %s: %s is %d, want 1 to %d", what, fields[i], n, limit)
		}
	}
	return nil
}

// Validate reports sizes that make no network.
func (v VisionConfig) Validate() error {
	if err := sizes("tower", "hidden_size", v.HiddenSize, "intermediate_size", v.IntermediateSize, "num_hidden_layers",
		v.NumHiddenLayers, "num_attention_heads", v.NumAttentionHeads, "image_size", v.ImageSize, "patch_size", v.PatchSize); err != nil {
		return err
	}
	switch {
	case v.HiddenSize%v.NumAttentionHeads != 0:
		return fmt.Errorf("llavaov: tower: %d channels do not split into %d heads", v.HiddenSize, v.NumAttentionHeads)
	case v.PatchSize > v.ImageSize:
		return fmt.Errorf("llavaov: tower: patches of %d pixels in an image of %d", v.PatchSize, v.ImageSize)
	case v.NumChannels != 3:
		return fmt.Errorf("llavaov: tower: %d channels, want 3", v.NumChannels)
	case v.HiddenAct != "gelu_pytorch_tanh":
		return fmt.Errorf("llavaov: tower: hidden_act %q, only gelu_pytorch_tanh is known", v.HiddenAct)
	case !(v.LayerNormEps > 0):
		return fmt.Errorf("llavaov: tower: layer_norm_eps is %g", v.LayerNormEps)
	}
	return nil
}

// Validate reports sizes that make no network.
func (t TextConfig) Validate() error {
	if err := sizes("decoder", "vocab_size", t.VocabSize, "hidden_size", t.HiddenSize, "intermediate_size", t.IntermediateSize,
		"num_hidden_layers", t.NumHiddenLayers, "num_attention_heads", t.NumAttentionHeads, "num_key_value_heads",
		t.NumKeyValueHeads, "max_position_embeddings", t.MaxPositionEmbeddings); err != nil {
		return err
	}
	switch {
	case t.HiddenSize%(2*t.NumAttentionHeads) != 0:
		return fmt.Errorf("llavaov: decoder: %d channels do not split into %d heads of even size", t.HiddenSize, t.NumAttentionHeads)
	case t.NumAttentionHeads%t.NumKeyValueHeads != 0:
		return fmt.Errorf("llavaov: decoder: %d heads do not share %d key-value heads evenly", t.NumAttentionHeads, t.NumKeyValueHeads)
	case t.HiddenAct != "silu":
		return fmt.Errorf("llavaov: decoder: hidden_act %q, only silu is known", t.HiddenAct)
	case !(t.RMSNormEps > 0 && t.RopeTheta > 0):
		return fmt.Errorf("llavaov: decoder: rms_norm_eps is %g, rope_theta %g", t.RMSNormEps, t.RopeTheta)
	}
	return nil
}

// Validate reports what makes no network.
func (c Config) Validate() error {
	if err := errors.Join(c.Vision.Validate(), c.Text.Validate()); err != nil {
		return err
	}
	if c.TowerLayers < 1 || c.TowerLayers > c.Vision.NumHiddenLayers {
		return fmt.Errorf("llavaov: tower layer %d is asked for, there are %d", c.TowerLayers, c.Vision.NumHiddenLayers)
	}
	if len(c.Pinpoints) == 0 {
		return errors.New("llavaov: image_grid_pinpoints is empty")
	}
	for _, p := range c.Pinpoints {
		if p[0] < 1 || p[1] < 1 || p[0] > limit || p[1] > limit || p[0]%c.Vision.ImageSize != 0 || p[1]%c.Vision.ImageSize != 0 {
			return fmt.Errorf("llavaov: pinpoint %d x %d is not made of tiles of %d", p[0], p[1], c.Vision.ImageSize)
		}
	}
	_, _, err := maxTiles(c.AspectRatio)
	return err
}

// JSON is a config.json in the authors' layout with vision_config added; LoadConfig reads it back. It describes a file
// with the tower's used layers alone, which is what LoadWeights keeps. A model of the HF layout becomes one of the
// authors', whose Unpad rounds otherwise.
func (c Config) JSON() ([]byte, error) {
	c.Vision.NumHiddenLayers = c.TowerLayers
	return json.MarshalIndent(struct {
		Architectures []string `json:"architectures"`
		ModelType     string   `json:"model_type"`
		TextConfig
		Tied          *bool        `json:"tie_word_embeddings,omitempty"`
		AspectRatio   string       `json:"image_aspect_ratio"`
		Pinpoints     [][2]int     `json:"image_grid_pinpoints"`
		MergeType     string       `json:"mm_patch_merge_type"`
		ProjectorType string       `json:"mm_projector_type"`
		HiddenSize    int          `json:"mm_hidden_size"`
		Vision        VisionConfig `json:"vision_config"`
	}{
		[]string{"LlavaQwenForCausalLM"},
		"llava", c.Text, c.Tied, c.AspectRatio, c.Pinpoints, "spatial_unpad", "mlp2x_gelu",
		c.Vision.HiddenSize, c.Vision,
	}, "", "  ")
}
