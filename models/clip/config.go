// Package clip is CLIP (Radford et al. 2021), with which GenEval's own evaluator names the colours of objects
// (arXiv 2310.11513, Sec. 3.2): ViT-L/14 there, any size here.
//
//	image -> shorter side to S, centre S x S -> patches and a class token -> transformer -> class token -> projection
//	text -> byte-level BPE of lower-case words -> causal transformer -> state at the end token -> projection
//	colour of an object: the colour whose sentences' mean text feature lies closest to the image feature of its crop
//
// Weights are named as in transformers; open_clip's names are read too. The package knows detections only as what
// geneval hands to a colour classifier.
package clip

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Config is the architecture, in the field names of transformers' config.json.
type Config struct {
	Text          TextConfig   `json:"text_config"`
	Vision        VisionConfig `json:"vision_config"`
	ProjectionDim int          `json:"projection_dim"`
}

// TowerConfig is what both towers have.
type TowerConfig struct {
	HiddenSize        int     `json:"hidden_size"`
	IntermediateSize  int     `json:"intermediate_size"`
	NumHiddenLayers   int     `json:"num_hidden_layers"`
	NumAttentionHeads int     `json:"num_attention_heads"`
	HiddenAct         string  `json:"hidden_act"` // quick_gelu or gelu
	LayerNormEps      float64 `json:"layer_norm_eps"`
}

// TextConfig is the text tower.
type TextConfig struct {
	TowerConfig
	VocabSize int `json:"vocab_size"`
	Context   int `json:"max_position_embeddings"` // positions, start and end token included
	EndID     int `json:"eos_token_id"`
}

// VisionConfig is the vision tower.
type VisionConfig struct {
	TowerConfig
	ImageSize int `json:"image_size"`
	PatchSize int `json:"patch_size"`
	Channels  int `json:"num_channels"`
}

// Grid is the number of patches along a side; a rest of the image that fills no patch is not seen.
func (v VisionConfig) Grid() int { return v.ImageSize / v.PatchSize }

// firstIDEnds is the end token that published config.json files name although no text ends in it: it means that the
// end of a text is the highest id.
const firstIDEnds = 2

// ViTL14 is the published model that GenEval uses: ViT-L/14 with the activation of OpenAI's weights.
func ViTL14() Config {
	c := defaults()
	c.Vision.HiddenSize, c.Vision.IntermediateSize, c.Vision.NumHiddenLayers, c.Vision.NumAttentionHeads = 1024, 4096, 24, 16
	c.Vision.PatchSize, c.ProjectionDim = 14, 768
	c.Text.HiddenSize, c.Text.IntermediateSize, c.Text.NumAttentionHeads = 768, 3072, 12
	return c
}

// defaults are those of transformers, for fields that config.json leaves out.
func defaults() Config {
	return Config{
		ProjectionDim: 512,
		Text: TextConfig{
			TowerConfig: TowerConfig{HiddenSize: 512, IntermediateSize: 2048, NumHiddenLayers: 12, NumAttentionHeads: 8, HiddenAct: "quick_gelu", LayerNormEps: 1e-5},
			VocabSize:   49408, Context: 77, EndID: 49407,
		},
		Vision: VisionConfig{
			TowerConfig: TowerConfig{HiddenSize: 768, IntermediateSize: 3072, NumHiddenLayers: 12, NumAttentionHeads: 12, HiddenAct: "quick_gelu", LayerNormEps: 1e-5},
			ImageSize:   224, PatchSize: 32, Channels: 3,
		},
	}
}

// LoadConfig reads transformers' config.json or open_clip's open_clip_config.json.
func LoadConfig(text []byte) (Config, error) {
	var kind struct {
		Open *openConfig `json:"model_cfg"`
	}
	c := defaults()
	if err := errors.Join(json.Unmarshal(text, &kind), json.Unmarshal(text, &c)); err != nil {
		return c, fmt.Errorf("clip: config.json: %w", err)
	}
	if kind.Open != nil {
		c = kind.Open.config()
	}
	return c, c.validate()
}

// openConfig is open_clip's way of writing an architecture.
type openConfig struct {
	EmbedDim  int  `json:"embed_dim"`
	QuickGELU bool `json:"quick_gelu"`
	Vision    struct {
		ImageSize int      `json:"image_size"`
		Layers    int      `json:"layers"`
		Width     int      `json:"width"`
		HeadWidth int      `json:"head_width"`
		PatchSize int      `json:"patch_size"`
		MLPRatio  *float64 `json:"mlp_ratio"`
	} `json:"vision_cfg"`
	Text struct {
		Context   int `json:"context_length"`
		VocabSize int `json:"vocab_size"`
		Width     int `json:"width"`
		Heads     int `json:"heads"`
		Layers    int `json:"layers"`
	} `json:"text_cfg"`
}

func (o openConfig) config() Config {
	c := defaults()
	act := "gelu"
	if o.QuickGELU {
		act = "quick_gelu"
	}
	headWidth, ratio := o.Vision.HeadWidth, 4.
	if headWidth == 0 {
		headWidth = 64
	}
	if o.Vision.MLPRatio != nil {
		ratio = *o.Vision.MLPRatio
	}
	v, t := &c.Vision, &c.Text
	v.HiddenSize, v.NumHiddenLayers, v.HiddenAct = o.Vision.Width, o.Vision.Layers, act
	v.IntermediateSize, v.NumAttentionHeads = int(ratio*float64(v.HiddenSize)), v.HiddenSize/headWidth
	v.ImageSize, v.PatchSize = o.Vision.ImageSize, o.Vision.PatchSize
	t.HiddenSize, t.NumHiddenLayers, t.HiddenAct = o.Text.Width, o.Text.Layers, act
	t.IntermediateSize, t.NumAttentionHeads = 4*t.HiddenSize, o.Text.Heads
	t.VocabSize, t.Context, t.EndID = o.Text.VocabSize, o.Text.Context, o.Text.VocabSize-1
	c.ProjectionDim = o.EmbedDim
	return c
}

func (c Config) validate() error {
	for _, f := range []struct {
		name string
		v    int
	}{
		{"projection_dim", c.ProjectionDim},
		{"text vocab_size", c.Text.VocabSize},
		{"text max_position_embeddings", c.Text.Context},
		{"vision image_size", c.Vision.ImageSize},
		{"vision patch_size", c.Vision.PatchSize},
		{"vision num_channels", c.Vision.Channels},
	} {
		if f.v < 1 || f.v > 1<<20 {
			return fmt.Errorf("clip: %s is %d, want 1 to %d", f.name, f.v, 1<<20)
		}
	}
	if c.Vision.Grid() < 1 {
		return fmt.Errorf("clip: image_size %d is less than patch_size %d", c.Vision.ImageSize, c.Vision.PatchSize)
	}
	if err := c.Text.validate("text"); err != nil {
		return err
	}
	return c.Vision.validate("vision")
}

func (t TowerConfig) validate(which string) error {
	const most = 1 << 16
	for _, v := range []int{t.HiddenSize, t.IntermediateSize, t.NumHiddenLayers, t.NumAttentionHeads} {
		if v < 1 || v > most {
			return fmt.Errorf("clip: %s tower: sizes %+v, want 1 to %d", which, t, most)
		}
	}
	if t.HiddenSize%t.NumAttentionHeads != 0 {
		return fmt.Errorf("clip: %s tower: width %d does not divide into %d heads", which, t.HiddenSize, t.NumAttentionHeads)
	}
	if t.HiddenAct != "quick_gelu" && t.HiddenAct != "gelu" {
		return fmt.Errorf("clip: %s tower: hidden_act %q, quick_gelu and gelu are known", which, t.HiddenAct)
	}
	if !(t.LayerNormEps > 0) {
		return fmt.Errorf("clip: %s tower: layer_norm_eps is %g", which, t.LayerNormEps)
	}
	return nil
}
