// Package llavaov is LLaVA-OneVision, the paper's judge (Sec. 2.2, App. B): asked a question about a step image, it
// answers with the log-probabilities of yes and no; asked for a reason (PARM++, Sec. 3), it writes a short text.
//
//	image -> tiles (pad, or anyres_max_9) -> SigLIP tower -> two-layer projector -> rows, image_newline at row ends
//	system turn, image rows, question -> Qwen2 decoder -> logits at the last position -> verdict
//
// Keys and values of system turn and image rows are computed once an image and serve all its questions; a follow-up
// question pays for its own tokens only. Weights are named as in the authors' checkpoints; three other naming schemes
// are read. The package knows nothing of paths, strategies or the tiny world.
package llavaov

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Layout says whose conventions a checkpoint follows.
type Layout uint8

// The layouts. They differ in names, in config.json, and in the rounding of Unpad.
const (
	Authors Layout = iota // lmms-lab and the paper's judges: flat config.json
	HF                    // llava-hf: text_config and vision_config
)

// Config is the architecture, of either layout.
type Config struct {
	Layout Layout
	Vision VisionConfig
	Text   TextConfig
	// TowerLayers is the number of tower layers whose result the projector gets; a file may hold more.
	TowerLayers int
	// Pinpoints are the grid sizes in pixels, {width, height}, that anyres chooses from.
	Pinpoints [][2]int
	// AspectRatio is how the checkpoint was trained to see images: "pad" or "anyres_max_N".
	AspectRatio string
	// Tied is what config.json says about the head: nil for nothing.
	Tied *bool
}

// VisionConfig is the SigLIP tower, in the field names of its config.json.
type VisionConfig struct {
	HiddenSize        int     `json:"hidden_size"`
	IntermediateSize  int     `json:"intermediate_size"`
	NumHiddenLayers   int     `json:"num_hidden_layers"`
	NumAttentionHeads int     `json:"num_attention_heads"`
	NumChannels       int     `json:"num_channels"`
	ImageSize         int     `json:"image_size"`
	PatchSize         int     `json:"patch_size"`
	HiddenAct         string  `json:"hidden_act"`
	LayerNormEps      float64 `json:"layer_norm_eps"`
	ModelType         string  `json:"model_type"`
}

// Grid is the number of patches along a side; a rest of the image that fills no patch is not seen.
func (v VisionConfig) Grid() int { return v.ImageSize / v.PatchSize }

// TextConfig is the Qwen2 decoder, in the field names of its config.json.
type TextConfig struct {
	VocabSize             int     `json:"vocab_size"`
	HiddenSize            int     `json:"hidden_size"`
	IntermediateSize      int     `json:"intermediate_size"`
	NumHiddenLayers       int     `json:"num_hidden_layers"`
	NumAttentionHeads     int     `json:"num_attention_heads"`
	NumKeyValueHeads      int     `json:"num_key_value_heads"`
	HiddenAct             string  `json:"hidden_act"`
	MaxPositionEmbeddings int     `json:"max_position_embeddings"`
	RMSNormEps            float64 `json:"rms_norm_eps"`
	RopeTheta             float64 `json:"rope_theta"`
}

// HeadSize is the width of one attention head.
func (t TextConfig) HeadSize() int { return t.HiddenSize / t.NumAttentionHeads }

// so400m is the tower that the authors' code fixes: SigLIP so400m patch 14 at 384 pixels without its last layer.
func so400m() VisionConfig {
	return VisionConfig{
		HiddenSize: 1152, IntermediateSize: 4304, NumHiddenLayers: 26, NumAttentionHeads: 16,
		NumChannels: 3, ImageSize: 384, PatchSize: 14, HiddenAct: "gelu_pytorch_tanh", LayerNormEps: 1e-6,
	}
}

// Tiny is the judge of the tiny world: 64 x 64 images, 64 rows and a newline, about 1.5 million parameters. vocab is
// the size of the text tokenizer.
func Tiny(vocab int) Config {
	tied := true
	return Config{
		Layout: Authors, TowerLayers: 3, AspectRatio: "pad", Pinpoints: [][2]int{{64, 64}}, Tied: &tied,
		Vision: VisionConfig{
			HiddenSize: 128, IntermediateSize: 512, NumHiddenLayers: 3, NumAttentionHeads: 4,
			NumChannels: 3, ImageSize: 64, PatchSize: 8, HiddenAct: "gelu_pytorch_tanh", LayerNormEps: 1e-6,
		},
		Text: TextConfig{
			VocabSize: (vocab + 63) / 64 * 64, HiddenSize: 128, IntermediateSize: 384, NumHiddenLayers: 4,
			NumAttentionHeads: 4, NumKeyValueHeads: 2, HiddenAct: "silu", MaxPositionEmbeddings: 2048,
			RMSNormEps: 1e-6, RopeTheta: 10000,
		},
	}
}

// textJSON adds what is spelled in several ways.
type textJSON struct {
	TextConfig
	RopeParameters *struct {
		RopeTheta float64 `json:"rope_theta"`
		RopeType  string  `json:"rope_type"`
	} `json:"rope_parameters"`
	RopeScaling      json.RawMessage `json:"rope_scaling"`
	UseSlidingWindow bool            `json:"use_sliding_window"`
	Tied             *bool           `json:"tie_word_embeddings"`
}

type configJSON struct {
	textJSON
	ModelType string          `json:"model_type"`
	TextPart  *textJSON       `json:"text_config"`
	Vision    json.RawMessage `json:"vision_config"`

	ImageAspectRatio string          `json:"image_aspect_ratio"`
	Pinpoints        json.RawMessage `json:"image_grid_pinpoints"`
	ProjectorType    *string         `json:"mm_projector_type"`
	MergeType        *string         `json:"mm_patch_merge_type"`
	SelectFeature    *string         `json:"mm_vision_select_feature"`

	VisionAspectRatio  string  `json:"vision_aspect_ratio"`
	FeatureLayer       *int    `json:"vision_feature_layer"`
	SelectStrategy     *string `json:"vision_feature_select_strategy"`
	ProjectorHiddenAct *string `json:"projector_hidden_act"`
	ProjectorBias      *bool   `json:"multimodal_projector_bias"`
	NewlineParameter   *bool   `json:"use_image_newline_parameter"`
}

// LoadConfig reads config.json of either layout. Absent fields have the values of the published models' code; an
// architecture that this package does not compute is an error.
func LoadConfig(text []byte) (Config, error) {
	raw := configJSON{textJSON: textDefaults()}
	if err := json.Unmarshal(text, &raw); err != nil {
		return Config{}, fmt.Errorf("llavaov: config.json: %w", err)
	}
	part := raw.textJSON
	cfg := Config{Vision: so400m(), AspectRatio: raw.ImageAspectRatio}
	if raw.TextPart != nil {
		cfg.Layout = HF
		cfg.AspectRatio = raw.VisionAspectRatio
		again := configJSON{TextPart: &textJSON{}}
		*again.TextPart = textDefaults()
		if err := json.Unmarshal(text, &again); err != nil {
			return cfg, fmt.Errorf("llavaov: config.json: %w", err)
		}
		part = *again.TextPart
		if part.Tied == nil || raw.Tied != nil && *raw.Tied {
			part.Tied = raw.Tied
		}
	}
	if cfg.AspectRatio == "" {
		cfg.AspectRatio = "anyres_max_9"
	}
	if len(raw.Vision) > 0 && !bytes.Equal(raw.Vision, []byte("null")) {
		var err error
		if cfg.Vision, err = LoadVisionConfig(raw.Vision); err != nil {
			return cfg, err
		}
	}
	err := errors.Join(raw.supported(), part.supported())
	if err == nil {
		cfg.Text, cfg.Tied = part.TextConfig, part.Tied
		if part.RopeParameters != nil && part.RopeParameters.RopeTheta != 0 {
			cfg.Text.RopeTheta = part.RopeParameters.RopeTheta
		}
		if cfg.Text.NumKeyValueHeads == 0 {
			cfg.Text.NumKeyValueHeads = cfg.Text.NumAttentionHeads
		}
		cfg.TowerLayers = cfg.Vision.NumHiddenLayers
		if cfg.Layout == HF && raw.FeatureLayer != nil {
			if cfg.TowerLayers = *raw.FeatureLayer; cfg.TowerLayers < 0 {
				cfg.TowerLayers += cfg.Vision.NumHiddenLayers + 1
			}
		}
		cfg.Pinpoints, err = parsePinpoints(raw.Pinpoints, cfg.Vision.ImageSize, cfg.Layout)
	}
	if err == nil {
		err = cfg.Validate()
	} else {
		err = fmt.Errorf("llavaov: config.json: %w", err)
	}
	return cfg, err
}

// LoadTextConfig reads the config.json of a decoder alone (Qwen2ForCausalLM).
func LoadTextConfig(text []byte) (TextConfig, error) {
	part := textDefaults()
	if err := json.Unmarshal(text, &part); err != nil {
		return TextConfig{}, fmt.Errorf("llavaov: config.json: %w", err)
	}
	if err := part.supported(); err != nil {
		return TextConfig{}, fmt.Errorf("llavaov: config.json: %w", err)
	}
	if part.RopeParameters != nil && part.RopeParameters.RopeTheta != 0 {
		part.RopeTheta = part.RopeParameters.RopeTheta
	}
	if part.NumKeyValueHeads == 0 {
		part.NumKeyValueHeads = part.NumAttentionHeads
	}
	return part.TextConfig, part.Validate()
}

// LoadVisionConfig reads the config.json of a tower alone (SiglipVisionModel).
func LoadVisionConfig(text []byte) (VisionConfig, error) {
	v := VisionConfig{NumChannels: 3, HiddenAct: "gelu_pytorch_tanh", LayerNormEps: 1e-6}
	if err := json.Unmarshal(text, &v); err != nil {
		return v, fmt.Errorf("llavaov: vision_config: %w", err)
	}
	return v, v.Validate()
}

func textDefaults() textJSON {
	return textJSON{TextConfig: TextConfig{HiddenAct: "silu", MaxPositionEmbeddings: 32768, RMSNormEps: 1e-6, RopeTheta: 10000}}
}

func (t textJSON) supported() error {
	switch {
	case t.UseSlidingWindow:
		return errors.New("use_sliding_window is true, only full attention is known")
	case len(t.RopeScaling) > 0 && !bytes.Equal(t.RopeScaling, []byte("null")):
		return fmt.Errorf("rope_scaling %s is not known", t.RopeScaling)
	case t.RopeParameters != nil && t.RopeParameters.RopeType != "" && t.RopeParameters.RopeType != "default":
		return fmt.Errorf("rope_type %q is not known", t.RopeParameters.RopeType)
	}
	return nil
}

func (c configJSON) supported() error {
	for _, f := range []struct {
		name string
		got  *string
		want string
	}{
		{"mm_projector_type", c.ProjectorType, "mlp2x_gelu"},
		{"mm_patch_merge_type", c.MergeType, "spatial_unpad"},
		{"mm_vision_select_feature", c.SelectFeature, "patch"},
		{"vision_feature_select_strategy", c.SelectStrategy, "full"},
		{"projector_hidden_act", c.ProjectorHiddenAct, "gelu"},
	} {
		if f.got != nil && *f.got != f.want {
			return fmt.Errorf("%s is %q, only %q is known", f.name, *f.got, f.want)
		}
	}
	if c.ProjectorBias != nil && !*c.ProjectorBias || c.NewlineParameter != nil && !*c.NewlineParameter {
		return errors.New("multimodal_projector_bias and use_image_newline_parameter must be true")
	}
	return nil
}

var pinpointPair = regexp.MustCompile(`\(\s*(\d+)\s*x\s*(\d+)\s*\)`)

// parsePinpoints reads the list of pairs ({height, width} in the HF layout) or the text "(1x1),...,(6x6)", which means
// all pairs from the first to the last, times the tile size, width outermost. Absent means that text.
func parsePinpoints(raw json.RawMessage, tile int, layout Layout) ([][2]int, error) {
	var list [][2]int
	text := "(1x1),...,(6x6)"
	if len(raw) > 0 && raw[0] == '[' {
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, fmt.Errorf("image_grid_pinpoints: %w", err)
		}
		for i, p := range list {
			if layout == HF {
				list[i] = [2]int{p[1], p[0]}
			}
		}
		return list, nil
	}
	if len(raw) > 0 && raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, fmt.Errorf("image_grid_pinpoints: %w", err)
		}
	}
	pairs := pinpointPair.FindAllStringSubmatch(text, -1)
	if len(pairs) == 0 {
		return nil, fmt.Errorf("image_grid_pinpoints %q holds no (AxB)", text)
	}
	var ends [2][2]int
	for i, p := range [][]string{pairs[0], pairs[len(pairs)-1]} {
		for j := range 2 {
			n, err := strconv.Atoi(p[1+j])
			if err != nil || n < 1 || n > 64 {
				return nil, fmt.Errorf("image_grid_pinpoints %q: %s is not in 1..64", text, p[1+j])
			}
			ends[i][j] = n
		}
	}
	for w := ends[0][0]; w <= ends[1][0]; w++ {
		for h := ends[0][1]; h <= ends[1][1]; h++ {
			list = append(list, [2]int{w * tile, h * tile})
		}
	}
	return list, nil
}

// maxTiles is the N of "anyres_max_N"; ok is false for "pad".
func maxTiles(aspect string) (n int, ok bool, err error) {
	if aspect == "pad" {
		return 0, false, nil
	}
	rest, found := strings.CutPrefix(aspect, "anyres_max_")
	n, err = strconv.Atoi(rest)
	if !found || err != nil || n < 1 {
		return 0, false, fmt.Errorf(`llavaov: image aspect ratio %q, want "pad" or "anyres_max_N"`, aspect)
	}
	return n, true, nil
}
