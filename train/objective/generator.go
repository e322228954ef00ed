package objective

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/magvit"
	"imagecot/models/showo"
	"imagecot/train"
	"imagecot/world"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Generator trains Show-o to fill in masked image tokens of ordinary scenes under web-like captions. The scenes are
// tokenised once; captions, masks and dropped conditions are drawn afresh at every visit.
type Generator struct {
	recipe    train.Recipe
	data      GeneratorData
	config    showo.Config
	prompting showo.Prompting
	text      *bpe.Tokenizer
	scenes    []world.Scene
	related   []int   // scenes of two shapes
	tokens    []int32 // [scenes, N]
	from      []ckpt.Parent
	hash      string // of the tokens
}

// GeneratorData is the data part of a generator's recipe.
type GeneratorData struct {
	Tokenizer string  `json:"tokenizer"` // checkpoint folder of the image tokenizer
	Scenes    int     `json:"scenes"`
	Dropout   float64 `json:"cond_dropout"` // share of captions replaced by the empty one
	MinMask   float64 `json:"min_masking_rate"`
	// Relations is the share of scenes of two shapes whose caption says how they lie or which colour each has, and is right
	// (world.Related); the others have web-like captions.
	Relations float64 `json:"relations"`
}

// tokensFile caches the tokenised scenes in the run's folder.
const tokensFile = "tokens.safetensors"

// NewGenerator checks the recipe's data part and tokenises the scenes, or reads them from dir.
func NewGenerator(be compute.Backend, r train.Recipe, dir string) (*Generator, error) {
	g := &Generator{recipe: r, data: GeneratorData{Scenes: 30000, Dropout: .1}}
	if err := DecodeStrict(r.Data, &g.data); err != nil {
		return nil, err
	}
	if g.data.Scenes < 1 {
		return nil, train.RecipeError(fmt.Errorf("objective: generator: scenes is %d, want at least 1", g.data.Scenes))
	}
	if !(g.data.Relations >= 0 && g.data.Relations <= 1) {
		return nil, train.RecipeError(fmt.Errorf("objective: generator: relations is %v, want a share from 0 to 1", g.data.Relations))
	}
	var err error
	if g.text, err = textTokenizer(); err != nil {
		return nil, err
	}
	eos, ok := g.text.TokenID("<|endoftext|>")
	if !ok {
		return nil, errors.New("objective: generator: the text tokenizer has no <|endoftext|>")
	}
	g.config = showo.Tiny(g.text.VocabSize(), eos)
	g.prompting = showo.NewPrompting(g.config)
	rng := prng.New(r.Seed, 0, prng.Scene).Rand()
	for i := range g.data.Scenes {
		g.scenes = append(g.scenes, world.Ordinary.Draw(rng))
		if g.scenes[i].TwoShapes() {
			g.related = append(g.related, i)
		}
	}
	if g.data.Relations > 0 && len(g.related) == 0 {
		return nil, fmt.Errorf("objective: generator: none of %d scenes has two shapes", g.data.Scenes)
	}
	if g.from, err = parents("init", r.InitFrom, "tokenizer", g.data.Tokenizer); err != nil {
		return nil, err
	}
	cache := filepath.Join(dir, tokensFile)
	if err := g.tokenise(be, cache); err != nil {
		return nil, err
	}
	g.hash, err = ckpt.HashFile(cache)
	return g, err
}

// Architecture is the generator's.
func (g *Generator) Architecture() showo.Config { return g.config }

// Origin implements Derived.
func (g *Generator) Origin() ([]ckpt.Parent, string) { return g.from, g.hash }

// tokenise fills g.tokens.
func (g *Generator) tokenise(be compute.Backend, cache string) (err error) {
	g.tokens, err = Tokenise(be, g.data.Tokenizer, g.scenes, cache, fmt.Sprintf("%d/%d", g.recipe.Seed, g.data.Scenes))
	return err
}

// Tokenise returns the image tokens [scenes, N] of rendered scenes, from the cache file if it was made with the same tokenizer
// (a checkpoint folder) and key, which says how the scenes were drawn.
func Tokenise(be compute.Backend, tokenizer string, scenes []world.Scene, cache, key string) ([]int32, error) {
	hash, err := ckpt.HashFile(filepath.Join(tokenizer, "model.safetensors"))
	if err != nil {
		return nil, fmt.Errorf("objective: tokenizer: %w", err)
	}
	key = hash + "/" + key
	if f, err := ckpt.Open(cache); err == nil {
		defer f.Close()
		if f.Metadata()["key"] == key {
			return f.Int32("tokens")
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	tok, err := magvit.Open(be, tokenizer, magvit.Options{Batch: 32})
	if err != nil {
		return nil, err
	}
	var tokens []int32
	for some := range slices.Chunk(scenes, 512) {
		images := make([]image.Image, len(some))
		for i, s := range some {
			images[i] = world.Render(s)
		}
		grids, err := tok.Encode(context.Background(), images)
		if err != nil {
			return nil, err
		}
		for _, grid := range grids {
			tokens = append(tokens, grid...)
		}
	}
	table := ckpt.Tensor{Name: "tokens", DType: ckpt.I32, Shape: []int{len(scenes), len(tokens) / len(scenes)}, Values: tokens}
	return tokens, ckpt.Write(cache, []ckpt.Tensor{table}, map[string]string{"key": key})
}

// Config implements Trainable.
func (g *Generator) Config() ([]byte, error) { return json.MarshalIndent(g.config, "", "  ") }

// Final implements Trainable.
func (g *Generator) Final(w map[string]*tensors.Tensor) map[string]*tensors.Tensor { return w }

// Init implements train.Objective.
func (g *Generator) Init() (map[string]*tensors.Tensor, error) {
	rng := prng.New(g.recipe.Seed, 0, prng.Init).Rand()
	w, err := showo.Init(g.config, rng, showo.InitOptions{Structured: true})
	if err != nil {
		return nil, err
	}
	return w, startFrom(g.recipe.InitFrom, w, same, never)
}

// Batch implements train.Objective: ids and labels [B, L], left pads [B].
func (g *Generator) Batch(i int) ([]*tensors.Tensor, error) {
	b, n := g.recipe.Batch, g.config.NumVQTokens
	var ids, labels, pads []int32
	order := prng.New(g.recipe.Seed, i, prng.Order)
	captions := prng.New(g.recipe.Seed, i, prng.Caption).Rand()
	masks := prng.New(g.recipe.Seed, i, prng.Masking)
	dropout := prng.New(g.recipe.Seed, i, prng.Dropout)
	for range b {
		k, caption := g.visit(order, captions)
		m := showo.DrawMask(g.config.ImageIDs(g.tokens[k*n:(k+1)*n]), g.config.MaskTokenID, float32(g.data.MinMask), masks)
		s := g.prompting.T2I(g.text.Encode(caption), m.IDs, m.Labels, dropout.Float64() < g.data.Dropout)
		ids, labels, pads = append(ids, s.IDs...), append(labels, s.Labels...), append(pads, int32(s.Pads))
	}
	return []*tensors.Tensor{
		graphx.Tensor(ids, b, len(ids)/b), graphx.Tensor(labels, b, len(labels)/b), graphx.Tensor(pads, b),
	}, nil
}

// visit draws a scene and its caption.
func (g *Generator) visit(order *prng.Stream, captions *rand.Rand) (scene int, caption string) {
	if g.data.Relations > 0 && captions.Float64() < g.data.Relations {
		scene = g.related[order.Intn(len(g.related))]
		caption, _ = world.Related(captions, g.scenes[scene])
		return scene, caption
	}
	scene = order.Intn(len(g.scenes))
	return scene, world.Caption(captions, g.scenes[scene])
}

// Loss implements train.Objective.
func (g *Generator) Loss(s graphx.Scope, in []*graph.Node) (*graph.Node, []*graph.Node) {
	return showo.T2ILoss(s, g.config, in[0], in[1], in[2]), nil
}

// Metrics implements train.Objective.
func (g *Generator) Metrics() []string { return nil }
