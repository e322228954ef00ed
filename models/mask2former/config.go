// Package mask2former is Mask2Former (Cheng et al. 2022) on a Swin backbone (Liu et al. 2021), the detector of GenEval
// (arXiv 2310.11513, Sec. 3.1): Swin-S trained on COCO instances there, any size here.
//
//	picture -> short side 800, normalised, padded to a multiple of 32
//	Swin: 4x4 patches, four stages of window attention             -> maps at stride 4, 8, 16, 32
//	pixel decoder: multi-scale deformable attention over 32, 16, 8 -> three maps, and mask features at stride 4
//	decoder: queries look at one map after the other, each only where its last mask was
//	each query: a class (or none) and a mask, the product of its embedding with the mask features
//	the 100 best pairs of query and class -> mask, box, score at the picture's size
//
// Weights are named as in transformers; mmdetection's names are read too. The package knows nothing of prompts and
// verdicts.
package mask2former

import (
	"encoding/json"
	"errors"
	"fmt"
)

// The parts of the architecture that no published model varies.
const (
	stages = 4 // of the backbone, at stride 4, 8, 16, 32
	levels = 3 // maps that the decoders read: stride 32, 16, 8
	points = 4 // where a head looks, on each level
	groups = 32

	decoderNormEps = 1e-5
)

// Config is the architecture.
type Config struct {
	Swin          SwinConfig
	Channels      int // of the pixel decoder's maps, and of queries
	MaskChannels  int // of the mask features
	Heads         int // of both decoders
	PixelLayers   int // of the pixel decoder
	PixelFFN      int
	DecoderLayers int
	DecoderFFN    int
	Activation    string // of the decoder's feed-forward part: relu or gelu
	Queries       int
	Classes       int // without "no object"
}

// SwinConfig is the backbone.
type SwinConfig struct {
	PatchSize    int
	Width        int // of the first stage; each later one is twice as wide
	Depths       [stages]int
	Heads        [stages]int
	Window       int
	MLPRatio     float64
	LayerNormEps float64
	Bias         bool // of queries, keys and values
}

// WidthOf a stage.
func (c SwinConfig) WidthOf(stage int) int { return c.Width << stage }

// FFNOf a stage.
func (c SwinConfig) FFNOf(stage int) int { return int(c.MLPRatio * float64(c.WidthOf(stage))) }

// SwinSmallCOCO is the published model that GenEval uses.
func SwinSmallCOCO() Config {
	return Config{
		Swin: SwinConfig{
			PatchSize: 4, Width: 96, Depths: [stages]int{2, 2, 18, 2}, Heads: [stages]int{3, 6, 12, 24}, Window: 7,
			MLPRatio: 4, LayerNormEps: 1e-5, Bias: true,
		},
		Channels: 256, MaskChannels: 256, Heads: 8, PixelLayers: 6, PixelFFN: 1024,
		DecoderLayers: 9, DecoderFFN: 2048, Activation: "relu", Queries: 100, Classes: 80,
	}
}

// configJSON is transformers' config.json.
type configJSON struct {
	Backbone struct {
		ModelType string  `json:"model_type"`
		PatchSize int     `json:"patch_size"`
		EmbedDim  int     `json:"embed_dim"`
		Depths    []int   `json:"depths"`
		NumHeads  []int   `json:"num_heads"`
		Window    int     `json:"window_size"`
		MLPRatio  float64 `json:"mlp_ratio"`
		Eps       float64 `json:"layer_norm_eps"`
		QKVBias   bool    `json:"qkv_bias"`
		HiddenAct string  `json:"hidden_act"`
		Absolute  bool    `json:"use_absolute_embeddings"`
		Channels  int     `json:"num_channels"`
	} `json:"backbone_config"`
	FeatureSize    int             `json:"feature_size"`
	MaskSize       int             `json:"mask_feature_size"`
	HiddenDim      int             `json:"hidden_dim"`
	EncoderLayers  int             `json:"encoder_layers"`
	EncoderFFN     int             `json:"encoder_feedforward_dim"`
	DecoderLayers  int             `json:"decoder_layers"` // counts the prediction before the first layer
	DecoderFFN     int             `json:"dim_feedforward"`
	Heads          int             `json:"num_attention_heads"`
	Queries        int             `json:"num_queries"`
	Activation     string          `json:"activation_function"`
	Labels         map[string]any  `json:"id2label"`
	PreNorm        bool            `json:"pre_norm"`
	Projection     bool            `json:"enforce_input_projection"`
	CommonStride   int             `json:"common_stride"`
	FeatureStrides json.RawMessage `json:"feature_strides"`
}

// LoadConfig reads transformers' config.json. Absent fields have the values of transformers' code; an architecture that
// this package does not compute is an error.
func LoadConfig(text []byte) (Config, error) {
	raw := configJSON{
		FeatureSize: 256, MaskSize: 256, HiddenDim: 256, EncoderLayers: 6, EncoderFFN: 1024, DecoderLayers: 10,
		DecoderFFN: 2048, Heads: 8, Queries: 100, Activation: "relu", CommonStride: 4,
	}
	b := &raw.Backbone
	b.PatchSize, b.EmbedDim, b.Depths, b.NumHeads, b.Window = 4, 96, []int{2, 2, 18, 2}, []int{3, 6, 12, 24}, 7
	b.MLPRatio, b.Eps, b.QKVBias, b.HiddenAct, b.Channels = 4, 1e-5, true, "gelu", 3
	if err := json.Unmarshal(text, &raw); err != nil {
		return Config{}, fmt.Errorf("mask2former: config.json: %w", err)
	}
	if err := raw.supported(); err != nil {
		return Config{}, fmt.Errorf("mask2former: config.json: %w", err)
	}
	c := Config{
		Swin: SwinConfig{
			PatchSize: b.PatchSize, Width: b.EmbedDim, Depths: [stages]int(b.Depths), Heads: [stages]int(b.NumHeads),
			Window: b.Window, MLPRatio: b.MLPRatio, LayerNormEps: b.Eps, Bias: b.QKVBias,
		},
		Channels: raw.FeatureSize, MaskChannels: raw.MaskSize, Heads: raw.Heads,
		PixelLayers: raw.EncoderLayers, PixelFFN: raw.EncoderFFN,
		DecoderLayers: raw.DecoderLayers - 1, DecoderFFN: raw.DecoderFFN, Activation: raw.Activation,
		Queries: raw.Queries, Classes: len(raw.Labels),
	}
	return c, c.validate()
}

func (r configJSON) supported() error {
	b := r.Backbone
	switch {
	case b.ModelType != "" && b.ModelType != "swin":
		return fmt.Errorf("backbone %q, only swin is known", b.ModelType)
	case b.HiddenAct != "gelu" || b.Absolute || b.Channels != 3:
		return fmt.Errorf("backbone with hidden_act %q, use_absolute_embeddings %t, num_channels %d; want gelu, false, 3", b.HiddenAct, b.Absolute, b.Channels)
	case len(b.Depths) != stages || len(b.NumHeads) != stages:
		return fmt.Errorf("backbone with depths %v and num_heads %v, want %d of each", b.Depths, b.NumHeads, stages)
	case r.PreNorm || r.Projection:
		return errors.New("pre_norm and enforce_input_projection must be false")
	case r.FeatureSize != r.HiddenDim:
		return fmt.Errorf("feature_size %d and hidden_dim %d must be equal", r.FeatureSize, r.HiddenDim)
	case r.CommonStride != 4:
		return fmt.Errorf("common_stride %d, want 4", r.CommonStride)
	}
	var strides [stages]int
	if len(r.FeatureStrides) > 0 {
		if err := json.Unmarshal(r.FeatureStrides, &strides); err != nil || strides != [stages]int{4, 8, 16, 32} {
			return fmt.Errorf("feature_strides %s, want [4, 8, 16, 32]", r.FeatureStrides)
		}
	}
	return nil
}

func (c Config) validate() error {
	const most = 1 << 16
	sizes := []int{
		c.Swin.PatchSize, c.Swin.Width, c.Swin.Window, c.Channels, c.MaskChannels, c.Heads, c.PixelLayers, c.PixelFFN,
		c.DecoderLayers, c.DecoderFFN, c.Queries, c.Classes,
	}
	for _, v := range append(append(sizes, c.Swin.Depths[:]...), c.Swin.Heads[:]...) {
		if v < 1 || v > most {
			return fmt.Errorf("mask2former: sizes %+v, want each 1 to %d", c, most)
		}
	}
	for i, heads := range c.Swin.Heads {
		if c.Swin.WidthOf(i)%heads != 0 {
			return fmt.Errorf("mask2former: backbone stage %d: width %d does not divide into %d heads", i+1, c.Swin.WidthOf(i), heads)
		}
	}
	switch {
	case c.Channels%c.Heads != 0 || c.Channels%groups != 0 || c.Channels%4 != 0:
		return fmt.Errorf("mask2former: %d channels do not divide into %d heads and %d groups", c.Channels, c.Heads, groups)
	case c.Activation != "relu" && c.Activation != "gelu":
		return fmt.Errorf("mask2former: activation_function %q, relu and gelu are known", c.Activation)
	case !(c.Swin.LayerNormEps > 0) || !(c.Swin.MLPRatio > 0 && c.Swin.MLPRatio < 64):
		return fmt.Errorf("mask2former: backbone with layer_norm_eps %g, mlp_ratio %g", c.Swin.LayerNormEps, c.Swin.MLPRatio)
	case c.Swin.PatchSize != 4:
		return fmt.Errorf("mask2former: backbone with patches of %d pixels, want 4", c.Swin.PatchSize)
	}
	return nil
}
