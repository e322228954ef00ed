// Package iterdpo is iterative DPO (Sec. 2.3 of the paper): rounds in which the present policy draws its own training
// images. A round is
//
//  1. draw many images a prompt at a high temperature with the present policy; the evaluator labels them
//  2. make pairs of a right and a wrong image of one prompt
//  3. train by DPO with the present policy as start and as reference; the result is the next round's policy
//
// Every part is a folder of its own below the run's, finished parts are not made again, and each round's checkpoint names
// its parent. The package knows neither losses (align/dpo) nor how data are kept (curate).
package iterdpo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"imagecot/align/dpo"
	"imagecot/align/policy"
	"imagecot/ckpt"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/atomicfile"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/showo"
	"imagecot/train"
	"imagecot/train/objective"

	"github.com/gomlx/compute"
)

// Data is the data part of the recipe; the training fields are those of every round.
type Data struct {
	policy.Drawing
	Rounds    int            `json:"rounds"`
	Each      int            `json:"each"`       // images a prompt
	PerPrompt int            `json:"per_prompt"` // most pairs of a prompt
	DPO       map[string]any `json:"dpo"`        // data part of the rounds' DPO recipe, without from
}

// Defaults are two rounds.
func Defaults() Data {
	return Data{Drawing: policy.DefaultDrawing(), Rounds: 2, Each: 8, PerPrompt: 8}
}

// Validate reports settings that no round can be made with.
func (d Data) Validate() error {
	if d.Rounds < 1 || d.Each < 2 || d.PerPrompt < 1 {
		return fmt.Errorf("iterdpo: %d rounds of %d images and %d pairs a prompt, want at least 1, 2 and 1", d.Rounds, d.Each, d.PerPrompt)
	}
	o := dpo.Defaults()
	if err := objective.DecodeStrict(d.DPO, &o); err != nil {
		return fmt.Errorf("iterdpo: data.dpo: %w", err)
	}
	if o.From != "" {
		return errors.New("iterdpo: data.dpo.from is set, but every round makes its own pairs")
	}
	o.From = "pairs"
	return errors.Join(d.Drawing.Validate(), o.Validate())
}

// run is a run in progress.
type run struct {
	backend compute.Backend
	from    policy.Sources
	recipe  train.Recipe
	data    Data
	dir     string
	show    io.Writer

	// images opens the image tokenizer, and who judges its images against the prompts, with what tells detectors apart.
	images func(*policy.Policy, []geneval.Metadata) (showo.ImageDecoder, curate.Evaluate, string, error)
}

// Run makes the rounds below dir, continuing where an earlier run stopped; the last round's policy is DIR/final.
func Run(ctx context.Context, be compute.Backend, from policy.Sources, r train.Recipe, dir string, show io.Writer) error {
	d := &run{backend: be, from: from, recipe: r, data: Defaults(), dir: dir, show: show}
	d.images = func(p *policy.Policy, prompts []geneval.Metadata) (showo.ImageDecoder, curate.Evaluate, string, error) {
		images, err := p.OpenImages(be, from.Folders, d.data.Drawing)
		if err != nil {
			return nil, nil, "", err
		}
		evaluate, id, err := from.Evaluators(be, p.Side(images), prompts)
		return images, evaluate, id, err
	}
	return d.rounds(ctx)
}

func (d *run) rounds(ctx context.Context) error {
	if err := objective.DecodeStrict(d.recipe.Data, &d.data); err != nil {
		return err
	}
	if err := d.data.Validate(); err != nil {
		return err
	}
	at, steps := d.recipe.InitFrom, 0
	var parents []ckpt.Parent
	for round := 1; round <= d.data.Rounds; round++ {
		next, err := d.round(ctx, round, at)
		if err != nil {
			return fmt.Errorf("iterdpo: round %d of %d: %w", round, d.data.Rounds, err)
		}
		m, err := ckpt.ReadManifest(next)
		if err != nil {
			return err
		}
		if round == 1 {
			parents = append(parents, m.Parents...)
		}
		self, err := policy.Parent(os.DirFS(next), fmt.Sprintf("round %d", round), "")
		if err != nil {
			return err
		}
		parents, at, steps = append(parents, self), next, steps+m.Steps
	}
	return d.finish(at, parents, steps)
}

// round makes one round from the policy in a folder and returns the folder of the next policy.
func (d *run) round(ctx context.Context, round int, from string) (string, error) {
	dir := filepath.Join(d.dir, fmt.Sprintf("round-%d", round))
	ranking, pairs := filepath.Join(dir, "ranking"), filepath.Join(dir, "pairs")
	seed := prng.Derive(d.recipe.Seed, "round", uint64(round))
	if err := d.draw(ctx, round, from, ranking, seed); err != nil {
		return "", err
	}
	err := curate.PairData{Dir: pairs, From: ranking, PerPrompt: d.data.PerPrompt, Seed: seed, PartSize: 512}.Run(ctx)
	if err != nil {
		return "", err
	}
	r := d.recipe
	r.Kind, r.Name, r.Seed, r.InitFrom = "dpo", fmt.Sprintf("%s-round-%d", d.recipe.Name, round), seed, from
	r.Data = map[string]any{"from": pairs}
	maps.Copy(r.Data, d.data.DPO)
	run := filepath.Join(dir, "dpo")
	err = objective.Run(ctx, d.backend, r, run, d.show, func(be compute.Backend, r train.Recipe, dir string) (objective.Trainable, error) {
		return dpo.New(be, d.from.Folders, r, dir)
	})
	return filepath.Join(run, "final"), err
}

// draw makes the round's ranking data.
func (d *run) draw(ctx context.Context, round int, from, dir string, seed uint64) error {
	p, err := policy.Open(d.from.Folders, from)
	if err != nil {
		return err
	}
	prompts, err := d.data.List(seed)
	if err != nil {
		return err
	}
	images, evaluate, detector, err := d.images(p, prompts)
	if err != nil {
		return err
	}
	w, err := p.Weights()
	if err != nil {
		return err
	}
	g, err := p.Generator(d.backend, graphx.NewWeights(w), images, d.data.Drawing)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.show, "round %d of %d: %d images of %d prompts by %s\n", round, d.data.Rounds, d.data.Each*len(prompts), len(prompts), p.Parent.Name)
	return curate.Ranking{
		Dir: dir, Prompts: prompts, Each: d.data.Each, Seed: seed, PartSize: 16, Generator: g, Evaluate: evaluate, Progress: d.clock(),
		Options: struct {
			Policy   ckpt.Parent    `json:"policy"`
			Drawing  policy.Drawing `json:"drawing"`
			Detector string         `json:"detector,omitempty"`
		}{p.Parent, d.data.Drawing, detector},
	}.Run(ctx)
}

// clock tells after the first part what all will take, and then every half minute how far they are.
func (d *run) clock() curate.Parts {
	begun, spoke, first := time.Now(), time.Time{}, 0
	return func(done, total int) {
		if first == 0 {
			first = done
		}
		if time.Since(spoke) < 30*time.Second && done != total {
			return
		}
		spoke = time.Now()
		each := time.Since(begun) / time.Duration(done-first+1)
		fmt.Fprintf(d.show, "drawing: %d of %d parts, about %s left\n", done, total, (each * time.Duration(total-done)).Round(time.Second))
	}
}

// finish copies the last policy to DIR/final with a manifest that names the whole line.
func (d *run) finish(from string, parents []ckpt.Parent, steps int) error {
	to := filepath.Join(d.dir, "final")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("iterdpo: %w", err)
	}
	files, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("iterdpo: %w", err)
	}
	for _, f := range files {
		if f.Name() == ckpt.ManifestFile || !f.Type().IsRegular() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			return fmt.Errorf("iterdpo: %w", err)
		}
		if err := atomicfile.WriteFile(filepath.Join(to, f.Name()), data, 0o644); err != nil {
			return err
		}
	}
	last, err := ckpt.ReadManifest(from)
	if err != nil {
		return err
	}
	recipe, err := json.Marshal(d.recipe)
	if err != nil {
		return fmt.Errorf("iterdpo: recipe: %w", err)
	}
	return ckpt.WriteManifest(to, ckpt.Manifest{
		Kind: "iterdpo", Name: d.recipe.Name, Recipe: recipe, Parents: parents, DataHash: last.DataHash,
		Steps: steps, Date: time.Now().UTC().Format(time.RFC3339),
	})
}
