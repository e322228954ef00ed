// Package cottest has fakes whose fate is in the seed: a Generator whose paths have a hidden quality and a step at
// which they become clear, and a Judge that sees both. Strategies are tested with them in microseconds. A step image
// remembers which path and step it shows, so that the judge knows what it sees, and a mixed-up one is found out.
package cottest

import (
	"context"
	"fmt"
	"image"
	"math"
	"sync"

	"imagecot/cot"
	"imagecot/internal/prng"
)

// Fate is what a seed has in store for a path.
type Fate struct {
	Quality float64 // 0..1, of the final image
	Clear   int     // first step with a clear image; 0 for never
}

// FateOf draws the fate of a seed for a generator of n steps: quality uniform, clear uniformly in 1..n or, one time in
// n+1, never.
func FateOf(n int) func(seed uint64) Fate {
	return func(seed uint64) Fate {
		s := prng.New(seed, 0, prng.Fake)
		return Fate{Quality: s.Float64(), Clear: s.Intn(n + 1)}
	}
}

// Generator is a fake cot.Generator. A path's token grid has one element that names its seed. It is safe for concurrent
// use.
type Generator struct {
	N       int                           // decoding steps
	Err     error                         // returned by Advance if set
	OnBatch func(paths []*cot.Path) error // called before each decoding step of a batch, if set; may cancel or fail

	mu       sync.Mutex
	advanced map[uint64]int
	Decoded  int // step images decoded
}

// Image is a step image that remembers where it comes from.
type Image struct {
	image.Image
	Seed uint64
	Step int
}

// Steps implements cot.Generator.
func (g *Generator) Steps() int { return g.N }

// Start implements cot.Generator.
func (g *Generator) Start(_ context.Context, p cot.Prompt, seeds []uint64) ([]*cot.Path, error) {
	var out []*cot.Path
	for i, seed := range seeds {
		out = append(out, &cot.Path{Index: i, Seed: seed, Prompt: p, Tokens: []int32{cot.Masked}})
	}
	return out, nil
}

// Advance implements cot.Generator; the only token is settled at the last step.
func (g *Generator) Advance(ctx context.Context, paths []*cot.Path) error {
	if g.Err != nil {
		return g.Err
	}
	if g.OnBatch != nil {
		if err := g.OnBatch(paths); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.advanced == nil {
		g.advanced = map[uint64]int{}
	}
	for _, p := range paths {
		if p.Step >= g.N {
			return fmt.Errorf("cottest: path %d is finished", p.Index)
		}
		p.Step++
		p.Sample = []int32{int32(p.Seed & math.MaxInt32)}
		if p.Step == g.N {
			p.Tokens = []int32{int32(p.Seed & math.MaxInt32)}
		}
		g.advanced[p.Seed]++
	}
	return ctx.Err()
}

// Advanced tells how many steps the paths of a seed took.
func (g *Generator) Advanced(seed uint64) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.advanced[seed]
}

// Fork implements cot.Generator.
func (g *Generator) Fork(path *cot.Path, seed uint64) *cot.Path {
	c := *path
	c.Seed = seed
	return &c
}

// Correct implements cot.Corrector: all steps of a new path, whose fate is in the new seed.
func (g *Generator) Correct(ctx context.Context, p cot.Prompt, bad *cot.Path, reason string, seed uint64) (*cot.Path, error) {
	if bad.Step != g.N || reason == "" {
		return nil, fmt.Errorf("cottest: correction of path %d at step %d of %d for the reason %q", bad.Index, bad.Step, g.N, reason)
	}
	path := &cot.Path{Seed: seed, Prompt: p}
	for range g.N {
		if err := g.Advance(ctx, []*cot.Path{path}); err != nil {
			return nil, err
		}
	}
	return path, nil
}

// Total is how many steps all paths took.
func (g *Generator) Total() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := 0
	for _, steps := range g.advanced {
		sum += steps
	}
	return sum
}

// Decode implements cot.Generator.
func (g *Generator) Decode(_ context.Context, paths []*cot.Path) ([]image.Image, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []image.Image
	for _, p := range paths {
		out = append(out, Image{image.NewGray(image.Rect(0, 0, 1, 1)), p.Seed, p.Step})
	}
	g.Decoded += len(paths)
	return out, nil
}

// Judge is a fake cot.Judge that knows the fate of what it sees.
type Judge struct {
	Fate func(seed uint64) Fate
	// Threshold is the quality from which potential is affirmed.
	Threshold float64
	// Noise is added to the quality as seen at a step, if set; see Gaussian.
	Noise func(seed uint64, step int) float64
	// Say overrides the verdict, if set and not nil.
	Say func(q cot.Question) *cot.Verdict
	Err error

	Asked     []cot.Question
	Explained []cot.Question
}

// Explain implements cot.Explainer: the reason names path and step.
func (j *Judge) Explain(_ context.Context, q cot.Question) (string, error) {
	if j.Err != nil {
		return "", j.Err
	}
	img, ok := q.Image.(Image)
	if !ok || img.Step != q.Step {
		return "", fmt.Errorf("cottest: reason for step %d of path %d asked about %T", q.Step, q.Path, q.Image)
	}
	j.Explained = append(j.Explained, q)
	return fmt.Sprintf("seed %d is wrong", img.Seed), nil
}

// Gaussian is noise of that standard deviation, a function of seed and step.
func Gaussian(sigma float64) func(seed uint64, step int) float64 {
	return func(seed uint64, step int) float64 { return sigma * prng.New(seed, step, prng.Fake, 1).NormFloat() }
}

// Ask implements cot.Judge.
func (j *Judge) Ask(ctx context.Context, qs []cot.Question) ([]cot.Verdict, error) {
	if j.Err != nil {
		return nil, j.Err
	}
	var out []cot.Verdict
	for _, q := range qs {
		j.Asked = append(j.Asked, q)
		img, ok := q.Image.(Image)
		if q.Image == nil && len(q.Tokens) == 1 { // asked about tokens: they name the seed's lower bits
			img, ok = Image{Seed: uint64(q.Tokens[0]), Step: q.Step}, true
		}
		if !ok {
			return nil, fmt.Errorf("cottest: question about a foreign image %T", q.Image)
		}
		if img.Step != q.Step {
			return nil, fmt.Errorf("cottest: question about step %d of path %d with the image of step %d", q.Step, q.Path, img.Step)
		}
		out = append(out, j.verdict(q, img))
	}
	return out, ctx.Err()
}

func (j *Judge) verdict(q cot.Question, img Image) cot.Verdict {
	if j.Say != nil {
		if v := j.Say(q); v != nil {
			return *v
		}
	}
	fate := j.Fate(img.Seed)
	quality := fate.Quality
	if j.Noise != nil {
		quality += j.Noise(img.Seed, img.Step)
	}
	switch q.Kind {
	case cot.Clarity:
		if fate.Clear > 0 && img.Step >= fate.Clear {
			return Probability(.9 + fate.Quality/11)
		}
		return Probability(fate.Quality / 11)
	case cot.Potential:
		if quality >= j.Threshold {
			return Probability(.5 + quality/2.0001)
		}
		return Probability(quality / 2.0001)
	default:
		return Probability(quality)
	}
}

// Probability is the verdict with P(yes) = p, P(no) = 1 - p, for p held to 1e-9..1-1e-9.
func Probability(p float64) cot.Verdict {
	p = min(max(p, 1e-9), 1-1e-9)
	return cot.Verdict{LogPYes: math.Log(p), LogPNo: math.Log(1 - p)}
}
