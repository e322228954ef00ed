package curate

import (
	"context"
	"fmt"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/prng"
)

// Step is one row of step data: a step image and how many roll-outs from there ended well.
type Step struct {
	Task     string  `parquet:"task,dict"`
	Prompt   string  `parquet:"prompt,dict"`
	Metadata string  `parquet:"metadata,dict"`
	Path     int32   `parquet:"path"`
	Seed     uint64  `parquet:"seed"`
	Step     int32   `parquet:"step"`
	Sample   []int32 `parquet:"sample"` // tokens of the step image
	Rollouts int32   `parquet:"rollouts"`
	Right    int32   `parquet:"right"` // roll-outs whose final image was correct
}

// Yes is the label: any right roll-out makes the step one with potential.
func (s Step) Yes() bool { return s.Right > 0 }

// Steps builds step data (Appendix B.2).
type Steps struct {
	Dir       string
	Prompts   []geneval.Metadata
	Each      int   // paths a prompt
	At        []int // steps that are labelled, 1..Steps()
	Rollouts  int   // a step; the paper has 4
	Seed      uint64
	PartSize  int
	Options   any
	Generator cot.Generator
	Evaluate  Evaluate
	Progress  Parts
}

// Run builds what is missing and writes the card.
func (s Steps) Run(ctx context.Context) error {
	if s.Each < 1 || s.PartSize < 1 || s.Rollouts < 1 || len(s.Prompts) == 0 || len(s.At) == 0 {
		return fmt.Errorf("curate: steps: %d paths for each of %d prompts, %d roll-outs at %d steps", s.Each, len(s.Prompts), s.Rollouts, len(s.At))
	}
	for i, at := range s.At {
		if at < 1 || at > s.Generator.Steps() || (i > 0 && at <= s.At[i-1]) {
			return fmt.Errorf("curate: steps: step %d; want rising numbers from 1 to %d", at, s.Generator.Steps())
		}
	}
	id := struct {
		Kind     string   `json:"kind"`
		Options  any      `json:"options"`
		Seed     uint64   `json:"seed"`
		Each     int      `json:"each"`
		At       []int    `json:"at"`
		Rollouts int      `json:"rollouts"`
		PartSize int      `json:"part_size"`
		Prompts  []string `json:"prompts"`
	}{Kind: "steps", Options: s.Options, Seed: s.Seed, Each: s.Each, At: s.At, Rollouts: s.Rollouts, PartSize: s.PartSize}
	for _, m := range s.Prompts {
		id.Prompts = append(id.Prompts, m.Dump())
	}
	if err := buildPrompts(ctx, s.Dir, id, s.Prompts, s.PartSize, s.Progress, s.prompt); err != nil {
		return err
	}
	return s.card()
}

// prompt walks Each paths to their ends, forks each at every labelled step, and walks all forks to their ends together.
func (s Steps) prompt(ctx context.Context, m geneval.Metadata) ([]Step, error) {
	seeds := make([]uint64, s.Each)
	for i := range seeds {
		seeds[i] = prng.PathSeed(s.Seed, m.Prompt, i)
	}
	paths, err := s.Generator.Start(ctx, cot.Prompt{Text: m.Prompt}, seeds)
	if err != nil {
		return nil, err
	}
	var rows []Step
	var forks []*cot.Path // Rollouts a row
	for _, at := range s.At {
		for paths[0].Step < at {
			if err := s.Generator.Advance(ctx, paths); err != nil {
				return nil, err
			}
		}
		for i, p := range paths {
			rows = append(rows, Step{
				Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Path: int32(i), Seed: p.Seed, Step: int32(at),
				Sample: append([]int32(nil), p.Sample...), Rollouts: int32(s.Rollouts),
			})
			for k := range s.Rollouts {
				forks = append(forks, s.Generator.Fork(p, prng.Derive(p.Seed, "roll-out", uint64(at), uint64(k))))
			}
		}
	}
	for live := unfinished(forks, s.Generator.Steps()); len(live) > 0; live = unfinished(live, s.Generator.Steps()) {
		if err := s.Generator.Advance(ctx, live); err != nil {
			return nil, err
		}
	}
	results, err := judgeFinals(ctx, s.Generator, s.Evaluate, m, forks)
	if err != nil {
		return nil, err
	}
	for i, r := range results {
		if r.Correct {
			rows[i/s.Rollouts].Right++
		}
	}
	return rows, nil
}

func unfinished(paths []*cot.Path, steps int) []*cot.Path {
	var out []*cot.Path
	for _, p := range paths {
		if p.Step < steps {
			out = append(out, p)
		}
	}
	return out
}

func (s Steps) card() error {
	type counted struct {
		asked
		Step  int32 `parquet:"step"`
		Right int32 `parquet:"right"`
	}
	labels := balance{}
	n, yes := map[int]int{}, map[int]int{} // by step
	use, err := countRows(s.Dir, func(row counted) {
		at, right := int(row.Step), Step{Right: row.Right}.Yes()
		labels.add(row.Task, row.Prompt, right)
		if n[at]++; right {
			yes[at]++
		}
	})
	if err != nil {
		return err
	}
	lines := []string{
		fmt.Sprintf("%d prompts, %d paths each, steps %v, %d roll-outs a step, run seed %d", len(s.Prompts), s.Each, s.At, s.Rollouts, s.Seed),
		"yes: the final image of at least one roll-out from the step is correct",
		use,
	}
	for _, at := range s.At {
		lines = append(lines, fmt.Sprintf("step %d: %d of %d yes", at, yes[at], n[at]))
	}
	return card{title: "Step data", lines: lines, rows: labels.table()}.write(s.Dir)
}
