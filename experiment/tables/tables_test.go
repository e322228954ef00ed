package tables

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"image"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/cot/cottest"
	"imagecot/experiment"
	"imagecot/experiment/paper"
	"imagecot/geneval"
	"imagecot/tiny"
	"imagecot/verify/bestofn"
	"imagecot/verify/single"
	"imagecot/world"
)

// fate is the hidden quality of a path: a final image is right from .6 on.
var fate = cottest.FateOf(3)

// measured plays every row of the paper with fakes: verifiers choose by the hidden quality, so that they are far better
// than the baseline; guided generators and table 5's are not there.
func measured(t *testing.T, all []experiment.PaperTable, names []string) *experiment.Measured {
	t.Helper()
	r := experiment.Default()
	r.N = 4
	m, err := experiment.Reproduction{
		Recipe: r, Tables: experiment.WithBaselines(all, names), Prompts: someOf(), Dir: t.TempDir(), Workers: 2,
		Open: func(_ context.Context, generator string) (experiment.Bench, error) {
			if strings.HasPrefix(generator, "guided") || generator == "correction" {
				return experiment.Bench{}, fmt.Errorf("%s is %w", generator, tiny.ErrMissing)
			}
			return experiment.Bench{
				Generator: &cottest.Generator{N: 3}, Identity: generator, Close: func() {},
				Arm: func(strategy string) (experiment.Arm, string, error) {
					if strategy == "single" {
						return experiment.Arm{Name: strategy, Strategy: single.Strategy{}, OnePath: true}, "", nil
					}
					return experiment.Arm{Name: strategy, Strategy: bestofn.Strategy{Name: strategy, Score: quality}, WholePaths: true}, strategy, nil
				},
				Evaluate: func(ctx context.Context, img image.Image, _ geneval.Metadata) (geneval.Result, error) {
					if q, _ := quality(ctx, cot.Prompt{}, img); q < .6 {
						return geneval.Result{Reasons: []string{"too dull"}}, nil
					}
					return geneval.Result{Correct: true}, nil
				},
			}, nil
		},
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func quality(_ context.Context, _ cot.Prompt, img image.Image) (float64, error) {
	return fate(img.(cottest.Image).Seed).Quality, nil
}

func someOf() []geneval.Metadata {
	var out []geneval.Metadata
	for i, m := range world.TestPrompts() {
		if i%8 == 0 {
			out = append(out, m)
		}
	}
	return out
}

// collect lays out tables measured with fakes.
func collect(t *testing.T, names ...string) Results {
	t.Helper()
	all, err := experiment.ReadTables(os.DirFS("../../recipes/tiny/tables"), experiment.TableNames())
	if err != nil {
		t.Fatal(err)
	}
	experiment.LimitN(all, 4)
	r := experiment.Default()
	r.N = 4
	res, err := Collect(all, names, measured(t, all, names), "imagecot reproduce", r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (r Results) claim(t *testing.T, start string) ClaimVerdict {
	t.Helper()
	i := slices.IndexFunc(r.Claims, func(c ClaimVerdict) bool { return strings.HasPrefix(c.Claim.Claim, start) })
	if i < 0 {
		t.Fatalf("no claim %q", start)
	}
	return r.Claims[i]
}

func TestRowsNobodyMeasuredAreListed(t *testing.T) {
	res := collect(t, experiment.TableNames()...)
	if len(res.Tables) != 9 {
		t.Fatalf("%d tables", len(res.Tables))
	}
	rows, missing := 0, res.Missing()
	for _, table := range res.Tables {
		rows += len(table.Rows)
	}
	// Six rows on guided generators, five on the self-correction generator.
	if rows != 60 || len(missing) != 11 {
		t.Errorf("%d rows, %d missing", rows, len(missing))
	}
	for _, row := range missing {
		if !strings.Contains(row.Missing, "not in this build") {
			t.Errorf("%s: %q", row.ID(), row.Missing)
		}
	}
	t4 := res.Tables[3].Layout()
	if s := fmt.Sprint(t4.Rows); !strings.Contains(s, "Janus-Pro 7B: PARM: Show-o is the only") || !strings.Contains(s, "0.91") {
		t.Errorf("table 4 without reason or the paper's numbers: %s", s)
	}
}

func TestDifferencesAndVerdicts(t *testing.T) {
	res := collect(t, "table1", "table5")
	base, orm := res.Tables[0].Rows[0], res.Tables[0].Rows[2]
	if base.Against != nil || orm.Against == nil || orm.Against.CI95[0] <= 0 || *orm.Paper.Tasks[1] != .72 {
		t.Fatalf("baseline %+v, best of 4 %+v", base.Against, orm.Against)
	}
	if want := orm.Scores.Overall - base.Scores.Overall; math.Abs(orm.Against.Diff-want) > 1e-12 || base.Images != 4*orm.Images {
		t.Errorf("difference %v, want %v; %d and %d images", orm.Against.Diff, want, base.Images, orm.Images)
	}
	dpo := res.claim(t, "DPO reinforces") // in this play DPO changes nothing
	if dpo.Verdict != paper.DoesNot && dpo.Verdict != paper.CannotTell || dpo.Evidence[0].Prompts != len(someOf()) {
		t.Errorf("%+v", dpo)
	}
	if c := res.claim(t, "ORM enhances more"); c.Verdict == paper.Holds { // both choose alike
		t.Errorf("%+v", c)
	}
	if c := res.claim(t, "The best configuration surpasses"); c.Verdict != paper.CannotTell || c.Untested == "" {
		t.Errorf("%+v", c)
	}
	if c := res.claim(t, "Reflection improves"); c.Verdict != paper.CannotTell || c.Evidence[0].Missing == "" {
		t.Errorf("%+v", c)
	}
	if slices.ContainsFunc(res.Claims, func(c ClaimVerdict) bool { return strings.HasPrefix(c.Claim.Claim, "Reward models in training") }) {
		t.Error("a claim about tables that nobody asked for")
	}
}

// TestBaselineOfAnotherTable: table 3 alone still has differences against table 1's baseline.
func TestBaselineOfAnotherTable(t *testing.T) {
	res := collect(t, "table3")
	if parm := res.Tables[0].Rows[0]; len(res.Tables) != 1 || parm.Against == nil || parm.Against.CI95[0] <= 0 {
		t.Errorf("%d tables, PARM %+v", len(res.Tables), parm.Against)
	}
}

func TestWrite(t *testing.T) {
	res := collect(t, "table1", "table4", "fig3")
	dir, again := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, again} {
		if err := res.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	read := func(dir, name string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return text
	}
	for _, name := range []string{"index.html", "report.md", "gallery.html", "table4.html", "table1.md", "fig3.svg", "fig3.csv", "cost-steps.svg", "cost-calls.svg", "cost-seconds.svg", "claims.md", "claims.csv", "claims.json", "rows/table1/orm.jsonl"} {
		if text := read(dir, name); len(text) == 0 || !bytes.Equal(text, read(again, name)) {
			t.Errorf("%s is empty or not the same twice", name)
		}
	}
	lines, err := csv.NewReader(bytes.NewReader(read(dir, "table1.csv"))).ReadAll()
	if err != nil || len(lines) != 8 || lines[3][1] != "orm" || lines[3][6] != "measured" || lines[3][len(lines[3])-1] != "0.6300" {
		t.Errorf("table1.csv: %v, %v", lines, err)
	}
	var table struct {
		Rows []struct {
			Name  string
			Paper struct{ Overall float64 }
		}
		Inconsistencies []any
	}
	if err := json.Unmarshal(read(dir, "table1.json"), &table); err != nil || len(table.Rows) != 7 || table.Rows[2].Paper.Overall != .63 || len(table.Inconsistencies) == 0 {
		t.Errorf("table1.json: %+v, %v", table, err)
	}
	page := string(read(dir, "index.html"))
	for _, want := range []string{"The paper disagrees with itself", "<svg", "cannot tell", "Made by: imagecot reproduce"} {
		if !strings.Contains(page, want) {
			t.Errorf("index.html lacks %q", want)
		}
	}
	if g := string(read(dir, "gallery.html")); strings.Count(g, "<img") != 11*7 || strings.Count(g, "before: the baseline<br>") != 11 || !strings.Contains(g, "too dull") {
		t.Errorf("gallery: %d pictures", strings.Count(g, "<img"))
	}
	rows, err := experiment.ReadRows(filepath.Join(dir, "rows/table1/orm.jsonl"))
	if err != nil || len(rows) != len(someOf()) {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

// Of few prompts there is no verdict, however far apart two rows are.
func TestFewPromptsTellNothing(t *testing.T) {
	zero := 0.0
	for n, want := range map[int]paper.Verdict{1: paper.CannotTell, 29: paper.CannotTell, 30: paper.Holds} {
		var rows [2]Row
		for i := range rows {
			found := &experiment.Measurement{}
			for k, m := range world.TestPrompts()[:n] {
				found.Rows = append(found.Rows, geneval.Row{Filename: fmt.Sprint(k), Tag: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Correct: i == 0})
			}
			rows[i].found = found
		}
		e, err := compare(paper.Comparison{MoreThan: &zero}, &rows[0], &rows[1])
		if err != nil || e.Verdict != want || e.Prompts != n || e.Diff != 1 {
			t.Errorf("%d prompts: %+v, want %s (%v)", n, e, want, err)
		}
	}
}
