package experiment

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
	"imagecot/world"

	"github.com/parquet-go/parquet-go"
)

// What training leaves out is asked about: of training prompts the share's scenes, test prompts whole.
func TestCheckRowsAreLeftOut(t *testing.T) {
	write := func(prompts []geneval.Metadata) string {
		var rows []curate.Image
		for _, m := range prompts {
			rows = append(rows, curate.Image{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Steps: 1, Samples: []int32{0}})
		}
		dir := t.TempDir()
		if err := parquet.WriteFile(filepath.Join(dir, "part-00000.parquet"), rows); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	prompts, want := world.TrainPrompts(geneval.Position), map[string]bool{}
	for _, m := range prompts {
		if curate.Validation(curate.Scene(m), .5) {
			want[m.Prompt] = true
		}
	}
	rows, err := CheckRows(write(prompts), "orm", .5)
	if err != nil || len(rows) != len(want) || len(want) == len(prompts) {
		t.Errorf("%d of %d prompts are asked about, want %d (%v)", len(rows), len(prompts), len(want), err)
	}
	for _, r := range rows {
		if !want[r.Prompt] {
			t.Errorf("%q was trained on", r.Prompt)
		}
	}
	if rows, err := CheckRows(write(world.TestPrompts()), "orm", .1); err != nil || len(rows) != 304 {
		t.Errorf("%d of 304 test prompts are asked about (%v)", len(rows), err)
	}
}

// The evaluator agrees with every label of a question about a render, and half of a task's questions are answered yes.
func TestRenderRowsAreTrue(t *testing.T) {
	yes, rows := map[string]int{}, RenderRows(40, 5)
	for _, r := range rows {
		m, err := world.ParsePrompt(r.Prompt)
		if err != nil {
			t.Fatal(err)
		}
		if m.Tag != r.Task {
			t.Errorf("%q is asked as %s", r.Prompt, r.Task)
		}
		verdict, err := world.Evaluator().Evaluate(t.Context(), r.Image, m)
		if err != nil {
			t.Fatal(err)
		}
		if verdict.Correct != r.Yes {
			t.Errorf("%q is labelled %t: %v", r.Prompt, r.Yes, verdict)
		}
		if r.Yes {
			yes[r.Task]++
		}
	}
	if len(rows) != 240 || len(yes) != 6 {
		t.Errorf("%d rows, tasks %v", len(rows), yes)
	}
	for task, n := range yes {
		if n != 20 {
			t.Errorf("%s: %d of 40 are yes", task, n)
		}
	}
}

// A judge that looks at the image alone is asked about renders without a decoder.
func TestCheckJudgeOnRenders(t *testing.T) {
	p := toyPipeline("orm")
	scores, _, err := p.CheckJudge(t.Context(), "orm", RenderRows(4, 5), nil)
	if err != nil {
		t.Fatal(err)
	}
	if last := scores[len(scores)-1]; last.Task != "all" || last.Rows != 24 {
		t.Errorf("%+v", scores)
	}
}

// What was trained here as PARM or PARM++ is asked from where its data call images clear, unless the recipe says otherwise; other
// judges from the first step on. It is the manifest that says so, for shipped judges and for those in a folder.
func TestClearFrom(t *testing.T) {
	for _, c := range []struct {
		trained          string
		asked, steps, at int
	}{{"parm", 0, 18, 11}, {"parmpp", 0, 9, 6}, {"parm", 1, 18, 1}, {"orm", 0, 18, 0}, {"", 0, 18, 0}, {"", 4, 18, 4}} {
		if got := clearFrom(Recipe{ClearFrom: c.asked, Steps: c.steps}, c.trained); got != c.at {
			t.Errorf("%+v: step %d", c, got)
		}
	}
	for judge, want := range map[string]string{"parm": "parm", "parmpp": "parmpp", "orm": "orm", "judge": "", t.TempDir(): ""} {
		dir, err := ModelFolder(judge, "judge")
		if err != nil {
			t.Fatal(err)
		}
		if got := trainedAs(dir); got != want {
			t.Errorf("%s was trained as %q, want %q", judge, got, want)
		}
	}
}

// A judge is asked in the words that its manifest says it was trained on; a number of questions, as the zero-shot judge's recipe
// has it, is no wording.
func TestJudgeIsAskedInTheWordsOfItsTraining(t *testing.T) {
	p := &Pipeline{Recipe: Default(), backend: enginetest.Go(t), Models: map[string]string{}}
	for questions, want := range map[string]string{`"released"`: "released", `4`: "tiny", `""`: "tiny"} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("../tiny/orm")); err != nil {
			t.Fatal(err)
		}
		m := ckpt.Manifest{Kind: "sft", Name: "x", Recipe: json.RawMessage(`{"data":{"reward":"orm","questions":` + questions + `}}`)}
		if err := errors.Join(os.Remove(filepath.Join(dir, ckpt.ManifestFile)), ckpt.WriteManifest(dir, m)); err != nil {
			t.Fatal(err)
		}
		j, _, err := p.openJudge(dir)
		if err != nil {
			t.Fatal(err)
		}
		if j.questions != want || j.trained != "orm" {
			t.Errorf("questions %s: asked in the words %q, as %q", questions, j.questions, j.trained)
		}
	}
}

// A preset that says nothing of the words leaves them to the manifest of what it names.
func TestPresetsLeaveWordsToTheManifest(t *testing.T) {
	publish(t)
	dir := filepath.Join(os.Getenv("HF_HUB_CACHE"), "models--org--mine")
	commit := strings.Repeat("b", 40)
	files := filepath.Join(dir, "snapshots", commit)
	for _, folder := range []string{files, filepath.Join(dir, "refs")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "refs", "main"), commit)
	m := ckpt.Manifest{Kind: "sft", Name: "x", Recipe: json.RawMessage(`{"data":{"reward":"orm","questions":"released"}}`)}
	if err := ckpt.WriteManifest(files, m); err != nil {
		t.Fatal(err)
	}
	for questions, want := range map[string]string{"": "released", ", questions: paper": "paper"} {
		writeFile(t, filepath.Join(os.Getenv("IMAGECOT_HOME"), "presets", "mine.yaml"), `{name: mine, role: judge, repo: org/mine, files: [manifest.json], licence: MIT`+questions+"}")
		if got := Wording("mine"); got != want {
			t.Errorf("questions %q: asked in the words %q, want %q", questions, got, want)
		}
	}
}
