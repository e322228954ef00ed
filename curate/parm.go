package curate

import (
	"cmp"
	"context"
	"fmt"
)

// Label is yes, no, or not asked.
type Label int8

// The labels. The zero value is not asked.
const (
	NotAsked Label = iota
	No
	Yes
)

func label(yes bool) Label {
	if yes {
		return Yes
	}
	return No
}

// Parm is one row of PARM's data: a step image with its clarity and, when clear, its potential.
type Parm struct {
	Task      string  `parquet:"task,dict"`
	Prompt    string  `parquet:"prompt,dict"`
	Metadata  string  `parquet:"metadata,dict"`
	Path      int32   `parquet:"path"`
	Seed      uint64  `parquet:"seed"`
	Step      int32   `parquet:"step"`
	Sample    []int32 `parquet:"sample"`
	Clarity   int32   `parquet:"clarity"`   // a Label: Yes after ClearAfter, No before BlurredBefore
	Potential int32   `parquet:"potential"` // a Label: the verdict on the final image; NotAsked before PotentialFrom
	Outcome   int32   `parquet:"outcome"`   // a Label: the verdict, at the last step only (best-of-N' selection)
}

// ParmLabels says which steps count as clear (Appendix B.3: yes after step 11, no before step 10, of 18).
type ParmLabels struct {
	BlurredBefore int `json:"blurred_before"` // steps below are not clear
	ClearAfter    int `json:"clear_after"`    // steps above are clear; what lies between is left out
	// PotentialFrom is the first step whose potential is labelled. Deviation D26: the paper labels clear steps only. But
	// potential is asked on the first yes to clarity, which may come too early, and then PARM should know what it is asked.
	PotentialFrom int `json:"potential_from"`
}

// DefaultParmLabels are the paper's for 18 steps, in proportion for another number.
func DefaultParmLabels(steps int) ParmLabels {
	clear := (11*steps + 9) / 18
	return ParmLabels{BlurredBefore: (10*steps + 9) / 18, ClearAfter: clear, PotentialFrom: clear + 1}
}

// of fills in what is 0 by the paper's proportions, and refuses labels under which no step of so many is clear, or all are.
func (l ParmLabels) of(steps int) (ParmLabels, error) {
	d := DefaultParmLabels(steps)
	l.BlurredBefore, l.ClearAfter, l.PotentialFrom = cmp.Or(l.BlurredBefore, d.BlurredBefore), cmp.Or(l.ClearAfter, d.ClearAfter), cmp.Or(l.PotentialFrom, d.PotentialFrom)
	if l.BlurredBefore < 2 || l.BlurredBefore > l.ClearAfter+1 || l.ClearAfter >= steps || l.PotentialFrom < 1 || l.PotentialFrom > l.ClearAfter+1 {
		return l, fmt.Errorf("curate: parm: steps before %d not clear, after %d clear, potential from %d: not of paths of %d steps", l.BlurredBefore, l.ClearAfter, l.PotentialFrom, steps)
	}
	return l, nil
}

// Label labels one path's step; clear is NotAsked for the steps in between.
func (l ParmLabels) Label(row Image, step int) (clarity, potential, outcome Label) {
	switch {
	case step < l.BlurredBefore:
		clarity = No
	case step > l.ClearAfter:
		clarity = Yes
	}
	if step >= l.PotentialFrom {
		potential = label(row.Correct)
	}
	if step == int(row.Steps) {
		outcome = label(row.Correct)
	}
	return clarity, potential, outcome
}

// ParmData builds PARM's data from ranking data: all steps of every path that have a label.
type ParmData struct {
	Dir      string
	From     string     // folder of ranking data
	Labels   ParmLabels // what is 0 follows the paper, in proportion to the paths' steps
	PartSize int        // paths a part
	Progress Parts
}

// Run builds what is missing and writes the card.
func (p ParmData) Run(ctx context.Context) error {
	if p.PartSize < 1 {
		return fmt.Errorf("curate: parm: %d paths a part, want at least 1", p.PartSize)
	}
	images, hash, err := readRanking(p.From)
	if err != nil {
		return err
	}
	for _, img := range images {
		if img.Steps != images[0].Steps {
			return fmt.Errorf("curate: parm: %s has paths of %d and of %d steps", p.From, images[0].Steps, img.Steps)
		}
	}
	if p.Labels, err = p.Labels.of(int(images[0].Steps)); err != nil {
		return err
	}
	id := struct {
		Kind     string     `json:"kind"`
		From     string     `json:"from"` // fingerprint of the ranking data
		Labels   ParmLabels `json:"labels"`
		PartSize int        `json:"part_size"`
	}{"parm", hash, p.Labels, p.PartSize}
	parts := (len(images) + p.PartSize - 1) / p.PartSize
	err = build(ctx, p.Dir, id, parts, p.Progress, func(_ context.Context, part int) ([]Parm, error) {
		var rows []Parm
		for _, img := range images[part*p.PartSize : min((part+1)*p.PartSize, len(images))] {
			for step := 1; step <= int(img.Steps); step++ {
				c, pot, out := p.Labels.Label(img, step)
				if c == NotAsked && pot == NotAsked && out == NotAsked {
					continue
				}
				rows = append(rows, Parm{
					Task: img.Task, Prompt: img.Prompt, Metadata: img.Metadata, Path: img.Path, Seed: img.Seed, Step: int32(step),
					Sample: img.Sample(step), Clarity: int32(c), Potential: int32(pot), Outcome: int32(out),
				})
			}
		}
		return rows, nil
	})
	if err != nil {
		return err
	}
	return p.card()
}

func (p ParmData) card() error {
	type counted struct {
		asked
		Clarity   int32 `parquet:"clarity"`
		Potential int32 `parquet:"potential"`
		Outcome   int32 `parquet:"outcome"`
	}
	potential, hopes, outcomes := balance{}, 0, 0
	clarity := map[Label]int{}
	use, err := countRows(p.Dir, func(r counted) {
		clarity[Label(r.Clarity)]++
		if Label(r.Potential) != NotAsked {
			potential.add(r.Task, r.Prompt, Label(r.Potential) == Yes)
			hopes++
		}
		if Label(r.Outcome) != NotAsked {
			outcomes++
		}
	})
	if err != nil {
		return err
	}
	return card{
		title: "PARM data",
		lines: []string{
			fmt.Sprintf("clarity: %d yes (after step %d), %d no (before step %d)", clarity[Yes], p.Labels.ClearAfter, clarity[No], p.Labels.BlurredBefore),
			fmt.Sprintf("potential: %d rows, the verdict on the final image of the path, from step %d on; by task below", hopes, p.Labels.PotentialFrom),
			fmt.Sprintf("outcome: %d rows, the verdict at the last step", outcomes),
			use,
		},
		rows: potential.table(),
	}.write(p.Dir)
}
