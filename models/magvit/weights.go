package magvit

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"imagecot/ckpt"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute/dtypes"
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

func (t shapeTable) norm(name string, ch int) {
	t[name+".weight"], t[name+".bias"] = []int{ch}, []int{ch}
}

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

// codebook tensors that a checkpoint may hold; they follow from the number of bits.
const (
	embeddingName = "quantize.embedding"  // [codes, bits] of +-1
	powersName    = "quantize.power_vals" // [bits], 2^(bits-1) .. 1, int64
)

// Check compares the weights with the architecture: every tensor of Shapes must be there in its shape, and nothing
// else but the codebook, whose values are checked. The error names the first few that differ and guesses at the cause.
func Check(cfg Config, w *graphx.Weights) error {
	have := map[string][]int{}
	for _, name := range w.Names() {
		have[name] = w.Get(name).Shape().Dimensions
	}
	if err := compare(cfg, have); err != nil {
		return err
	}
	for _, name := range []string{embeddingName, powersName} {
		if t := w.Get(name); t != nil {
			if err := checkCodebook(cfg, name, t); err != nil {
				return fmt.Errorf("magvit: weights: %q: %w", name, err)
			}
		}
	}
	return nil
}

// CheckFile is Check for names and shapes of an open checkpoint, before anything of it is loaded.
func CheckFile(cfg Config, f *ckpt.File) error { return compare(cfg, f.Shapes()) }

func compare(cfg Config, have map[string][]int) error {
	want := Shapes(cfg)
	for name, shape := range map[string][]int{embeddingName: {cfg.Codes(), cfg.CodebookDim}, powersName: {cfg.CodebookDim}} {
		if have[name] != nil {
			want[name] = shape
		}
	}
	f := ckpt.Compare("magvit", have, want)
	if f == nil {
		return nil
	}
	switch {
	case f.Unknown("showo."):
		f.Guess = "the weights of the generator"
	case f.Unknown("loss.") || f.Unknown("discriminator"):
		f.Guess = "a training checkpoint with its discriminator"
	case f.Unknown("quantize.embedding.weight"):
		f.Guess = "a VQGAN, which looks its codes up"
	default:
		f.Guess = "does config.json belong to these weights"
	}
	return f
}

// checkCodebook compares a codebook tensor with what the quantiser computes.
func checkCodebook(cfg Config, name string, t *tensors.Tensor) error {
	want := []float64{}
	dims := []int{cfg.CodebookDim}
	if name == embeddingName {
		dims = []int{cfg.Codes(), cfg.CodebookDim}
	}
	if got := t.Shape().Dimensions; !slices.Equal(got, dims) {
		return fmt.Errorf("has shape %v, want %v", got, dims)
	}
	for _, p := range cfg.powers() {
		want = append(want, float64(p))
	}
	if name == embeddingName {
		want = want[:0]
		for code := range cfg.Codes() {
			for _, p := range cfg.powers() {
				want = append(want, float64(code/int(p)%2*2-1))
			}
		}
	}
	got, err := floats(t)
	if err != nil {
		return err
	}
	for i := range want {
		if got[i] != want[i] {
			return fmt.Errorf("element %d is %v, want %v", i, got[i], want[i])
		}
	}
	return nil
}

func floats(t *tensors.Tensor) ([]float64, error) {
	switch t.DType() {
	case dtypes.Float32:
		return widen(tensors.MustCopyFlatData[float32](t)), nil
	case dtypes.Int64:
		return widen(tensors.MustCopyFlatData[int64](t)), nil
	case dtypes.Int32:
		return widen(tensors.MustCopyFlatData[int32](t)), nil
	}
	return nil, fmt.Errorf("has type %s", t.DType())
}

func widen[T float32 | int32 | int64](v []T) []float64 {
	out := make([]float64, len(v))
	for i := range v {
		out[i] = float64(v[i])
	}
	return out
}

// split returns the weights below "encoder" and "decoder", so that each program is fed what it reads.
func split(w *graphx.Weights) (encoder, decoder *graphx.Weights) {
	e, d := map[string]*tensors.Tensor{}, map[string]*tensors.Tensor{}
	for _, name := range w.Names() {
		switch part, _, _ := strings.Cut(name, "."); part {
		case "encoder":
			e[name] = w.Get(name)
		case "decoder":
			d[name] = w.Get(name)
		}
	}
	return graphx.NewWeights(e), graphx.NewWeights(d)
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
