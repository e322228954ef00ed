package experiment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/prng"
	"imagecot/report"
)

// Curves measures several strategies over N from one bank of paths a prompt (Fig. 3). For each N the bank is cut into
// bank/N groups without overlap, and each group is one selection by the strategy itself: its costs are what it would
// spend on its own, only the computing is shared.
type Curves struct {
	Recipe    Recipe // N is the size of the bank
	Models    map[string]string
	Engine    string
	Prompts   []geneval.Metadata
	Ns        []int
	Arms      []Arm
	Dir       string
	Generator cot.Generator
	Evaluate  Evaluate
	Progress  func(done, total int)
}

// selectionRow is one selection of one strategy.
type selectionRow struct {
	Arm   string      `json:"arm"`
	N     int         `json:"n"`
	Group int         `json:"group"`
	Row   geneval.Row `json:"row"`
	Cost  cot.Cost    `json:"cost"`
}

// CurveResult holds the curves and the scores behind their points.
type CurveResult struct {
	Curves []report.Curve
	Scores map[string]map[int]geneval.Scores // arm -> N
	Rows   map[string]map[int][]geneval.Row
}

// Run measures all points. Finished prompts are kept in Dir/prompts and not computed again.
func (c Curves) Run(ctx context.Context) (CurveResult, error) {
	for _, n := range c.Ns {
		if n < 1 || n > c.Recipe.N {
			return CurveResult{}, fmt.Errorf("experiment: %w: N is %d in a bank of %d paths", ErrRecipe, n, c.Recipe.N)
		}
	}
	id := struct {
		identity
		Ns   []int    `json:"ns"`
		Arms []string `json:"arms"`
	}{identity: identity{Format: 1, Recipe: c.Recipe, Models: c.Models, Engine: c.Engine}, Ns: c.Ns}
	for _, a := range c.Arms {
		id.Arms = append(id.Arms, a.Name)
	}
	for _, m := range c.Prompts {
		id.Prompts = append(id.Prompts, m.Dump())
	}
	unlock, err := claim(c.Dir, id)
	if err != nil {
		return CurveResult{}, err
	}
	defer unlock()
	if err := os.MkdirAll(filepath.Join(c.Dir, "prompts"), 0o755); err != nil {
		return CurveResult{}, fmt.Errorf("experiment: %w", err)
	}
	memo := newMemoGenerator(c.Generator, c.Recipe.Official)
	var all []selectionRow
	for i, m := range c.Prompts {
		rows, err := c.prompt(ctx, memo, i, m)
		if err != nil {
			return CurveResult{}, fmt.Errorf("experiment: prompt %d %q: %w", i, m.Prompt, err)
		}
		all = append(all, rows...)
		if c.Progress != nil {
			c.Progress(i+1, len(c.Prompts))
		}
	}
	return c.collect(all)
}

// prompt gives all selections of one prompt, from disk or computed.
func (c Curves) prompt(ctx context.Context, memo *memoGenerator, i int, m geneval.Metadata) ([]selectionRow, error) {
	path := filepath.Join(c.Dir, "prompts", geneval.FolderName(i)+".json")
	text, err := os.ReadFile(path)
	if err == nil {
		var rows []selectionRow
		if err := json.Unmarshal(text, &rows); err != nil {
			return nil, fmt.Errorf("%s is damaged (%w); remove it to compute the prompt again", path, err)
		}
		return rows, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	defer memo.forget(m.Prompt)
	p := cot.Prompt{ID: geneval.FolderName(i), Text: m.Prompt}
	seeds := make([]uint64, c.Recipe.N)
	for j := range seeds {
		seeds[j] = prng.PathSeed(c.Recipe.Seed, m.Prompt, j)
	}
	if slices.ContainsFunc(c.Arms, func(a Arm) bool { return a.WholePaths }) {
		if err := memo.decodeAll(ctx, bank{p, seeds}); err != nil {
			return nil, err
		}
	}
	var rows []selectionRow
	for _, a := range c.Arms {
		defer a.forget(m.Prompt)
		for _, n := range slices.Backward(c.Ns) { // smaller N find the answers of larger ones in memory
			if a.OnePath && n > 1 {
				continue
			}
			for g := range a.selections(c.Recipe.N, n) {
				sel, img, err := choose(ctx, memo, a, p, seeds[g*n:(g+1)*n])
				if err != nil {
					return nil, fmt.Errorf("%s, N=%d: %w", a.Name, n, err)
				}
				result, err := c.Evaluate(ctx, img, m)
				if err != nil {
					return nil, err
				}
				name := fmt.Sprintf("%s/samples/%s", p.ID, geneval.ImageName(g))
				sel.Cost.Seconds = 0
				rows = append(rows, selectionRow{a.Name, n, g, geneval.NewRow(name, m, result), sel.Cost})
			}
		}
	}
	if text, err = json.Marshal(rows); err != nil {
		return nil, err
	}
	return rows, write(path, append(text, '\n'))
}

// collect scores each point.
func (c Curves) collect(all []selectionRow) (CurveResult, error) {
	res := CurveResult{Scores: map[string]map[int]geneval.Scores{}, Rows: map[string]map[int][]geneval.Row{}}
	for _, a := range c.Arms {
		res.Scores[a.Name], res.Rows[a.Name] = map[int]geneval.Scores{}, map[int][]geneval.Row{}
		curve := report.Curve{Name: a.Name}
		for _, n := range c.Ns {
			var rows []geneval.Row
			var cost cot.Cost
			for _, r := range all {
				if r.Arm == a.Name && r.N == n {
					rows = append(rows, r.Row)
					cost = cost.Add(r.Cost)
				}
			}
			if len(rows) == 0 { // the baseline beyond N = 1
				continue
			}
			s, err := geneval.Score(rows)
			if err != nil {
				return CurveResult{}, err
			}
			res.Scores[a.Name][n], res.Rows[a.Name][n] = s, rows
			k := float64(len(rows))
			curve.Points = append(curve.Points, report.Point{
				N: n, Value: s.Overall, Lo: s.CI95[0], Hi: s.CI95[1],
				DecodingSteps: float64(cost.DecodingSteps) / k, JudgeCalls: float64(cost.JudgeCalls) / k,
			})
		}
		res.Curves = append(res.Curves, curve)
	}
	return res, nil
}
