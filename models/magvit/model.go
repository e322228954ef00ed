package magvit

import (
	"fmt"
	"math"

	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// normEps is the epsilon of every GroupNorm.
const normEps = 1e-6

// Observer is shown intermediate results under the names that parity cases use, for example "mid_block_1".
type Observer func(name string, x *Node)

// network builds one half of the tokenizer. see may be nil.
type network struct {
	cfg Config
	net Network
	see Observer
}

func (b network) show(name string, x *Node) *Node {
	if b.see != nil {
		b.see(name, x)
	}
	return x
}

// Encode turns x [B, H, W, 3] in [-1, 1] into z [B, H/f, W/f, bits], f = cfg.Factor().
func Encode(s graphx.Scope, cfg Config, x *Node) *Node { return EncodeObserved(s, cfg, x, nil) }

// EncodeObserved is Encode, shown to see on the way.
func EncodeObserved(s graphx.Scope, cfg Config, x *Node, see Observer) *Node {
	d, f := x.Shape().Dimensions, cfg.Factor()
	if len(d) != 4 || d[3] != 3 || d[1]%f != 0 || d[2]%f != 0 {
		panic(fmt.Errorf("magvit: encode: images are %v, want [B, H, W, 3] with H and W divisible by %d", d, f))
	}
	b := network{cfg, cfg.Encoder, see}
	s = s.In("encoder")
	h := b.show("conv_in", nn.Conv3x3(s.In("conv_in"), x))
	levels := len(b.net.ChMult)
	for i := range levels {
		level := s.In("down", i)
		for j := range b.net.NumResBlocks[i] {
			h = b.show(fmt.Sprintf("down%d_block%d", i, j), b.block(level.In("block", j), h))
		}
		if i < levels-1 {
			h = nn.Conv2D(level.In("downsample", "conv"), h, 2, [4]int{0, 1, 0, 1})
			b.show(fmt.Sprintf("down%d_downsample", i), h)
		}
	}
	h = b.middle(s.In("mid"), h)
	h = b.show("norm_out", b.norm(s.In("norm_out"), h))
	h = nn.Conv3x3(s.In("conv_out"), nn.SiLU(h))
	return nn.Conv2D(s.In("quant_conv"), h, 1, [4]int{})
}

// Decode turns codes [B, h, w, bits] of +-1 into images [B, h*f, w*f, 3], about [-1, 1] but not clamped;
// f = 2^(decoder levels - 1).
func Decode(s graphx.Scope, cfg Config, codes *Node) *Node { return DecodeObserved(s, cfg, codes, nil) }

// DecodeObserved is Decode, shown to see on the way.
func DecodeObserved(s graphx.Scope, cfg Config, codes *Node, see Observer) *Node {
	b := network{cfg, cfg.Decoder, see}
	s = s.In("decoder")
	h := b.show("post_quant_conv", nn.Conv2D(s.In("post_quant_conv"), codes, 1, [4]int{}))
	h = b.show("conv_in", nn.Conv3x3(s.In("conv_in"), h))
	h = b.middle(s.In("mid"), h)
	for i := len(b.net.ChMult) - 1; i >= 0; i-- {
		level := s.In("up", i)
		for j := range b.net.NumResBlocks[i] {
			h = b.block(level.In("block", j), h)
		}
		if i > 0 {
			h = nn.UpsampleConv3x3(level.In("upsample", "conv"), h)
			b.show(fmt.Sprintf("up%d_upsample", i), h)
		}
	}
	h = b.show("norm_out", b.norm(s.In("norm_out"), h))
	return nn.Conv3x3(s.In("conv_out"), nn.SiLU(h))
}

// DecodeCodes turns tokens [B, h*w] (int32, row by row) into images [B, h*f, w*f, 3] like Decode.
func DecodeCodes(s graphx.Scope, cfg Config, indices *Node, h, w int) *Node {
	return Decode(s, cfg, Codes(cfg, indices, h, w))
}

// Quantize turns z [B, h, w, bits] into tokens [B, h*w] (int32). Bit c is z_c > 0 and counts 2^(bits-1-c).
func Quantize(cfg Config, z *Node) *Node {
	d := z.Shape().Dimensions
	bits := ConvertDType(GreaterThan(z, ZerosLike(z)), dtypes.Int32)
	index := ReduceSum(Mul(bits, ExpandLeftToRank(Const(z.Graph(), cfg.powers()), 4)), -1)
	return Reshape(index, d[0], d[1]*d[2])
}

// Codes turns tokens [B, h*w] (int32) into codes [B, h, w, bits] of +-1.
func Codes(cfg Config, indices *Node, h, w int) *Node {
	g := indices.Graph()
	x := InsertAxes(Reshape(indices, -1, h, w), -1)
	power := ExpandLeftToRank(Const(g, cfg.powers()), 4)
	x = Div(BroadcastToDims(x, x.Shape().Dimensions[0], h, w, cfg.CodebookDim),
		BroadcastToDims(power, x.Shape().Dimensions[0], h, w, cfg.CodebookDim))
	bit := Sub(x, MulScalar(Div(x, Scalar(g, dtypes.Int32, 2)), 2)) // the quotient's lowest bit
	return AddScalar(MulScalar(ConvertDType(bit, dtypes.Float32), 2), -1)
}

// powers returns 2^(bits-1) .. 1, the worth of each channel's bit.
func (c Config) powers() []int32 {
	p := make([]int32, c.CodebookDim)
	for i := range p {
		p[i] = 1 << (c.CodebookDim - 1 - i)
	}
	return p
}

// middle is block, attention (where the architecture has it), block at the lowest resolution.
func (b network) middle(s graphx.Scope, x *Node) *Node {
	x = b.show("mid_block_1", b.block(s.In("block_1"), x))
	if b.net.MidAttn {
		x = b.show("mid_attn_1", b.attention(s.In("attn_1"), x))
	}
	return b.show("mid_block_2", b.block(s.In("block_2"), x))
}

// block is conv2(swish(norm2(conv1(swish(norm1(x)))))) + x, with a 1x1 convolution of x where the channels change.
// The kernels' side is read from the weights.
func (b network) block(s graphx.Scope, x *Node) *Node {
	h := conv(s.In("conv1"), nn.SiLU(b.norm(s.In("norm1"), x)))
	h = conv(s.In("conv2"), nn.SiLU(b.norm(s.In("norm2"), h)))
	if s.Has("nin_shortcut.weight") {
		x = conv(s.In("nin_shortcut"), x)
	}
	return Add(x, h)
}

// attention is proj_out(softmax(q k^T / sqrt C) v) + x, one head over all positions.
func (b network) attention(s graphx.Scope, x *Node) *Node {
	d := x.Shape().Dimensions
	h := b.norm(s.In("norm"), x)
	flat := func(name string) *Node { return Reshape(conv(s.In(name), h), d[0], 1, d[1]*d[2], d[3]) }
	a := nn.Attention(flat("q"), flat("k"), flat("v"), nil, 1/math.Sqrt(float64(d[3])))
	return Add(x, conv(s.In("proj_out"), Reshape(a, d...)))
}

func (b network) norm(s graphx.Scope, x *Node) *Node {
	return nn.GroupNorm(s, x, b.cfg.groups(x.Shape().Dimensions[3]), normEps)
}

// conv keeps the image's size: 1x1 without padding or 3x3 with zeros around.
func conv(s graphx.Scope, x *Node) *Node {
	p := s.Param("weight").Shape().Dimensions[2] / 2
	return nn.Conv2D(s, x, 1, [4]int{p, p, p, p})
}
