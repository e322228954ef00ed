package report

import (
	"context"
	"fmt"
	"image"
	"maps"
	"slices"
	"sync"

	"imagecot/cot"
)

// Recorder keeps the step images of every path of one selection: those that a judge saw, and the tokens of all others
// so that they can be decoded afterwards. It stands between a strategy and its generator. Paths are told apart by seed:
// within a selection no two paths of one seed are at the same step. Safe for concurrent use.
type Recorder struct {
	cot.Generator
	mu    sync.Mutex
	paths map[uint64]*steps
}

// steps is what is known about one path after each decoding step.
type steps struct {
	samples map[int][]int32
	images  map[int]image.Image
}

// NewRecorder wraps a generator.
func NewRecorder(g cot.Generator) *Recorder {
	return &Recorder{Generator: g, paths: map[uint64]*steps{}}
}

func (r *Recorder) of(seed uint64) *steps {
	s := r.paths[seed]
	if s == nil {
		s = &steps{map[int][]int32{}, map[int]image.Image{}}
		r.paths[seed] = s
	}
	return s
}

// Advance does one decoding step and remembers what was sampled.
func (r *Recorder) Advance(ctx context.Context, paths []*cot.Path) error {
	if err := r.Generator.Advance(ctx, paths); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range paths {
		r.of(p.Seed).samples[p.Step] = slices.Clone(p.Sample)
	}
	return nil
}

// Decode turns samples into step images and remembers them.
func (r *Recorder) Decode(ctx context.Context, paths []*cot.Path) ([]image.Image, error) {
	imgs, err := r.Generator.Decode(ctx, paths)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, p := range paths {
		r.of(p.Seed).images[p.Step] = imgs[i]
	}
	return imgs, nil
}

// Judged keeps a step image under which a question was asked (cot.Observer).
func (r *Recorder) Judged(p *cot.Path, img image.Image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of(p.Seed).images[p.Step] = img
}

// Image returns the step image of a path after a step, nil if nobody looked at it.
func (r *Recorder) Image(seed uint64, step int) image.Image {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.paths[seed]; s != nil {
		return s.images[step]
	}
	return nil
}

// Complete decodes the step images that nobody has looked at yet, of the paths of these seeds. It belongs to the report;
// the selection does not pay for it.
func (r *Recorder) Complete(ctx context.Context, seeds []uint64) error {
	var todo []*cot.Path
	r.mu.Lock()
	for _, seed := range seeds {
		s := r.paths[seed]
		if s == nil {
			continue
		}
		for _, step := range slices.Sorted(maps.Keys(s.samples)) {
			if s.images[step] == nil {
				todo = append(todo, &cot.Path{Seed: seed, Step: step, Tokens: s.samples[step], Sample: s.samples[step]})
			}
		}
	}
	r.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	if _, err := r.Decode(ctx, todo); err != nil {
		return fmt.Errorf("report: step images: %w", err)
	}
	return nil
}
