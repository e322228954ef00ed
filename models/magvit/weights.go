package magvit

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"imagecot/internal/graphx"

	"github.com/gomlx/gomlx/core/tensors"
)

// Shapes returns the name and shape of every weight of the architecture, in the checkpoint's layout.
func Shapes(cfg Config) map[string][]int {
	t := shapeTable{}
	t.encoder(cfg.Encoder)
	t.decoder(cfg.Decoder)
	return t
}

type shapeTable map[string][]int

func (t shapeTable) conv(name string, in, out, kernel int) {
	t[name+".weight"], t[name+".bias"] = []int{out, in, kernel, kernel}, []int{out}
}

func (t shapeTable) norm(name string, ch int) { t[name+".weight"], t[name+".bias"] = []int{ch}, []int{ch} }

func (t shapeTable) block(name string, in, out, kernel int) {
	t.norm(name+".norm1", in)
	t.conv(name+".conv1", in, out, kernel)
	t.norm(name+".norm2", out)
	t.conv(name+".conv2", out, out, kernel)
	if in != out {
		t.conv(name+".nin_shortcut", in, out, 1)
	}
}

func (t shapeTable) middle(name string, n Network) {
	ch := n.channelsLowest()
	t.block(name+".block_1", ch, ch, n.kernel(true))
	t.block(name+".block_2", ch, ch, n.kernel(true))
	if n.MidAttn {
		t.norm(name+".attn_1.norm", ch)
		for _, part := range []string{"q", "k", "v", "proj_out"} {
			t.conv(name+".attn_1."+part, ch, ch, 1)
		}
	}
}

func (t shapeTable) encoder(n Network) {
	t.conv("encoder.conv_in", n.InCh, n.Ch, 3)
	last := len(n.ChMult) - 1
	for i := range n.ChMult {
		in, out := n.channelsInto(i, true), n.Ch*n.ChMult[i]
		for j := range n.NumResBlocks[i] {
			t.block(fmt.Sprintf("encoder.down.%d.block.%d", i, j), in, out, n.kernel(i == last))
			in = out
		}
		if i < last {
			t.conv(fmt.Sprintf("encoder.down.%d.downsample.conv", i), out, out, 3)
		}
	}
	t.middle("encoder.mid", n)
	t.norm("encoder.norm_out", n.channelsLowest())
	t.conv("encoder.conv_out", n.channelsLowest(), n.ZChannels, 3)
	t.conv("encoder.quant_conv", n.ZChannels, n.ZChannels, 1)
}

func (t shapeTable) decoder(n Network) {
	t.conv("decoder.post_quant_conv", n.ZChannels, n.ZChannels, 1)
	t.conv("decoder.conv_in", n.ZChannels, n.channelsLowest(), 3)
	t.middle("decoder.mid", n)
	for i := range n.ChMult {
		in, out := n.channelsInto(i, false), n.Ch*n.ChMult[i]
		for j := range n.NumResBlocks[i] {
			t.block(fmt.Sprintf("decoder.up.%d.block.%d", i, j), in, out, 3)
			in = out
		}
		if i > 0 {
			t.conv(fmt.Sprintf("decoder.up.%d.upsample.conv", i), out, out, 3)
		}
	}
	t.norm("decoder.norm_out", n.Ch*n.ChMult[0])
	t.conv("decoder.conv_out", n.Ch*n.ChMult[0], n.OutCh, 3)
}

// Init returns random weights to train from: convolutions N(0, 2/fan-in) with zero bias, norms 1 and 0. The second
// convolution of each block starts at half of that, which keeps the sum of block and shortcut small at first.
// The tensors depend on the generator's state alone.
func Init(cfg Config, rng *rand.Rand) map[string]*tensors.Tensor {
	shapes := Shapes(cfg)
	out := make(map[string]*tensors.Tensor, len(shapes))
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		dims := shapes[name]
		n := 1
		for _, d := range dims {
			n *= d
		}
		flat := make([]float32, n)
		switch isWeight := strings.HasSuffix(name, ".weight"); {
		case isWeight && len(dims) == 1: // GroupNorm
			for i := range flat {
				flat[i] = 1
			}
		case isWeight:
			std := math.Sqrt(2 / float64(dims[1]*dims[2]*dims[3]))
			if strings.HasSuffix(name, ".conv2.weight") {
				std /= 2
			}
			for i := range flat {
				flat[i] = float32(rng.NormFloat64() * std)
			}
		}
		out[name] = graphx.Tensor(flat, dims...)
	}
	return out
}
