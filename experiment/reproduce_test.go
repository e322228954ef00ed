package experiment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/recipes"
	"imagecot/tiny"
)

// toyTables are two tables and a curve over a toy generator, with a row that is not there.
func toyTables() []PaperTable {
	row := func(table, name, generator, strategy string, n int, ns ...int) TableRow {
		return TableRow{Table: table, Name: name, Title: name, Generator: generator, Strategy: strategy, N: n, Ns: ns}
	}
	return []PaperTable{
		{Name: "one", Rows: []TableRow{row("one", "base", "toy", "single", 1), row("one", "all", "toy", "all", 6), row("one", "lost", "gone", "all", 6)}},
		{Name: "two", Rows: []TableRow{row("two", "cut", "toy", "cut", 6), row("two", "all", "toy2", "all", 6), row("two", "odd", "toy", "odd", 6)}},
		{Name: "fig", Curve: true, Rows: []TableRow{row("fig", "cut", "toy", "cut", 0, 1, 2, 6)}},
	}
}

// toyReproduction counts what is computed in g and meter.
func toyReproduction(dir string, workers int, g cot.Generator, meter cot.Judge) Reproduction {
	t := geneval.Templates{}
	r := Default()
	r.N = 6
	return Reproduction{
		Recipe: r, Tables: toyTables(), Dir: dir, Workers: workers,
		Prompts: []geneval.Metadata{t.Single("circle"), t.Counting("star", 2), t.Colour("red", "ring"), t.Single("star"), t.Single("ring")},
		Open: func(_ context.Context, generator string) (Bench, error) {
			if generator == "gone" {
				return Bench{}, fmt.Errorf("%s: %w", generator, tiny.ErrMissing)
			}
			memo := newMemoJudge(meter)
			return Bench{Generator: g, Identity: generator, Evaluate: bright, Close: func() {}, Arm: func(strategy string) (Arm, string, error) {
				switch strategy {
				case "single":
					return Arm{Name: strategy, Strategy: brightest{judge: memo}, judge: memo, OnePath: true}, "", nil
				case "all", "cut":
					return Arm{Name: strategy, Strategy: brightest{judge: memo, cut: strategy == "cut"}, WholePaths: strategy == "all", judge: memo}, "meter", nil
				}
				return Arm{}, "", fmt.Errorf("strategy %s: %w", strategy, ErrAbsent)
			}}, nil
		},
	}
}

func timeless(m *Measured) *Measured {
	for _, x := range m.points {
		x.Cost.Seconds = 0
	}
	return m
}

// TestReproductionSharesPaths: a path is decoded once a generator, however many rows choose from it, and a finished run
// computes nothing.
func TestReproductionSharesPaths(t *testing.T) {
	dir := t.TempDir()
	g, meter := &toy{}, &lightMeter{}
	m, err := toyReproduction(dir, 1, g, meter).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * 5 * 6 * 4; g.advanced != want || meter.asked != 2*5*6 {
		t.Errorf("%d steps, %d questions; want %d and %d", g.advanced, meter.asked, want, 2*5*6)
	}
	tables := toyTables()
	base, _ := m.Row(tables[0].Rows[0])
	all, _ := m.Row(tables[0].Rows[1])
	if base.Selections != 30 || all.Selections != 5 || base.Cost.DecodingSteps != 4 || all.Cost.DecodingSteps != 24 || all.Cost.JudgeCalls != 6 {
		t.Errorf("baseline %+v, best of 6 %+v", base.Cost, all.Cost)
	}
	if all.Cost.Seconds <= 0 || len(all.Pictures) != 4 || all.Pictures[0].PNG == nil {
		t.Errorf("%v seconds, %d pictures", all.Cost.Seconds, len(all.Pictures))
	}
	if x, why := m.Row(tables[0].Rows[2]); x != nil || !strings.Contains(why, "not in this build") {
		t.Errorf("a generator that is not there: %v, %q", x, why)
	}
	if x, why := m.Row(tables[1].Rows[2]); x != nil || why == "" {
		t.Errorf("a strategy that is not there: %v, %q", x, why)
	}
	if curve := m.Curve(tables[2].Rows[0]); len(curve) != 3 || curve[1].N != 2 || curve[1].Selections != 15 {
		t.Errorf("curve of %d points", len(curve))
	}
	again, none := &toy{}, &lightMeter{}
	m2, err := toyReproduction(dir, 2, again, none).Run(t.Context())
	if err != nil || again.advanced+none.asked != 0 || !reflect.DeepEqual(m, m2) {
		t.Errorf("a finished run took %d steps and %d questions, error %v", again.advanced, none.asked, err)
	}
	other := toyReproduction(dir, 1, again, none)
	other.Recipe.Seed++
	if _, err := other.Run(t.Context()); err != nil || again.advanced == 0 {
		t.Errorf("another seed took its results from the journal, error %v", err)
	}
}

// TestKilledReproductionEndsAlike cuts the journal at random bytes, as a kill does, and goes on with other numbers of
// workers; or stops the run at random steps.
func TestKilledReproductionEndsAlike(t *testing.T) {
	whole := t.TempDir()
	want, err := toyReproduction(whole, 1, &toy{}, &lightMeter{}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	timeless(want)
	journal, err := os.ReadFile(filepath.Join(whole, "journal.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for k := range 20 {
		dir := t.TempDir()
		what := ""
		if k%2 == 0 {
			cut := rng.IntN(len(journal))
			what = fmt.Sprintf("journal cut after %d of %d bytes", cut, len(journal))
			if err := os.WriteFile(filepath.Join(dir, "journal.jsonl"), journal[:cut], 0o644); err != nil {
				t.Fatal(err)
			}
		} else {
			left := rng.IntN(200)
			what = fmt.Sprintf("stopped after %d steps", left)
			ctx, cancel := context.WithCancel(t.Context())
			_, err := toyReproduction(dir, 1, &stopping{Generator: &toy{}, left: left, cancel: cancel}, &lightMeter{}).Run(ctx)
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("%s: error %v", what, err)
			}
		}
		got, err := toyReproduction(dir, 1, &toy{}, &lightMeter{}).Run(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !reflect.DeepEqual(timeless(got), want) {
			t.Errorf("%s: the results differ", what)
		}
		if end, _ := os.ReadFile(filepath.Join(dir, "journal.jsonl")); !bytes.Equal(end, journal) {
			t.Errorf("%s: the journal differs", what)
		}
	}
}

// TestProgressComesOneAtATime goes on with a run that was nearly at its end, where many prompts are through at once.
func TestProgressComesOneAtATime(t *testing.T) {
	dir := t.TempDir()
	if _, err := toyReproduction(dir, 1, &toy{}, &lightMeter{}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "journal.jsonl")
	journal, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(journal, []byte("\n"))
	if err := os.WriteFile(path, bytes.Join(lines[:len(lines)-2], nil), 0o644); err != nil {
		t.Fatal(err)
	}
	var inside atomic.Int64
	last := map[string]int{}
	r := toyReproduction(dir, 5, &toy{}, &lightMeter{})
	r.Progress = func(generator string, done, _ int) {
		if inside.Add(1) > 1 {
			t.Error("two calls at once")
		}
		time.Sleep(2 * time.Millisecond)
		inside.Add(-1)
		if done < last[generator] {
			t.Errorf("%s: %d rows after %d", generator, done, last[generator])
		}
		last[generator] = done
	}
	if _, err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(last) == 0 {
		t.Error("no progress was shown")
	}
}

func TestDamagedJournalIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	if err := os.WriteFile(path, []byte("{\"key\":\"a\"}\nrubbish\n{\"key\":\"b\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(path); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("error %v, want one that names line 2", err)
	}
}

// TestTablesAreValid reads every committed table, and refuses broken ones.
func TestTablesAreValid(t *testing.T) {
	read := func(dir string, names ...string) error {
		_, err := ReadTables(os.DirFS(dir), names)
		return err
	}
	tables, err := ReadTables(recipesOf(t), TableNames())
	if err != nil || len(tables) != len(TableNames()) {
		t.Fatalf("%d tables, error %v", len(tables), err)
	}
	for _, file := range []string{"tiny/tables/scale.yaml", "full/scale.yaml"} {
		s, err := ReadScale(recipes.Files, file)
		if err != nil {
			t.Error(err)
		}
		for _, table := range tables {
			for _, row := range table.Rows {
				for _, p := range row.points() {
					if p.n > s.N {
						t.Errorf("%s: %s needs %d paths of %d", file, row.ID(), p.n, s.N)
					}
				}
			}
		}
	}
	for want, row := range map[string]string{
		"no title":         "generator: tiny\nstrategy: single\nn: 1\n",
		"must be named":    "title: x\nn: 1\n",
		"n from 1 on":      "title: x\ngenerator: tiny\nstrategy: single\nn: 0\n",
		"names no":         "title: x\nabsent: gone\nn: 1\n",
		"field m not":      "title: x\nm: 1\n",
		"lists 1 rows, th": "",
	} {
		dir := t.TempDir()
		os.MkdirAll(filepath.Join(dir, "t"), 0o755)
		os.WriteFile(filepath.Join(dir, "t", "table.yaml"), []byte("title: t\nsource: s\nrows: [a]\n"), 0o644)
		if row != "" {
			os.WriteFile(filepath.Join(dir, "t", "a.yaml"), []byte(row), 0o644)
		}
		if err := read(dir, "t"); !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func recipesOf(t *testing.T) fs.FS {
	t.Helper()
	dir, err := fs.Sub(recipes.Files, "tiny/tables")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestModelNames: a preset that was not pulled, a folder that is not there and an unknown strategy leave rows out, with
// what would bring them; they do not end the run.
func TestModelNames(t *testing.T) {
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_HUB_CACHE", "")
	t.Setenv("HUGGINGFACE_HUB_CACHE", "")
	here := t.TempDir()
	names := ModelNames{"orm": "cot-orm", "prm": filepath.Join(here, "gone"), "dpo": here}
	for name, want := range map[string]string{"orm": "imagecot pull --allow-pickle cot-orm", "prm": "imagecot train judge -f recipes/tiny/prm.yaml"} {
		if _, err := names.Find(name); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	for name, want := range map[string]string{"dpo": here, "parm": "parm"} {
		if got, err := names.Find(name); got != want || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	p := &Pipeline{}
	for _, strategy := range []string{"oracle", "telepathy@orm"} {
		if _, _, err := p.benchArm(names, strategy); !errors.Is(err, ErrAbsent) {
			t.Errorf("%s: error %v", strategy, err)
		}
	}
	if err := (&Pipeline{}).useDetector(ModelNames{"detector": "geneval-detector"}); !errors.Is(err, ErrAbsent) {
		t.Errorf("a detector that was not pulled: %v", err)
	}
}
