package showo

import (
	"context"
	"fmt"
	"math"

	"imagecot/cot"
	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// Understander answers questions about images ("mmu"): Show-o as its own judge. An image enters once, as keys and values,
// whatever is asked about it; a generated image needs no encoder, its tokens are what the model reads. It is safe for
// concurrent use.
type Understander struct {
	cfg   Config
	image *graphx.Program
	text  *graphx.Program
}

// Seen is an image that went through the model.
type Seen struct{ kv *tensors.Tensor } // [1, 2*layers, H, N+3, d]

// textUnit is what the length of a question and its answer is rounded up to: few shapes to compile.
const textUnit = 16

// NewUnderstander makes an understander of weights named and shaped as Shapes says.
func NewUnderstander(be compute.Backend, cfg Config, w *graphx.Weights) (*Understander, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := Check(cfg, w); err != nil {
		return nil, err
	}
	u := &Understander{cfg: cfg}
	policy := graphx.PolicyFor(be)
	var err error
	if u.image, err = graphx.NewProgram(be, "showo mmu image", w, policy, imageGraph(cfg)); err != nil {
		return nil, err
	}
	u.text, err = graphx.NewProgram(be, "showo mmu text", w, policy, answerGraph(cfg))
	return u, err
}

// imageGraph takes mmu, soi, image, eoi [1, N+3], where everything sees everything, and returns their keys and values.
func imageGraph(cfg Config) graphx.Func {
	return func(s graphx.Scope, in []*Node) []*Node {
		ids := in[0]
		a := attention{cfg: cfg}
		a.turn(ids.Graph(), 0, ids.Shape().Dimensions[1])
		_, layers := a.collect(s, addImagePositions(s, cfg, Embed(s, cfg, ids), 2), nil)
		return []*Node{stack(layers)}
	}
}

// answerGraph takes text [1, Q] padded on the right, the place of its last id, and an image's keys and values; it returns
// the logits [1, V] of the id that follows. Text sees the image and the text before it.
func answerGraph(cfg Config) graphx.Func {
	return func(s graphx.Scope, in []*Node) []*Node {
		ids, last, kv := in[0], in[1], in[2]
		g, length, width := ids.Graph(), ids.Shape().Dimensions[1], kv.Shape().Dimensions[3]
		shape := shapes.Make(dtypes.Int32, 1, 1, length, width+length)
		a := attention{cfg: cfg, mask: nn.AdditiveMask(LessOrEqual(Iota(g, shape, 3), AddScalar(Iota(g, shape, 2), width)))}
		a.turn(g, width, length)
		x, _ := a.collect(s, Embed(s, cfg, ids), unstack(kv))
		row := Gather(Squeeze(x, 0), Reshape(last, 1, 1))
		return []*Node{Head(s, cfg, finalNorm(s, cfg, row))}
	}
}

// See runs an image of N tokens 0..K-1 through the model.
func (u *Understander) See(ctx context.Context, tokens []int32) (*Seen, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := u.cfg.checkTokens(tokens, false); err != nil {
		return nil, fmt.Errorf("showo: see: %w", err)
	}
	ids := NewPrompting(u.cfg).imageFirst(u.cfg.ImageIDs(tokens)).IDs
	in := graphx.Tensor(ids, 1, len(ids))
	out, err := u.image.Run(in)
	graphx.Free(in)
	if err != nil {
		return nil, fmt.Errorf("showo: see: %w", err)
	}
	return &Seen{out[0]}, nil
}

// Next returns the logits [V] of the id that follows text (ids, sot included) about the image.
func (u *Understander) Next(ctx context.Context, image *Seen, text []int32) ([]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("showo: an empty text has no next id")
	}
	padded := make([]int32, (len(text)+textUnit-1)/textUnit*textUnit)
	for i := range padded {
		padded[i] = u.cfg.Pad()
	}
	copy(padded, text)
	for i, id := range text {
		if id < 0 || int(id) >= u.cfg.VocabSize {
			return nil, fmt.Errorf("showo: text id %d is %d, want 0 to %d", i, id, u.cfg.VocabSize-1)
		}
	}
	in := []*tensors.Tensor{graphx.Tensor(padded, 1, len(padded)), tensors.FromScalar(int32(len(text) - 1))}
	out, err := u.text.Run(in[0], in[1], image.kv)
	graphx.Free(in...)
	if err != nil {
		return nil, fmt.Errorf("showo: text of %d ids: %w", len(text), err)
	}
	return graphx.Floats(out[0]), nil
}

// Answer continues sot and question with the likeliest id each time, at most limit ids; it ends after eot, which belongs to
// the answer. see, if not nil, is shown the logits [V] of each id.
func (u *Understander) Answer(ctx context.Context, image *Seen, question []int32, limit int, see func(logits []float32)) ([]int32, error) {
	text := append([]int32{u.cfg.EOT()}, question...)
	var answer []int32
	for len(answer) < limit {
		logits, err := u.Next(ctx, image, text)
		if err != nil {
			return answer, err
		}
		if see != nil {
			see(logits)
		}
		best := 0
		for i, v := range logits {
			if v > logits[best] {
				best = i
			}
		}
		answer, text = append(answer, int32(best)), append(text, int32(best))
		if int32(best) == u.cfg.EOT() {
			break
		}
	}
	return answer, nil
}

// VerdictOf is the log-probability of yes and of no under logits [V], each summed over the ids that spell it. An id
// outside of the vocabulary counts nothing.
func VerdictOf(logits []float32, yes, no []int32) cot.Verdict {
	all := make([]int32, len(logits))
	for i := range all {
		all[i] = int32(i)
	}
	total := logSumExp(logits, all)
	return cot.Verdict{LogPYes: logSumExp(logits, yes) - total, LogPNo: logSumExp(logits, no) - total}
}

func logSumExp(logits []float32, ids []int32) float64 {
	top, sum := math.Inf(-1), 0.0
	for _, id := range ids {
		if id >= 0 && int(id) < len(logits) {
			top = max(top, float64(logits[id]))
		}
	}
	for _, id := range ids {
		if id >= 0 && int(id) < len(logits) {
			sum += math.Exp(float64(logits[id]) - top)
		}
	}
	return top + math.Log(sum)
}
