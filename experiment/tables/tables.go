// Package tables lays measured rows out as the paper does: tables with the paper's numbers under ours, curves over N,
// score against cost, a gallery of before and after, and a verdict for each claim. It computes nothing that is not in
// the measurements, and what it writes has no dates in it.
package tables

import (
	"fmt"
	"slices"

	"imagecot/experiment"
	"imagecot/experiment/paper"
	"imagecot/geneval"
)

// Results are all requested tables with what was measured.
type Results struct {
	Command string         `json:"command"` // that makes them again
	Seed    uint64         `json:"seed"`
	N       int            `json:"n"` // the largest
	Prompts int            `json:"prompts"`
	Tables  []Table        `json:"tables"`
	Claims  []ClaimVerdict `json:"claims"`

	measured *experiment.Measured
	known    map[string]*Row // every row of the paper that was measured or asked for, by name
}

// Table is one table or figure.
type Table struct {
	experiment.PaperTable
	Rows            []Row                 `json:"rows"`
	Inconsistencies []paper.Inconsistency `json:"inconsistencies,omitempty"` // of the paper

	before *experiment.Measurement // the baseline, nil if it was not measured
}

// Row is one row: measured, or why not.
type Row struct {
	experiment.TableRow
	Missing string                    `json:"missing,omitempty"` // why nothing was measured
	Images  int                       `json:"images,omitempty"`
	Scores  *geneval.Scores           `json:"scores,omitempty"`
	Against *geneval.Delta            `json:"against_baseline,omitempty"` // paired over prompts
	Cost    *experiment.Cost          `json:"cost,omitempty"`             // of one image, on average
	Paper   *paper.Score              `json:"paper,omitempty"`
	Curve   []CurvePoint              `json:"curve,omitempty"`
	found   *experiment.Measurement   // nil if missing
	all     []*experiment.Measurement // of a curve
}

// CurvePoint is a measurement of a curve.
type CurvePoint struct {
	N       int             `json:"n"`
	Images  int             `json:"images"`
	Overall float64         `json:"overall"`
	CI95    [2]float64      `json:"ci95"`
	Cost    experiment.Cost `json:"cost"`
}

// Collect lays out the tables that were asked for, by name. all are the tables of the paper: a row that another table
// shares with what was measured serves as baseline and for claims.
func Collect(all []experiment.PaperTable, names []string, m *experiment.Measured, command string, recipe experiment.Recipe) (Results, error) {
	res := Results{Command: command, Seed: recipe.Seed, N: recipe.N, Prompts: len(m.Prompts), measured: m, known: map[string]*Row{}}
	baseline := func(id string) *experiment.Measurement {
		for _, t := range all {
			for _, r := range t.Rows {
				if r.ID() == id {
					x, _ := m.Row(r)
					return x
				}
			}
		}
		return nil
	}
	for _, t := range all {
		asked := slices.Contains(names, t.Name)
		out := Table{PaperTable: t, Inconsistencies: paper.Inconsistencies(t.Name), before: baseline(t.Baseline)}
		for _, r := range t.Rows {
			row, err := measure(r, m, out.before)
			if err != nil {
				return res, err
			}
			if asked || row.found != nil {
				res.known[r.ID()] = &row
			}
			out.Rows = append(out.Rows, row)
		}
		if asked {
			res.Tables = append(res.Tables, out)
		}
	}
	var err error
	res.Claims, err = res.judge()
	return res, err
}

func measure(r experiment.TableRow, m *experiment.Measured, before *experiment.Measurement) (Row, error) {
	row := Row{TableRow: r}
	if s, ok := paper.Number(r.Paper); ok {
		row.Paper = &s
	}
	if row.found, row.Missing = m.Row(r); row.found == nil {
		return row, nil
	}
	row.Scores, row.Cost, row.Images = &row.found.Scores, &row.found.Cost, row.found.Selections
	if r.Ns != nil {
		row.all = m.Curve(r)
		for _, x := range row.all {
			row.Curve = append(row.Curve, CurvePoint{x.N, x.Selections, x.Scores.Overall, x.Scores.CI95, x.Cost})
		}
	}
	if before == nil || before == row.found {
		return row, nil
	}
	d, err := geneval.Compare(before.Rows, row.found.Rows)
	if err != nil {
		return row, fmt.Errorf("tables: %s against the baseline: %w", r.ID(), err)
	}
	row.Against = &d.Overall
	return row, nil
}

// Missing lists the rows that were asked for and could not be measured; rows that the world has no use for are not
// among them.
func (r Results) Missing() []Row {
	var out []Row
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			if row.Missing != "" && row.Absent == "" {
				out = append(out, row)
			}
		}
	}
	return out
}
