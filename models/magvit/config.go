// Package magvit is MAGVIT-v2, the image tokenizer that Show-o decodes through (paper Sec. 2.1): a convolutional
// encoder, a lookup-free quantiser that keeps the sign of each latent channel, and a convolutional decoder.
//
//	encode: image [-1, 1] -> encoder -> z -> bits z > 0 -> index, channel 0 the most significant bit
//	decode: index -> bits as +-1 -> decoder -> image
//
// Tensor names are those of showlab/magvitv2. It knows nothing of prompts, paths or judges.
package magvit

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Config is the architecture. Its JSON is config.json of the checkpoint; the published one holds none of these
// fields, so every absent field has the published model's value.
type Config struct {
	CodebookDim int     `json:"codebook_dim"` // bits of a token
	Encoder     Network `json:"encoder"`
	Decoder     Network `json:"decoder"`
	// NormGroupSize is the number of channels in a group of every GroupNorm; 0 means 32 groups whatever the channels.
	NormGroupSize int `json:"norm_group_size,omitempty"`
}

// Network is one half of the tokenizer. Slices are indexed by level; level i works at Resolution / 2^i.
type Network struct {
	Ch              int   `json:"ch"`
	ChMult          []int `json:"ch_mult"`
	NumResBlocks    []int `json:"num_res_blocks"`
	AttnResolutions []int `json:"attn_resolutions"`
	InCh            int   `json:"in_ch"`
	OutCh           int   `json:"out_ch"`
	Resolution      int   `json:"resolution"`
	ZChannels       int   `json:"z_channels"`
	DoubleZ         bool  `json:"double_z"`
	// MidAttn says whether an attention stands between the two blocks of the lowest resolution (published: yes).
	MidAttn bool `json:"mid_attn"`
	// BottleneckKernel is the side, 1 or 3, of the encoder's block kernels at its lowest level and in its middle
	// (published: 3). With 1 a code depends on its neighbourhood only.
	BottleneckKernel int `json:"bottleneck_kernel,omitempty"`
}

// Official returns the architecture of showlab/magvitv2 at 256 x 256.
func Official() Config {
	return Config{
		CodebookDim: 13,
		Encoder:     officialNetwork([]int{1, 2, 2, 4, 4}, []int{4, 3, 4, 3, 4}),
		Decoder:     officialNetwork([]int{1, 1, 2, 2, 4}, []int{4, 4, 3, 4, 3}),
	}
}

func officialNetwork(mult, blocks []int) Network {
	return Network{
		Ch: 128, ChMult: mult, NumResBlocks: blocks, AttnResolutions: []int{5}, InCh: 3, OutCh: 3,
		Resolution: 256, ZChannels: 13, MidAttn: true, BottleneckKernel: 3,
	}
}

// Tiny returns the architecture of the tiny world's tokenizer: 64 x 64 images, 8 x 8 tokens of 10 bits.
func Tiny() Config {
	c := Config{
		CodebookDim:   10,
		Encoder:       officialNetwork([]int{1, 1, 2, 3}, []int{0, 1, 1, 1}),
		Decoder:       officialNetwork([]int{1, 1, 2, 3}, []int{0, 1, 1, 0}),
		NormGroupSize: 16,
	}
	for _, n := range []*Network{&c.Encoder, &c.Decoder} {
		n.Ch, n.Resolution, n.ZChannels, n.MidAttn = 32, 64, 10, false
	}
	c.Encoder.BottleneckKernel = 1
	return c
}

// LoadConfig reads config.json. Unknown fields are accepted; z_channels follows codebook_dim where it is absent.
func LoadConfig(data []byte) (Config, error) {
	var dims struct {
		CodebookDim int `json:"codebook_dim"`
	}
	if err := json.Unmarshal(data, &dims); err != nil {
		return Config{}, fmt.Errorf("magvit: config: %w", err)
	}
	c := Official()
	if dims.CodebookDim != 0 {
		c.Encoder.ZChannels, c.Decoder.ZChannels = dims.CodebookDim, dims.CodebookDim
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return Config{}, fmt.Errorf("magvit: config: %w", err)
	}
	return c, c.Validate()
}

// Codes is the number of different tokens, 2^CodebookDim.
func (c Config) Codes() int { return 1 << c.CodebookDim }

// Factor is the number of pixels along the side of a token when encoding.
func (c Config) Factor() int { return 1 << (len(c.Encoder.ChMult) - 1) }

// Grid is the number of tokens along the side of a square image of the encoder's resolution.
func (c Config) Grid() int { return c.Encoder.Resolution / c.Factor() }

// groups of a GroupNorm over ch channels.
func (c Config) groups(ch int) int {
	if c.NormGroupSize > 0 {
		return ch / c.NormGroupSize
	}
	return 32
}

// Validate checks what graph building relies on.
func (c Config) Validate() error {
	if c.CodebookDim < 1 || c.CodebookDim > 30 {
		return fmt.Errorf("magvit: config: codebook_dim is %d, want 1 to 30", c.CodebookDim)
	}
	if c.NormGroupSize < 0 {
		return fmt.Errorf("magvit: config: norm_group_size is %d", c.NormGroupSize)
	}
	if err := c.validateNetwork(c.Encoder, true); err != nil {
		return fmt.Errorf("magvit: config: encoder: %w", err)
	}
	if err := c.validateNetwork(c.Decoder, false); err != nil {
		return fmt.Errorf("magvit: config: decoder: %w", err)
	}
	return nil
}

func (c Config) validateNetwork(n Network, encoder bool) error {
	levels := len(n.ChMult)
	switch {
	case levels == 0 || levels > 10:
		return fmt.Errorf("ch_mult has %d levels, want 1 to 10", levels)
	case len(n.NumResBlocks) != levels:
		return fmt.Errorf("num_res_blocks has %d levels, ch_mult %d", len(n.NumResBlocks), levels)
	case n.Ch < 1 || n.Ch > 1<<16:
		return fmt.Errorf("ch is %d", n.Ch)
	case n.InCh != 3 || n.OutCh != 3:
		return fmt.Errorf("in_ch is %d and out_ch %d, want 3 colours", n.InCh, n.OutCh)
	case n.ZChannels != c.CodebookDim:
		return fmt.Errorf("z_channels is %d, codebook_dim %d", n.ZChannels, c.CodebookDim)
	case n.DoubleZ:
		return errors.New("double_z is not supported")
	case n.Resolution < 1 || n.Resolution%(1<<(levels-1)) != 0:
		return fmt.Errorf("resolution %d is not divisible by 2^%d", n.Resolution, levels-1)
	case n.BottleneckKernel != 1 && n.BottleneckKernel != 3:
		return fmt.Errorf("bottleneck_kernel is %d, want 1 or 3", n.BottleneckKernel)
	case !encoder && n.BottleneckKernel != 3:
		return errors.New("bottleneck_kernel belongs to the encoder")
	}
	for i := range levels {
		for _, r := range n.AttnResolutions {
			if r == n.Resolution>>i {
				return fmt.Errorf("attention at level %d (resolution %d) is not supported", i, r)
			}
		}
		if err := c.validateLevel(n, i, encoder); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) validateLevel(n Network, i int, encoder bool) error {
	in, out := n.channelsInto(i, encoder), n.Ch*n.ChMult[i]
	if n.ChMult[i] < 1 || n.ChMult[i] > 1<<10 || n.NumResBlocks[i] < 0 || n.NumResBlocks[i] > 1<<10 {
		return fmt.Errorf("level %d: ch_mult %d, num_res_blocks %d", i, n.ChMult[i], n.NumResBlocks[i])
	}
	if n.NumResBlocks[i] == 0 && in != out {
		return fmt.Errorf("level %d has no blocks but changes %d channels to %d", i, in, out)
	}
	for _, ch := range []int{in, out} {
		if size := c.NormGroupSize; size > 0 && ch%size != 0 {
			return fmt.Errorf("level %d: %d channels are no multiple of norm_group_size %d", i, ch, size)
		} else if size == 0 && ch%32 != 0 {
			return fmt.Errorf("level %d: %d channels are no multiple of 32", i, ch)
		}
	}
	return nil
}

// channelsInto returns the channels that enter level i, which the encoder reaches from i-1 and the decoder from i+1.
func (n Network) channelsInto(i int, encoder bool) int {
	switch {
	case encoder && i == 0:
		return n.Ch
	case encoder:
		return n.Ch * n.ChMult[i-1]
	case i == len(n.ChMult)-1:
		return n.Ch * n.ChMult[i]
	}
	return n.Ch * n.ChMult[i+1]
}

// channelsLowest returns the channels of the lowest level.
func (n Network) channelsLowest() int { return n.Ch * n.ChMult[len(n.ChMult)-1] }

// kernel returns the side of the block kernels of the lowest level and the middle.
func (n Network) kernel(lowest bool) int {
	if lowest {
		return n.BottleneckKernel
	}
	return 3
}
