package showo

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

// InitOptions choose the starting weights.
type InitOptions struct {
	// Structured starts from what a small model takes long to find: code table and head columns from a random linear
	// map of the codes' bits, two-dimensional sinusoids as image positions, N(0, .06) words and marks, block matrices
	// N(0, 1/fan-in), projections back to the stream half of that. Otherwise all matrices are N(0, .02).
	// It needs a codebook of 2^bits and a square grid.
	Structured bool
}

// Init returns random float32 weights to train from; biases are 0 and norms 1. They depend on the generator's state
// alone.
func Init(cfg Config, rng *rand.Rand, o InitOptions) (map[string]*tensors.Tensor, error) {
	bits := int(math.Round(math.Log2(float64(cfg.CodebookSize))))
	side := int(math.Round(math.Sqrt(float64(cfg.NumVQTokens))))
	if o.Structured && (1<<bits != cfg.CodebookSize || side*side != cfg.NumVQTokens) {
		return nil, fmt.Errorf("showo: init: a codebook of %d and a grid of %d tokens, want 2^bits and a square", cfg.CodebookSize, cfg.NumVQTokens)
	}
	shapes := Shapes(cfg)
	out := make(map[string]*tensors.Tensor, len(shapes))
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		dims := shapes[name]
		size := 1
		for _, d := range dims {
			size *= d
		}
		flat := make([]float32, size)
		switch {
		case strings.HasSuffix(name, "norm.weight"):
			for i := range flat {
				flat[i] = 1
			}
		case strings.HasSuffix(name, ".bias"):
		case !o.Structured:
			normal(rng, flat, .02)
		case name == imagePositions:
			sinusoids(flat, side, dims[1])
		case name == "showo.model.embed_tokens.weight":
			normal(rng, flat, .06)
			codes(rng, flat[int(cfg.ImageOffset())*dims[1]:][:cfg.CodebookSize*dims[1]], bits, dims[1], .02)
		case name == "showo.lm_head.weight":
			normal(rng, flat, .02)
			codes(rng, flat[int(cfg.ImageOffset())*dims[1]:][:cfg.CodebookSize*dims[1]], bits, dims[1], .01)
		default:
			std := 1 / math.Sqrt(float64(dims[1]))
			if strings.HasSuffix(name, "dense.weight") || strings.HasSuffix(name, "fc2.weight") {
				std /= 2
			}
			normal(rng, flat, std)
		}
		out[name] = graphx.Tensor(flat, dims...)
	}
	return out, nil
}

func normal(rng *rand.Rand, flat []float32, std float64) {
	for i := range flat {
		flat[i] = float32(rng.NormFloat64() * std)
	}
}

// codes fills rows [2^bits, d] with the row's bits (+-1, most significant first) times a Gaussian map of that
// deviation, plus N(0, .02).
func codes(rng *rand.Rand, flat []float32, bits, d int, std float64) {
	m := make([]float32, bits*d)
	normal(rng, m, std)
	normal(rng, flat, .02)
	for code := range len(flat) / d {
		row := flat[code*d : (code+1)*d]
		for b := range bits {
			sign := float32(code>>(bits-1-b)&1)*2 - 1
			for i := range row {
				row[i] += sign * m[b*d+i]
			}
		}
	}
}

// sinusoids fills [side*side, d]: a quarter of the channels each for the sine and cosine of row and column, with steps
// from pi down to pi*10^-1.2 a cell in equal ratios, times .09.
func sinusoids(flat []float32, side, d int) {
	quarter := d / 4
	for cell := range side * side {
		row := flat[cell*d : (cell+1)*d]
		for i := range quarter {
			step := math.Pi * math.Pow(10, -1.2*float64(i)/float64(max(quarter-1, 1)))
			for axis, at := range []int{cell / side, cell % side} {
				sin, cos := math.Sincos(step * float64(at))
				row[2*axis*quarter+i], row[(2*axis+1)*quarter+i] = float32(.09*sin), float32(.09*cos)
			}
		}
	}
}
