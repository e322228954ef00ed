package parity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/internal/goldens"
)

// All cases of GenEval but the crops, which belong to the detector; each must have compared something of every output.
func TestGeneval(t *testing.T) {
	want := map[string]int{"geneval-verdicts": 5, "geneval-templates": 2, "geneval-overlap": 2, "geneval-summary": 5}
	for name, outputs := range want {
		t.Run(name, func(t *testing.T) {
			report, err := Run(t.Context(), nil, goldens.Case(t, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range report.Outputs {
				t.Logf("%s: %d values, largest difference %g", o.Name, o.Values, o.MaxAbs)
				if !o.OK {
					t.Errorf("%s: %s", o.Name, o.Detail)
				}
			}
			if !report.OK || len(report.Outputs) != outputs {
				t.Errorf("%d outputs, want %d", len(report.Outputs), outputs)
			}
		})
	}
}

// A wrong expectation is a difference, a broken line is an error with its number.
func TestGenevalNotices(t *testing.T) {
	write := func(lines string) string {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"case.json": `{"kind": "geneval-overlap", "tolerance": "exact"}`, "cases.jsonl": lines,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	line := `{"id":"o1","metadata":{"tag":"single_object","include":[{"class":"cow","count":1}],"prompt":""},"key":"single_object|KEY","in_test":true}` + "\n"
	report, err := Run(t.Context(), nil, write(strings.Replace(line, "KEY", "cow", 1)))
	if err != nil || !report.OK {
		t.Errorf("right key: %+v, %v", report, err)
	}
	report, err = Run(t.Context(), nil, write(strings.Replace(line, "KEY", "dog", 1)))
	if err != nil || report.OK {
		t.Errorf("wrong key: %+v, %v", report, err)
	}
	if _, err = Run(t.Context(), nil, write(line+"{")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("broken line: %v", err)
	}
	if _, err = Run(t.Context(), nil, write("\n")); err == nil || !strings.Contains(err.Error(), "no case") {
		t.Errorf("no line: %v", err)
	}
}
