package curate

import (
	"context"
	"fmt"
	"strings"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/prng"
)

// Image is one row of ranking data: a whole decoding path and the evaluator's verdict on its final image.
type Image struct {
	Task     string  `parquet:"task,dict"`
	Prompt   string  `parquet:"prompt,dict"`
	Metadata string  `parquet:"metadata,dict"` // geneval.Metadata.Dump
	Path     int32   `parquet:"path"`          // index among the prompt's paths
	Seed     uint64  `parquet:"seed"`
	Steps    int32   `parquet:"steps"`
	Samples  []int32 `parquet:"samples"` // Steps grids one after another: the tokens of every step image
	Correct  bool    `parquet:"correct"` // the label
	Reason   string  `parquet:"reason"`  // why not
	Details  string  `parquet:"details"` // the detections, geneval.Details
}

// Sample is the grid of tokens of a step image, step 1..Steps.
func (i Image) Sample(step int) []int32 {
	n := len(i.Samples) / int(i.Steps)
	return i.Samples[(step-1)*n : step*n]
}

// Final is the grid of the final image.
func (i Image) Final() []int32 { return i.Sample(int(i.Steps)) }

// Ranking builds ranking data (Appendix B.1): Each paths for every prompt.
type Ranking struct {
	Dir       string
	Prompts   []geneval.Metadata
	Each      int // images a prompt; the paper has about 50
	Seed      uint64
	PartSize  int // prompts a part
	Options   any // how the generator was opened, for recipe.json: model, temperature and so on
	Generator cot.Generator
	Evaluate  Evaluate
	Progress  Parts
}

// Run builds what is missing and writes the card.
func (r Ranking) Run(ctx context.Context) error {
	if r.Each < 1 || r.PartSize < 1 || len(r.Prompts) == 0 {
		return fmt.Errorf("curate: ranking: %d images for each of %d prompts, %d prompts a part", r.Each, len(r.Prompts), r.PartSize)
	}
	id := struct {
		Kind     string   `json:"kind"`
		Options  any      `json:"options"`
		Seed     uint64   `json:"seed"`
		Each     int      `json:"each"`
		PartSize int      `json:"part_size"`
		Prompts  []string `json:"prompts"`
	}{Kind: "ranking", Options: r.Options, Seed: r.Seed, Each: r.Each, PartSize: r.PartSize}
	for _, m := range r.Prompts {
		id.Prompts = append(id.Prompts, m.Dump())
	}
	if err := buildPrompts(ctx, r.Dir, id, r.Prompts, r.PartSize, r.Progress, r.prompt); err != nil {
		return err
	}
	return r.card()
}

func (r Ranking) prompt(ctx context.Context, m geneval.Metadata) ([]Image, error) {
	seeds := make([]uint64, r.Each)
	for i := range seeds {
		seeds[i] = prng.PathSeed(r.Seed, m.Prompt, i)
	}
	paths, err := r.Generator.Start(ctx, cot.Prompt{Text: m.Prompt}, seeds)
	if err != nil {
		return nil, err
	}
	rows := make([]Image, len(paths))
	for range r.Generator.Steps() {
		if err := r.Generator.Advance(ctx, paths); err != nil {
			return nil, err
		}
		for i, p := range paths {
			rows[i].Samples = append(rows[i].Samples, p.Sample...)
		}
	}
	results, err := judgeFinals(ctx, r.Generator, r.Evaluate, m, paths)
	if err != nil {
		return nil, err
	}
	for i, p := range paths {
		rows[i].Task, rows[i].Prompt, rows[i].Metadata = m.Tag, m.Prompt, m.Dump()
		rows[i].Path, rows[i].Seed, rows[i].Steps = int32(i), p.Seed, int32(p.Step)
		rows[i].Correct, rows[i].Reason, rows[i].Details = results[i].Correct, strings.Join(results[i].Reasons, "\n"), geneval.Details(results[i].Kept)
	}
	return rows, nil
}

// judgeFinals decodes finished paths and evaluates their images.
func judgeFinals(ctx context.Context, g cot.Generator, evaluate Evaluate, m geneval.Metadata, paths []*cot.Path) ([]geneval.Result, error) {
	imgs, err := g.Decode(ctx, paths)
	if err != nil {
		return nil, err
	}
	results := make([]geneval.Result, len(imgs))
	for i, img := range imgs {
		if results[i], err = evaluate(ctx, img, m); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (r Ranking) card() error {
	type counted struct {
		asked
		Correct bool `parquet:"correct"`
	}
	labels := balance{}
	use, err := countRows(r.Dir, func(row counted) {
		labels.add(row.Task, row.Prompt, row.Correct)
	})
	if err != nil {
		return err
	}
	return card{
		title: "Ranking data",
		lines: []string{
			fmt.Sprintf("%d prompts, %d images each, run seed %d; made as recipe.json says", len(r.Prompts), r.Each, r.Seed),
			"yes: the evaluator finds everything that the prompt asks for in the final image",
			"tokens of every step image are kept (samples), so the same paths serve as PARM data",
			use,
		},
		rows: labels.table(),
	}.write(r.Dir)
}
