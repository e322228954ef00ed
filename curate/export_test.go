package curate

import (
	"bytes"
	"encoding/json"
	"errors"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"imagecot/verify/questions"
)

// dataSets are one data set of every kind.
func dataSets(t *testing.T) map[string]string {
	t.Helper()
	ranking := ranked(t, 12)
	dirs := map[string]string{"ranking": ranking}
	for _, kind := range []string{"parm", "reflection", "pairs", "correction", "steps"} {
		dirs[kind] = t.TempDir()
	}
	reasons := reasonsBy(ByEvaluator(heads, tellHeads))
	for _, err := range []error{
		ParmData{Dir: dirs["parm"], From: ranking, Labels: DefaultParmLabels(18), PartSize: 50}.Run(t.Context()),
		reflection(dirs["reflection"], ranking, reasons).Run(t.Context()),
		PairData{Dir: dirs["pairs"], From: ranking, PerPrompt: 2, PartSize: 50}.Run(t.Context()),
		CorrectionData{Dir: dirs["correction"], From: ranking, PerImage: 1, PerPrompt: 2, PartSize: 50, Reasons: reasons}.Run(t.Context()),
		Steps{Dir: dirs["steps"], Prompts: trainPrompts(t, 2), Each: 2, At: []int{3, 18}, Rollouts: 2, PartSize: 2, Generator: &coin{}, Evaluate: heads}.Run(t.Context()),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dirs
}

func export(t *testing.T, dir, from string, format Format) Export {
	t.Helper()
	set, err := questions.Get("paper")
	if err != nil {
		t.Fatal(err)
	}
	return Export{Dir: dir, From: from, Format: format, Questions: set, Tokenizer: "coin", PartSize: 20, Generator: &coin{}}
}

// grey is what the coin's picture of a grid shows.
func grey(t *testing.T, file []byte) int32 {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	r, _, _, _ := img.At(0, 0).RGBA()
	return int32(r >> 8)
}

func TestExportOfPictures(t *testing.T) {
	for kind, from := range dataSets(t) {
		dir := t.TempDir()
		if err := export(t, dir, from, ParquetImages).Run(t.Context()); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		want, err := exportable(from)
		if err != nil {
			t.Fatal(err)
		}
		if kind == "pairs" || kind == "correction" {
			rows, err := Read[coupleRow](dir)
			if err != nil || len(rows) != len(want) {
				t.Fatalf("%s: %d rows of %d, error %v", kind, len(rows), len(want), err)
			}
			for _, r := range rows {
				if grey(t, r.Good.Bytes) != r.GoodTokens[0] || grey(t, r.Bad.Bytes) != r.BadTokens[0] || r.GoodTokens[0] < 9 || r.BadTokens[0] >= 9 {
					t.Errorf("%s: row %+v", kind, r)
				}
			}
		} else {
			rows, err := Read[pictureRow](dir)
			if err != nil || len(rows) != len(want) {
				t.Fatalf("%s: %d rows of %d, error %v", kind, len(rows), len(want), err)
			}
			names := map[string]bool{}
			for i, r := range rows {
				names[r.Image.Path] = true
				if grey(t, r.Image.Bytes) != r.Tokens[0] || !slices.Equal(r.Tokens, want[i].tokens) || r.Outcome+r.Process+r.Clear == "" {
					t.Errorf("%s: row %+v", kind, r)
				}
			}
			if len(names) != len(rows) {
				t.Errorf("%s: %d names of %d pictures", kind, len(names), len(rows))
			}
		}
		f, err := os.Open(filepath.Join(dir, partName(0)))
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		file, err := parquet.OpenFile(f, info.Size())
		if err != nil {
			t.Fatal(err)
		}
		text, _ := file.Lookup("huggingface")
		var told struct {
			Info struct{ Features map[string]any }
		}
		if err := json.Unmarshal([]byte(text), &told); err != nil || len(told.Info.Features) != len(file.Schema().Fields()) {
			t.Errorf("%s: features %s of %d columns, error %v", kind, text, len(file.Schema().Fields()), err)
		}
		for _, column := range file.Schema().Fields() {
			if told.Info.Features[column.Name()] == nil {
				t.Errorf("%s: column %s is not described", kind, column.Name())
			}
		}
		_ = f.Close()
	}
}

func TestExportForLLaVA(t *testing.T) {
	for kind, from := range dataSets(t) {
		dir := t.TempDir()
		err := export(t, dir, from, LLaVA).Run(t.Context())
		if kind == "pairs" || kind == "correction" {
			if !errors.Is(err, ErrNoConversation) {
				t.Errorf("%s: error %v", kind, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		text, err := os.ReadFile(filepath.Join(dir, llavaFile))
		if err != nil {
			t.Fatal(err)
		}
		var rows []llavaRow
		if err := json.Unmarshal(text, &rows); err != nil {
			t.Fatal(err)
		}
		ids, two := map[string]bool{}, 0
		for _, r := range rows {
			ids[r.ID] = true
			if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(r.Image))); err != nil {
				t.Error(err)
			}
			for i, turn := range r.Conversations {
				if want := []string{"human", "gpt"}[i%2]; turn.From != want || strings.Contains(turn.Value, "<image>") != (i == 0) || turn.Value == "" {
					t.Errorf("%s: turn %d of %+v", kind, i, r)
				}
			}
			if n := len(r.Conversations); n == 4 {
				two++
			} else if n != 2 {
				t.Errorf("%s: %d turns", kind, n)
			}
		}
		if len(ids) != len(rows) || len(rows) == 0 {
			t.Errorf("%s: %d ids of %d conversations", kind, len(ids), len(rows))
		}
		if has := kind == "parm" || kind == "reflection"; has != (two > 0) {
			t.Errorf("%s: %d conversations of two questions", kind, two)
		}
		for _, r := range rows { // an answer is what the picture shows
			file, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(r.Image)))
			if err != nil {
				t.Fatal(err)
			}
			if right := grey(t, file) >= 9; kind == "reflection" && right != (r.Conversations[1].Value == "yes") {
				t.Errorf("%+v of a picture that is right: %v", r, right)
			}
		}
	}
}

func TestExportGoesOn(t *testing.T) {
	from, dir := ranked(t, 20), t.TempDir()
	e := export(t, dir, from, LLaVA)
	e.Generator = &coin{}
	stop := errors.New("stopped")
	e.Progress = func(done, _ int) { panic(stop) }
	func() {
		defer func() {
			if recover() == nil {
				t.Fatal("nothing was written in between")
			}
		}()
		_ = e.Run(t.Context())
	}()
	if _, err := os.Stat(filepath.Join(dir, llavaFile)); err == nil {
		t.Fatal("a folder that is not complete has its list")
	}
	first := filepath.Join(dir, imagesFolder, pictureName(3))
	if err := os.WriteFile(first, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Progress = nil
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(first); err != nil || string(text) != "kept" {
		t.Errorf("a picture was made twice: %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(dir, imagesFolder, pictureName(99))); err != nil {
		t.Error(err)
	}
	e.Tokenizer = "another"
	if err := e.Run(t.Context()); !errors.Is(err, ErrOtherData) {
		t.Errorf("error %v", err)
	}
	unknown := t.TempDir()
	if err := os.WriteFile(filepath.Join(unknown, "recipe.json"), []byte(`{"kind":"poems"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := export(t, t.TempDir(), unknown, LLaVA).Run(t.Context()); err == nil || !strings.Contains(err.Error(), `kind "poems"`) {
		t.Errorf("error %v", err)
	}
}

// Lines name pictures that are there and show their tokens, one or two a row; a stopped export goes on.
func TestExportOfLines(t *testing.T) {
	for kind, from := range dataSets(t) {
		dir := t.TempDir()
		want, err := exportable(from)
		if err != nil {
			t.Fatal(err)
		}
		shown := func(name string, tokens []int32) bool {
			file, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
			return err == nil && grey(t, file) == tokens[0]
		}
		for range 2 {
			if err := export(t, dir, from, JSONLines).Run(t.Context()); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			text, err := os.ReadFile(filepath.Join(dir, jsonlFile))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for line := range bytes.Lines(text) {
				var r jsonlRow
				if err := json.Unmarshal(line, &r); err != nil {
					t.Fatalf("%s: %v", kind, err)
				}
				x := want[n]
				right := r.File != "" && shown(r.File, r.Tokens) && slices.Equal(r.Tokens, x.tokens) && r.Outcome+r.Process+r.Clear != ""
				if kind == "pairs" || kind == "correction" {
					right = r.File == "" && shown(r.Good, r.GoodTokens) && shown(r.Bad, r.BadTokens) && slices.Equal(r.GoodTokens, x.good) && slices.Equal(r.BadTokens, x.tokens)
				}
				if !right || r.Prompt != x.row.Prompt || r.Reason != x.row.Reason {
					t.Errorf("%s: line %s", kind, line)
				}
				n++
			}
			if n != len(want) {
				t.Errorf("%s: %d lines of %d rows", kind, n, len(want))
			}
			if err := os.Remove(filepath.Join(dir, jsonlFile)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
