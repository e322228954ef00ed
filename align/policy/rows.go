package policy

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/showo"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Masking says how image tokens are hidden when their log-probability is measured.
type Masking struct {
	MinRate float64 // least share that is hidden
	Dropout float64 // share of conditions replaced by the empty one
}

// Rows are text-to-image sequences with hidden image tokens, the inputs of showo.T2ILogProbs.
type Rows struct {
	ids, labels, pads []int32
	n                 int
}

// Add hides tokens of an image [N] under a condition (text ids) and appends the row. What is hidden, and whether the
// condition is dropped, follows from seed, mask and side alone: two images with the same three are masked alike.
func (p *Policy) Add(r *Rows, text, tokens []int32, m Masking, seed uint64, mask int, side uint32) {
	drop := m.Dropout > 0 && prng.New(seed, mask, prng.Dropout, side).Float64() < m.Dropout
	hidden := showo.DrawMask(p.Config.ImageIDs(tokens), p.Config.MaskTokenID, float32(m.MinRate), prng.New(seed, mask, prng.Masking, side))
	row := p.Prompting.T2I(text, hidden.IDs, hidden.Labels, drop)
	r.ids, r.labels, r.pads = append(r.ids, row.IDs...), append(r.labels, row.Labels...), append(r.pads, int32(row.Pads))
	r.n++
}

// Len is the number of rows.
func (r *Rows) Len() int { return r.n }

// Tensors are ids and labels [R, L] and pads [R].
func (r *Rows) Tensors() []*tensors.Tensor {
	l := len(r.ids) / max(r.n, 1)
	return []*tensors.Tensor{graphx.Tensor(r.ids, r.n, l), graphx.Tensor(r.labels, r.n, l), graphx.Tensor(r.pads, r.n)}
}

// Targets counts the targets of each row among its last columns, the image's with soi and eoi: n of showo.T2ILogProbs.
func (r *Rows) Targets(columns int) []int {
	l := len(r.labels) / max(r.n, 1)
	out := make([]int, r.n)
	for row := range out {
		for _, label := range r.labels[(row+1)*l-columns : (row+1)*l] {
			if label >= 0 {
				out[row]++
			}
		}
	}
	return out
}

// repeat appends the last row until there are n.
func (r *Rows) repeat(n int) {
	l := len(r.ids) / r.n
	for r.n < n {
		r.ids, r.labels = append(r.ids, r.ids[len(r.ids)-l:]...), append(r.labels, r.labels[len(r.labels)-l:]...)
		r.pads = append(r.pads, r.pads[len(r.pads)-1])
		r.n++
	}
}

// tileOf is the number of rows that are run at once: of a large model the predictions of one are 60 MB.
func tileOf(w *graphx.Weights) int {
	if w.Large() {
		return 2
	}
	return 32
}

// Scorer computes log-probabilities by fixed weights.
type Scorer struct {
	program *graphx.Program // -> [tile] sums, [tile, N+2] of every token
	weights *graphx.Weights
	tile    int
}

// Scorer computes by the given weights, which belong to the caller and may be replaced between two calls.
func (p *Policy) Scorer(be compute.Backend, w *graphx.Weights) (*Scorer, error) {
	program, err := graphx.NewProgram(be, "log-probabilities", w, graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		each, _ := showo.T2ITokenLogProbs(s, p.Config, in[0], in[1], in[2])
		return []*graph.Node{graph.ReduceSum(each, -1), each}
	})
	return &Scorer{program, w, tileOf(w)}, err
}

// Free drops the weights, after which nothing can be computed. It is for a scorer of Reference, whose weights are its own.
func (r *Scorer) Free() { graphx.Free(r.weights.Tensors()...) }

// Reference computes by the starting weights.
func (p *Policy) Reference(be compute.Backend) (*Scorer, error) {
	w, err := p.Weights()
	if err != nil {
		return nil, err
	}
	return p.Scorer(be, graphx.NewWeights(w))
}

// LogProbs returns one sum a row: log p of the hidden tokens of n rows, which add appends by their numbers. What it will
// take is told to show once it is known. A sum that is no number is an error.
func (r *Scorer) LogProbs(ctx context.Context, n int, add func(rows *Rows, i int), show io.Writer) ([]float32, error) {
	return r.score(ctx, n, add, show, 0)
}

// TokenLogProbs is LogProbs token by token: row-major [n, N+2], 0 where nothing is hidden.
func (r *Scorer) TokenLogProbs(ctx context.Context, n int, add func(rows *Rows, i int)) ([]float32, error) {
	return r.score(ctx, n, add, io.Discard, 1)
}

func (r *Scorer) score(ctx context.Context, n int, add func(rows *Rows, i int), show io.Writer, output int) ([]float32, error) {
	if n == 0 {
		return nil, nil
	}
	var out []float32
	begun := time.Now()
	for at := 0; at < n; at += r.tile {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var rows Rows
		for i := at; i < min(at+r.tile, n); i++ {
			add(&rows, i)
		}
		rows.repeat(r.tile)
		in := rows.Tensors()
		result, err := r.program.Run(in[0], in[1], in[2])
		graphx.Free(in...)
		if err != nil {
			return nil, err
		}
		out = append(out, graphx.Floats(result[output])...)
		const timed = 3 // tiles after the first, which compiles
		switch at / r.tile {
		case 0:
			begun = time.Now()
		case timed:
			each := time.Since(begun) / timed
			fmt.Fprintf(show, "log-probabilities of %d masked images: about %s\n", n, (each * time.Duration((n-at)/r.tile)).Round(time.Second))
		}
	}
	columns := len(out) / ((n + r.tile - 1) / r.tile * r.tile)
	out = out[:n*columns]
	for i, v := range out {
		if v := float64(v); math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("policy: the log-probability of row %d is %v", i/columns, v)
		}
	}
	return out, nil
}
