package experiment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/internal/imgio"
	"imagecot/report"
	"imagecot/verify/threshold"
	"imagecot/world"
)

// toyPipeline has the toy generator and a light meter in the place of every shipped judge.
func toyPipeline(strategy string) *Pipeline {
	r := Default()
	r.Strategy, r.N, r.Steps = strategy, 3, (&toy{}).Steps()
	p := &Pipeline{Recipe: r, Generator: &toy{}, Models: map[string]string{"generator": "toy"}, judges: map[string]openedJudge{}, note: quiet, told: map[string]bool{}, side: world.Side}
	for _, name := range []string{"orm", "prm", "parm", "parmpp", "judge", "self"} {
		p.judges[name] = openedJudge{newMemoJudge(&lightMeter{}), "paper", name == "self", name}
	}
	return p
}

// In the authors' way the first path of a selection is decoded otherwise: what is remembered of it is no other path's.
func TestMemoKnowsTheFirstPath(t *testing.T) {
	for official, want := range map[bool]int{false: 1, true: 2} {
		g := &toy{}
		m := newMemoGenerator(g, official)
		for index := range 3 {
			path := &cot.Path{Index: index, Seed: 5, Tokens: []int32{-1, -1, -1, -1}, Sample: make([]int32, 4)}
			if err := m.Advance(t.Context(), []*cot.Path{path}); err != nil {
				t.Fatal(err)
			}
		}
		if g.advanced != want {
			t.Errorf("official %v: %d steps taken, want %d", official, g.advanced, want)
		}
	}
}

// TestEveryStrategyWritesTheSameBytesTwice generates with each strategy and reads everything back.
func TestEveryStrategyWritesTheSameBytesTwice(t *testing.T) {
	for _, strategy := range []string{"single", "orm", "prm", "parm", "parmpp", "beam", "search", "threshold", "self"} {
		t.Run(strategy, func(t *testing.T) {
			var files [2]map[string][]byte
			for i := range files {
				p := toyPipeline(strategy)
				arm, err := p.Arm(strategy)
				if err != nil {
					t.Fatal(err)
				}
				g, err := p.Generate(t.Context(), arm, cot.Prompt{Text: "a photo of a caf\u00e9"})
				if err != nil {
					t.Fatal(err)
				}
				dir := filepath.Join(t.TempDir(), "deep")
				if err := g.Write(t.Context(), dir); err != nil {
					t.Fatal(err)
				}
				files[i] = map[string][]byte{}
				for _, name := range []string{"image.png", "trace.json", "report.html"} {
					if files[i][name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
				}
			}
			for name, b := range files[0] {
				if !bytes.Equal(b, files[1][name]) {
					t.Errorf("%s differs between two equal runs", name)
				}
			}
			checkTrace(t, strategy, files[0]["trace.json"])
			if !bytes.Contains(files[0]["report.html"], []byte("winner</span>")) {
				t.Error("the page names no winner")
			}
			checkTexts(t, files[0]["image.png"])
		})
	}
}

func checkTrace(t *testing.T, strategy string, text []byte) {
	t.Helper()
	var run report.Run
	if err := json.Unmarshal(text, &run); err != nil {
		t.Fatal(err)
	}
	s := run.Selection
	steps := 0
	for _, p := range s.Traces {
		steps += p.Steps
	}
	if s.Strategy != strategy || steps != s.Cost.DecodingSteps || steps == 0 {
		t.Errorf("trace of %s: %d steps in the paths, cost %+v", s.Strategy, steps, s.Cost)
	}
	asked := 0
	for _, p := range s.Traces {
		asked += len(p.Asked)
	}
	for _, r := range s.Reflections {
		if r.Reason != "" {
			asked++
		}
	}
	if (strategy == "parmpp") != (len(s.Reflections) > 1) {
		t.Errorf("%s: %d reflections", strategy, len(s.Reflections))
	}
	if asked != s.Cost.JudgeCalls || (asked == 0) != (strategy == "single") {
		t.Errorf("%d questions in the paths, cost %+v", asked, s.Cost)
	}
}

func checkTexts(t *testing.T, png []byte) {
	t.Helper()
	texts, err := imgio.ReadText(bytes.NewReader(png))
	if err != nil {
		t.Fatal(err)
	}
	if len(texts) != 2 || texts[0].Key != "parameters" || texts[1].Key != "imagecot" {
		t.Fatalf("texts %+v", texts)
	}
	if !strings.HasPrefix(texts[0].Value, "a photo of a caf\u00e9\nSteps: 4, ") {
		t.Errorf("parameters %q", texts[0].Value)
	}
	var r pngRecipe
	if err := json.Unmarshal([]byte(texts[1].Value), &r); err != nil || r.Recipe.N == 0 || r.PathSeed == 0 {
		t.Errorf("recipe %+v, error %v", r, err)
	}
}

func TestArms(t *testing.T) {
	p := toyPipeline("orm")
	p.side = 256
	for spec, want := range map[string]string{"best": "unknown strategy", "oracle": "tiny world only"} {
		if _, err := p.Arm(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", spec, err, want)
		}
	}
	p.side = world.Side
	a, err := p.Arm("orm@prm")
	if err != nil || a.judge != p.judges["prm"].memoJudge || !a.WholePaths {
		t.Errorf("orm@prm: %+v, error %v", a, err)
	}
	if a, err = p.Arm("parm"); err != nil || a.WholePaths {
		t.Errorf("parm: %+v, error %v", a, err)
	}
	for spec, want := range map[string]int{"parm@orm": 5, "orm@orm": 5, "prm@orm": 1, "beam@orm": 1, "search@orm": 1} {
		if a, err := p.Arm(spec); err != nil || a.selections(20, 4) != want {
			t.Errorf("%s: %d selections of 4 paths are measured from 20, want %d (error %v)", spec, a.selections(20, 4), want, err)
		}
	}
	for spec, want := range map[string]string{"self@orm": "no other judge", "parm@self": "reads tokens"} {
		if _, err := p.Arm(spec); !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", spec, err, want)
		}
	}
	if a, err = p.Arm("threshold:whole:threshold=0.8:wave=2@orm"); err != nil {
		t.Fatal(err)
	}
	if s, ok := a.Strategy.(threshold.Strategy); !ok || !s.Whole || s.Threshold != .8 || s.Wave != 2 || a.judge != p.judges["orm"].memoJudge {
		t.Errorf("options of an arm: %+v", a)
	}
	for _, spec := range []string{"beam:wide", "beam:width=two", "threshold:whole=1", "beam:width=-1", "orm:"} {
		if _, err := p.Arm(spec); (err == nil) != (spec == "orm:") || err != nil && !errors.Is(err, ErrRecipe) {
			t.Errorf("%s: %v", spec, err)
		}
	}
	var notes []string
	p.note = func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	for generator, want := range map[string]int{"tiny": 1, "dpo": 1, "correction": 0, "some/folder": 0} {
		notes, p.Recipe.Generator = nil, generator
		if _, err := p.Arm("parmpp@parm"); err != nil || len(notes) != want {
			t.Errorf("PARM++ with the generator %s: %v, notes %q", generator, err, notes)
		}
	}
	p.Generator = struct{ cot.Generator }{&toy{}} // which corrects nothing
	if _, err := p.Arm("parmpp"); !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), "take the generator correction") {
		t.Errorf("a generator that does not correct: %v", err)
	}
	p.Recipe.NoReflection = true
	if _, err := p.Arm("parmpp"); err != nil {
		t.Errorf("without reflection: %v", err)
	}
	for name, r := range map[string]Recipe{
		"parm": {Strategy: "threshold"}, "orm": {Strategy: "threshold", Whole: true}, "parmpp": {Strategy: "parmpp"}, "self": {Strategy: "self"},
	} {
		if got := p.ownJudge(r); got != name && (got != "judge" || !p.told[name]) {
			t.Errorf("%+v asks %s, want %s", r, got, name)
		}
	}
	p.side = 256
	for strategy, want := range map[string]string{"orm": "cot-orm", "prm": "llava-onevision-7b", "parm": "cot-parm", "search": "cot-parm"} {
		if got := p.ownJudge(Recipe{Strategy: strategy}); got != want {
			t.Errorf("%s at full size asks %s, want %s", strategy, got, want)
		}
	}
	p.side = world.Side
	p.Recipe.Questions = "rude"
	if _, err := p.Arm("orm"); err == nil || !strings.Contains(err.Error(), "rude") {
		t.Errorf("unknown wording: error %v", err)
	}
}
