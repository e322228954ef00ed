// Package showo is Show-o (Xie et al., arXiv 2408.12528), the generator of the paper (Sec. 2.1): one Phi-1.5
// transformer that reads text causally and image tokens in all directions, and decodes an image in parallel steps.
//
// One decoding step of a path, with MaskGIT's rule in package maskgit:
//
//  1. cond = [t2i] text [soi] image tokens, masked ones included [eoi]; uncond = the same with an empty text
//  2. h = (1+g) h_cond - g h_uncond at the masked positions; p = softmax(head(h)) over the codebook
//  3. sample every masked token, keep the confident ones, mask the others again
//
// Text rows never see the image, so their keys and values are computed once a prompt. The package knows no judge, no
// strategy and no pixels: a tokenizer for images is handed in as ImageDecoder.
package showo

import (
	"encoding/json"
	"fmt"
	"math"

	"imagecot/cot"
)

// Config is config.json: the published fields, and two optional objects of ours that make other sizes possible.
type Config struct {
	CodebookSize int   `json:"codebook_size"`                    // K
	NumVQTokens  int   `json:"num_vq_tokens"`                    // N
	LLMVocabSize int   `json:"llm_vocab_size"`                   // text ids, [PAD] excluded
	VocabSize    int   `json:"vocab_size"`                       // V = LLMVocabSize + special tokens + K + 1
	MaskTokenID  int32 `json:"mask_token_id"`                    // V - 1
	NumSpecial   int   `json:"num_new_special_tokens,omitempty"` // [PAD] and nine task marks; 0 means: what V leaves
	WithClipViT  bool  `json:"w_clip_vit"`
	// MaxSeqLength is S, the most text ids of a prompt (marks included, one fewer than its padded width). It is in no
	// published checkpoint; 0 means 128.
	MaxSeqLength int `json:"max_seq_length,omitempty"`
	// LLM holds the transformer's sizes. Published checkpoints name Phi-1.5 instead, which is the default.
	LLM LLMConfig `json:"llm_config"`
}

// LLMConfig has the field names of Phi's config.json.
type LLMConfig struct {
	HiddenSize       int     `json:"hidden_size"`
	IntermediateSize int     `json:"intermediate_size"`
	Layers           int     `json:"num_hidden_layers"`
	Heads            int     `json:"num_attention_heads"`
	KeyValueHeads    int     `json:"num_key_value_heads"`
	PartialRotary    float64 `json:"partial_rotary_factor"`
	RopeTheta        float64 `json:"rope_theta"`
	LayerNormEps     float64 `json:"layer_norm_eps"`
	HiddenAct        string  `json:"hidden_act"`
	QKLayerNorm      bool    `json:"qk_layernorm"` // Show-o switches it on whatever Phi says
	EOSTokenID       int32   `json:"eos_token_id"`
	// ImagePositionEmbeddings adds a learned table [N, hidden] to the embeddings of the image positions.
	// Deviation D16: not in Show-o; the tiny world's model does not find its neighbours without it.
	ImagePositionEmbeddings bool `json:"image_position_embeddings,omitempty"`
}

// Phi15 is the transformer of the published checkpoints.
func Phi15() LLMConfig {
	return LLMConfig{
		HiddenSize: 2048, IntermediateSize: 8192, Layers: 24, Heads: 32, KeyValueHeads: 32, PartialRotary: .5,
		RopeTheta: 10000, LayerNormEps: 1e-5, HiddenAct: "gelu_new", QKLayerNorm: true, EOSTokenID: 50256,
	}
}

// Tiny is the tiny world's generator over a text vocabulary of that size whose last id ends a text.
func Tiny(textVocab int, eos int32) Config {
	return Config{
		CodebookSize: 1024, NumVQTokens: 64, LLMVocabSize: textVocab, NumSpecial: specialTokens,
		VocabSize: textVocab + specialTokens + 1024 + 1, MaskTokenID: int32(textVocab + specialTokens + 1024),
		MaxSeqLength: 16,
		LLM: LLMConfig{
			HiddenSize: 128, IntermediateSize: 512, Layers: 6, Heads: 4, KeyValueHeads: 4, PartialRotary: .5,
			RopeTheta: 10000, LayerNormEps: 1e-5, HiddenAct: "gelu_new", QKLayerNorm: true, EOSTokenID: eos,
			ImagePositionEmbeddings: true,
		},
	}
}

// LoadConfig reads config.json. Unknown fields are accepted: published files hold some.
func LoadConfig(data []byte) (Config, error) {
	c := Config{LLM: Phi15()}
	if err := json.Unmarshal(data, &c); err != nil {
		return Config{}, fmt.Errorf("showo: config.json: %w", err)
	}
	if c.NumSpecial == 0 {
		c.NumSpecial = c.VocabSize - 1 - c.CodebookSize - c.LLMVocabSize
	}
	if c.MaxSeqLength == 0 {
		c.MaxSeqLength = 128
	}
	return c, c.Validate()
}

// specialTokens is the number of ids between the text and the image tokens.
const specialTokens = 10

// Validate reports sizes that contradict one another.
func (c Config) Validate() error {
	l := c.LLM
	for _, v := range []struct {
		name        string
		value, most int
	}{
		{"codebook_size", c.CodebookSize, 1 << 24},
		{"num_vq_tokens", c.NumVQTokens, 1 << 16},
		{"llm_vocab_size", c.LLMVocabSize, 1 << 24},
		{"max_seq_length", c.MaxSeqLength, 1 << 16},
		{"hidden_size", l.HiddenSize, 1 << 16},
		{"intermediate_size", l.IntermediateSize, 1 << 20},
		{"num_hidden_layers", l.Layers, 1 << 10},
		{"num_attention_heads", l.Heads, 1 << 10},
	} {
		if v.value < 1 || v.value > v.most {
			return fmt.Errorf("showo: config: %s is %d, want 1 to %d", v.name, v.value, v.most)
		}
	}
	r := c.rotary()
	switch {
	case c.WithClipViT:
		return fmt.Errorf("showo: config: w_clip_vit models (understanding through CLIP) are not supported")
	case c.NumSpecial != specialTokens || c.VocabSize != c.LLMVocabSize+specialTokens+c.CodebookSize+1:
		return fmt.Errorf("showo: config: vocab_size is %d, want llm_vocab_size %d + %d + codebook_size %d + 1",
			c.VocabSize, c.LLMVocabSize, specialTokens, c.CodebookSize)
	case int(c.MaskTokenID) != c.VocabSize-1:
		return fmt.Errorf("showo: config: mask_token_id is %d, want vocab_size - 1 = %d", c.MaskTokenID, c.VocabSize-1)
	case l.HiddenSize%l.Heads != 0:
		return fmt.Errorf("showo: config: hidden_size %d is not divisible by %d heads", l.HiddenSize, l.Heads)
	case l.KeyValueHeads != 0 && l.KeyValueHeads != l.Heads:
		return fmt.Errorf("showo: config: num_key_value_heads is %d, want %d", l.KeyValueHeads, l.Heads)
	case l.HiddenAct != "" && l.HiddenAct != "gelu_new":
		return fmt.Errorf("showo: config: hidden_act is %q, want gelu_new", l.HiddenAct)
	case r < 2 || r%2 != 0 || r > l.HiddenSize/l.Heads:
		return fmt.Errorf("showo: config: partial_rotary_factor %v turns %d of %d channels, want an even number from 2", l.PartialRotary, r, l.HiddenSize/l.Heads)
	case !(l.RopeTheta > 0) || !(l.LayerNormEps > 0) || math.IsInf(l.RopeTheta, 0):
		return fmt.Errorf("showo: config: rope_theta is %v and layer_norm_eps %v, want positive numbers", l.RopeTheta, l.LayerNormEps)
	case l.EOSTokenID < 0 || int(l.EOSTokenID) >= c.LLMVocabSize:
		return fmt.Errorf("showo: config: eos_token_id is %d, want 0 to llm_vocab_size %d - 1", l.EOSTokenID, c.LLMVocabSize)
	case c.MaxSeqLength < 3:
		return fmt.Errorf("showo: config: max_seq_length is %d, want at least 3", c.MaxSeqLength)
	}
	return nil
}

// rotary is the number of channels of a head that are turned by position.
func (c Config) rotary() int {
	return int(c.LLM.PartialRotary * float64(c.LLM.HiddenSize/c.LLM.Heads))
}

// Ids of the vocabulary. The end of a text is also its start (sot = eot).

// EOT is the id that starts and ends every text.
func (c Config) EOT() int32 { return c.LLM.EOSTokenID }

// Pad is the id of padding.
func (c Config) Pad() int32 { return int32(c.LLMVocabSize) }

// SOI marks the start of an image.
func (c Config) SOI() int32 { return int32(c.LLMVocabSize) + 1 }

// EOI marks the end of an image.
func (c Config) EOI() int32 { return int32(c.LLMVocabSize) + 2 }

// T2I opens a text-to-image sequence.
func (c Config) T2I() int32 { return int32(c.LLMVocabSize) + 5 }

// MMU opens a sequence that asks about an image.
func (c Config) MMU() int32 { return int32(c.LLMVocabSize) + 6 }

// ImageOffset is the id of image token 0.
func (c Config) ImageOffset() int32 { return int32(c.LLMVocabSize + specialTokens) }

// ImageIDs maps image tokens 0..K-1 and cot.Masked to vocabulary ids.
func (c Config) ImageIDs(tokens []int32) []int32 {
	ids := make([]int32, len(tokens))
	for i, t := range tokens {
		ids[i] = c.ImageOffset() + t
		if t == cot.Masked {
			ids[i] = c.MaskTokenID
		}
	}
	return ids
}

// checkTokens reports a grid of the wrong size and tokens that do not exist; cot.Masked passes if masked is set.
func (c Config) checkTokens(tokens []int32, masked bool) error {
	if len(tokens) != c.NumVQTokens {
		return fmt.Errorf("%d image tokens, want %d", len(tokens), c.NumVQTokens)
	}
	for i, t := range tokens {
		if (t < 0 || int(t) >= c.CodebookSize) && !(masked && t == cot.Masked) {
			return fmt.Errorf("image token %d is %d, want 0 to %d", i, t, c.CodebookSize-1)
		}
	}
	return nil
}
