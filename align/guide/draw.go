package guide

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"time"

	"imagecot/align/policy"
	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/atomicfile"
	"imagecot/internal/prng"

	"github.com/parquet-go/parquet-go"
)

// image is one drawn image as it is kept: DIR/draws/step-N.parquet.
type image struct {
	Prompt string  `parquet:"prompt,dict"`
	Seed   uint64  `parquet:"seed"` // of the path
	Tokens []int32 `parquet:"tokens"`
	Reward float64 `parquet:"reward"`
}

// draw is what a few steps learn from: groups of images of one prompt each.
type draw struct {
	step   int
	groups []group
	logRef []float32 // reference log-probability of every row that the steps visit, in order; of every token for groups
}

type group struct {
	text        []int32 // the prompt
	seed        uint64  // of the group's masks
	images      []image
	advantages  []float64 // (reward - mean) / spread; all 0 where nothing can be learnt
	best, worst int
	informative bool
}

// passes of a draw: how often the loop asks for a batch before the next one.
func (g *Guide) passes() int { return g.data.Every * g.recipe.Accum }

// draw makes g.now fit for a step: the images of the latest draw, drawn afresh or read from the run's folder. The file is
// there when a run goes on in the middle of a draw's steps, because their weights are gone by then.
func (g *Guide) draw(ctx context.Context, step int) error {
	at := step - step%g.data.Every
	if g.now.groups != nil && g.now.step == at {
		return nil
	}
	path := filepath.Join(g.dir, "draws", fmt.Sprintf("step-%08d.parquet", at))
	images, err := readImages(path)
	if errors.Is(err, fs.ErrNotExist) {
		if at != step {
			return fmt.Errorf("guide: %s is gone, and the weights that drew it too: remove checkpoints after step %d", path, at)
		}
		images, err = g.freshDraw(ctx, at, path)
	}
	if err != nil {
		return err
	}
	return g.learnFrom(ctx, at, images)
}

// freshDraw draws, scores and keeps the images of a step.
func (g *Guide) freshDraw(ctx context.Context, step int, path string) ([]image, error) {
	begun := time.Now()
	prompts := make([]geneval.Metadata, g.data.Groups)
	for j := range prompts {
		n := step/g.data.Every*g.data.Groups + j
		prompts[j] = g.train[prng.New(g.recipe.Seed, n/len(g.train), prng.Order, 1).Perm(len(g.train))[n%len(g.train)]]
	}
	images, rewards, err := g.paint(ctx, prompts, g.data.Each, prng.Derive(g.recipe.Seed, "draw", uint64(step)), g.reward)
	if err != nil {
		return nil, err
	}
	for i := range images {
		images[i].Reward = rewards[i]
	}
	if step == 0 {
		each := time.Since(begun)
		draws := (g.recipe.MaxSteps + g.data.Every - 1) / g.data.Every
		fmt.Fprintf(g.show, "the first draw of %d images took %s, compilation included; %d draws are at most %s, beside the steps themselves\n",
			len(images), each.Round(time.Second/10), draws, (each * time.Duration(draws)).Round(time.Second))
	}
	var b bytes.Buffer
	if err := parquet.Write(&b, images, parquet.Compression(&parquet.Zstd)); err != nil {
		return nil, fmt.Errorf("guide: images of step %d: %w", step, err)
	}
	return images, atomicfile.WriteFile(path, b.Bytes(), 0o644)
}

// paint draws each images of every prompt with the present weights and scores them. A reward that is no number is an error.
func (g *Guide) paint(ctx context.Context, prompts []geneval.Metadata, each int, seed uint64, reward Reward) ([]image, []float64, error) {
	var paths []*cot.Path
	var asked []geneval.Metadata
	for j, m := range prompts {
		seeds := make([]uint64, each)
		for i := range seeds {
			seeds[i] = prng.PathSeed(prng.Derive(seed, "group", uint64(j)), m.Prompt, i)
			asked = append(asked, m)
		}
		some, err := g.generator.Start(ctx, cot.Prompt{Text: m.Prompt}, seeds)
		if err != nil {
			return nil, nil, err
		}
		paths = append(paths, some...)
	}
	for range g.generator.Steps() {
		if err := g.generator.Advance(ctx, paths); err != nil {
			return nil, nil, err
		}
	}
	images, tokens := make([]image, len(paths)), make([][]int32, len(paths))
	for i, p := range paths {
		images[i], tokens[i] = image{Prompt: p.Prompt.Text, Seed: p.Seed, Tokens: p.Sample}, p.Sample
	}
	rewards, err := reward.Score(ctx, asked, tokens)
	if err != nil {
		return nil, nil, fmt.Errorf("guide: reward: %w", err)
	}
	for i, r := range rewards {
		if math.IsNaN(r) || math.IsInf(r, 0) {
			return nil, nil, fmt.Errorf("guide: the reward of image %d (%q, path seed %d) is %v", i, images[i].Prompt, images[i].Seed, r)
		}
	}
	return images, rewards, nil
}

// learnFrom groups the images, finds what can be learnt from each group, and asks the reference about all rows.
func (g *Guide) learnFrom(ctx context.Context, step int, images []image) error {
	if len(images) != g.data.Groups*g.data.Each {
		return fmt.Errorf("guide: the draw of step %d has %d images, want %d groups of %d", step, len(images), g.data.Groups, g.data.Each)
	}
	g.now = draw{step: step}
	for i, some := range slices.Collect(slices.Chunk(images, g.data.Each)) {
		one := compare(some, g.data.Method, g.data.MinGap)
		one.text = g.policy.Text.Encode(some[0].Prompt)
		one.seed = prng.Derive(g.recipe.Seed, "masks", uint64(step), uint64(i))
		g.now.groups = append(g.now.groups, one)
	}
	maps.Copy(g.figures, g.now.figures())
	if g.data.Method == Official {
		return nil
	}
	var err error
	rows, add := g.passes()*g.rowsAPass(), func(r *policy.Rows, i int) { g.addRow(r, i/g.rowsAPass(), i%g.rowsAPass()) }
	if g.data.Method == Group {
		g.now.logRef, err = g.reference.TokenLogProbs(ctx, rows, add)
	} else {
		g.now.logRef, err = g.reference.LogProbs(ctx, rows, add, io.Discard)
	}
	return err
}

// compare ranks the images of one group. The best is the first of the highest reward, the worst the first of the lowest.
func compare(images []image, method Method, gap float64) group {
	o := group{images: images, advantages: make([]float64, len(images))}
	mean := 0.0
	for i, m := range images {
		mean += m.Reward / float64(len(images))
		if m.Reward > images[o.best].Reward {
			o.best = i
		}
		if m.Reward < images[o.worst].Reward {
			o.worst = i
		}
	}
	variance := 0.0
	for _, m := range images {
		variance += (m.Reward - mean) * (m.Reward - mean) / float64(len(images))
	}
	spread := math.Sqrt(variance)
	if method == Group {
		o.informative = spread >= max(gap, 1e-6)
	} else {
		b, w := images[o.best], images[o.worst]
		o.informative = b.Reward > w.Reward && b.Reward-w.Reward >= gap && !slices.Equal(b.Tokens, w.Tokens)
	}
	if o.informative {
		for i, m := range images {
			o.advantages[i] = (m.Reward - mean) / (spread + 1e-6)
		}
	}
	return o
}

// figures are means over the draw: reward, the best of a group, the share of groups that teach something, and variety.
func (d draw) figures() map[string]float64 {
	var reward, best, informative, variety float64
	for _, o := range d.groups {
		best += o.images[o.best].Reward
		for _, m := range o.images {
			reward += m.Reward / float64(len(o.images))
		}
		if o.informative {
			informative++
		}
		variety += distance(o.images)
	}
	n := float64(len(d.groups))
	return map[string]float64{"reward": reward / n, "reward_best": best / n, "informative": informative / n, "diversity": variety / n}
}

// distance is the mean share of positions in which two images of a group differ.
func distance(images []image) float64 {
	differ, pairs := 0.0, 0
	for i, a := range images {
		for _, b := range images[:i] {
			n := 0
			for k := range a.Tokens {
				if a.Tokens[k] != b.Tokens[k] {
					n++
				}
			}
			differ += float64(n) / float64(len(a.Tokens))
			pairs++
		}
	}
	return differ / float64(max(pairs, 1))
}

func readImages(path string) (rows []image, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("guide: %s is damaged: %v", path, r)
		}
	}()
	rows, err = parquet.ReadFile[image](path)
	if err != nil {
		return nil, fmt.Errorf("guide: %w", err)
	}
	return rows, nil
}
