// Package objective says what the tiny world's models learn: the image tokenizer from rendered scenes, the generator
// from tokenised scenes and web-like captions, judges from questions about scenes or about the generator's images.
package objective

import (
	"encoding/json"
	"fmt"
	"math"

	"imagecot/ckpt"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/magvit"
	"imagecot/train"
	"imagecot/world"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Tokenizer trains MAGVIT-v2 to reconstruct scenes, most of them crowded: five per cent of an ordinary scene's pixels
// carry all of its information.
type Tokenizer struct {
	recipe train.Recipe
	config magvit.Config
	data   TokenizerData
	from   []ckpt.Parent
}

// TokenizerData is the data part of a tokenizer's recipe.
type TokenizerData struct {
	EntropyStart float64 `json:"entropy_start"` // weight of the entropy term at the first step
	EntropyEnd   float64 `json:"entropy_end"`   // and from half of the run on; linear in between
}

// NewTokenizer checks the recipe's model and data parts.
func NewTokenizer(r train.Recipe) (*Tokenizer, error) {
	t := &Tokenizer{recipe: r, data: TokenizerData{EntropyStart: .02, EntropyEnd: .002}}
	text, err := json.Marshal(r.Model)
	if err != nil {
		return nil, fmt.Errorf("objective: tokenizer: model: %w", err)
	}
	if t.config, err = magvit.LoadConfig(text); err != nil {
		return nil, train.RecipeError(err)
	}
	if t.from, err = parents("init", r.InitFrom); err != nil {
		return nil, err
	}
	return t, DecodeStrict(r.Data, &t.data)
}

// Origin implements Derived.
func (t *Tokenizer) Origin() ([]ckpt.Parent, string) { return t.from, "" }

// Config implements Trainable.
func (t *Tokenizer) Config() ([]byte, error) { return json.MarshalIndent(t.config, "", "  ") }

// Final implements Trainable.
func (t *Tokenizer) Final(w map[string]*tensors.Tensor) map[string]*tensors.Tensor { return w }

// Init implements train.Objective.
func (t *Tokenizer) Init() (map[string]*tensors.Tensor, error) {
	w := magvit.Init(t.config, prng.New(t.recipe.Seed, 0, prng.Init).Rand())
	return w, startFrom(t.recipe.InitFrom, w, same, never)
}

// Batch renders scenes: x [B, H, W, 3] and the entropy weight.
func (t *Tokenizer) Batch(i int) ([]*tensors.Tensor, error) {
	rng := prng.New(t.recipe.Seed, i, prng.Scene).Rand()
	const pixels = world.Side * world.Side * 3
	x := make([]float32, t.recipe.Batch*pixels)
	for b := range t.recipe.Batch {
		world.RenderInto(x[b*pixels:(b+1)*pixels], world.TokenizerMix.Draw(rng))
	}
	part := math.Min(1, 2*float64(i)/float64(t.recipe.MaxSteps*t.recipe.Accum))
	w := t.data.EntropyStart + part*(t.data.EntropyEnd-t.data.EntropyStart)
	return []*tensors.Tensor{
		graphx.Tensor(x, t.recipe.Batch, world.Side, world.Side, 3), tensors.FromScalar(float32(w)),
	}, nil
}

// Loss implements train.Objective.
func (t *Tokenizer) Loss(s graphx.Scope, in []*graph.Node) (*graph.Node, []*graph.Node) {
	return magvit.TrainLoss(s, t.config, in[0], in[1])
}

// Metrics implements train.Objective.
func (t *Tokenizer) Metrics() []string { return magvit.LossMetrics }
