package parity

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"imagecot/ckpt"
)

func writeCase(t *testing.T, caseJSON string, tensors ...ckpt.Tensor) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "case.json"), []byte(caseJSON), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ckpt.Write(filepath.Join(dir, "io.safetensors"), tensors, nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

func f32(name string, values ...float32) ckpt.Tensor {
	return ckpt.Tensor{Name: name, DType: ckpt.F32, Shape: []int{len(values)}, Values: values}
}

func withRunner(t *testing.T, kind string, r Runner) {
	t.Helper()
	register(kind, r)
	t.Cleanup(func() { delete(runners, kind) })
}

func TestModelInShards(t *testing.T) {
	dir := writeCase(t, `{"kind":"test-shards"}`)
	for name, w := range map[string]ckpt.Tensor{"1.safetensors": f32("a", 1), "2.safetensors": f32("b", 2, 3)} {
		if err := ckpt.Write(filepath.Join(dir, name), []ckpt.Tensor{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	index := `{"metadata":{},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}`
	if err := os.WriteFile(filepath.Join(dir, ckpt.IndexFile), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	var names []string
	withRunner(t, "test-shards", func(_ context.Context, _ compute.Backend, c *Case) error {
		f, err := c.Model()
		if err != nil {
			return err
		}
		names = f.Names()
		return nil
	})
	if _, err := Run(t.Context(), nil, dir); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("the model holds %v", names)
	}
}

func TestToleranceDecides(t *testing.T) {
	const tolerances = `{"kind":"test-a","tolerance":{"x":{"atol":0.1,"rtol":0},"out.y":{"atol":0,"rtol":0.01},"mid.*":{"atol":1,"rtol":0},"z":"exact"}}`
	tests := []struct {
		name, output string
		want, got    []float32
		ok           bool
	}{
		{"short name, inside", "out.x", []float32{1, 2}, []float32{1.09, 2}, true},
		{"short name, outside", "out.x", []float32{1, 2}, []float32{1, 2.11}, false},
		{"long name, relative, inside", "out.y", []float32{1000}, []float32{1009}, true},
		{"long name, relative, outside", "out.y", []float32{1000}, []float32{1011}, false},
		{"pattern", "mid.q", []float32{1}, []float32{1.9}, true},
		{"exact", "out.z", []float32{1}, []float32{1.0000001}, false},
		{"no tolerance named counts as exact", "out.other", []float32{1}, []float32{1.0000001}, false},
		{"NaN", "out.x", []float32{1}, []float32{float32(math.NaN())}, false},
		{"infinite expected", "out.y", []float32{float32(math.Inf(1))}, []float32{3}, false},
		{"infinities agree", "out.y", []float32{float32(math.Inf(-1))}, []float32{float32(math.Inf(-1))}, true},
		{"fewer values", "out.x", []float32{1, 2}, []float32{1}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := writeCase(t, tolerances, f32(test.output, test.want...))
			withRunner(t, "test-a", func(_ context.Context, _ compute.Backend, c *Case) error {
				c.Compare(test.output, test.got)
				return nil
			})
			report, err := Run(t.Context(), nil, dir)
			if err != nil {
				t.Fatal(err)
			}
			if report.OK != test.ok {
				t.Fatalf("ok %v, want %v: %+v", report.OK, test.ok, report.Outputs)
			}
			if _, err := json.Marshal(report); err != nil {
				t.Fatalf("report can't be printed as JSON: %v", err)
			}
		})
	}
}

func TestForgottenOutputFails(t *testing.T) {
	dir := writeCase(t, `{"kind":"test-b","tolerance":"exact"}`, f32("in.a", 1), f32("out.x", 1), f32("out.y", 2), f32("mid.z", 3))
	withRunner(t, "test-b", func(_ context.Context, _ compute.Backend, c *Case) error {
		c.Compare("out.x", []float32{1})
		return nil
	})
	report, err := Run(t.Context(), nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	if report.OK || len(report.Outputs) != 2 || report.Outputs[1].Name != "out.y" || report.Outputs[1].OK {
		t.Fatalf("out.y was not compared, yet: %+v", report)
	}
}

func TestNothingComparedFails(t *testing.T) {
	dir := writeCase(t, `{"kind":"test-c"}`)
	withRunner(t, "test-c", func(context.Context, compute.Backend, *Case) error { return nil })
	report, err := Run(t.Context(), nil, dir)
	if err != nil || report.OK {
		t.Fatalf("a case without comparison passed: %+v, %v", report, err)
	}
}

func TestErrors(t *testing.T) {
	if _, err := Run(t.Context(), nil, writeCase(t, `{"kind":"no-such"}`)); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("unknown kind: %v", err)
	}
	withRunner(t, "test-d", func(context.Context, compute.Backend, *Case) error { panic("shapes differ") })
	if _, err := Run(t.Context(), nil, writeCase(t, `{"kind":"test-d"}`)); err == nil || !strings.Contains(err.Error(), "shapes differ") {
		t.Errorf("panic in a runner: %v", err)
	}
	for name, text := range map[string]string{
		"no JSON": "{", "tolerance in words": `{"kind":"test-d","tolerance":{"x":"roughly"}}`,
		"negative tolerance": `{"kind":"test-d","tolerance":{"x":{"atol":-1}}}`,
	} {
		if _, err := Run(t.Context(), nil, writeCase(t, text)); err == nil || errors.Is(err, ErrUnknownKind) || strings.Contains(err.Error(), "panic") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Run(t.Context(), nil, t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder without case.json: %v", err)
	}
}

func TestLooseTolerance(t *testing.T) {
	const text = `{"kind":"test-e","tolerance":{"out.x":"a difference of 1 in at most 25 % of the values"}}`
	for want, got := range map[bool][]float32{true: {1, 2, 3, 5}, false: {1, 2, 4, 5}} {
		dir := writeCase(t, text, f32("out.x", 1, 2, 3, 4))
		t.Run("", func(t *testing.T) {
			withRunner(t, "test-e", func(_ context.Context, _ compute.Backend, c *Case) error {
				c.Compare("out.x", got)
				return nil
			})
			if report, err := Run(t.Context(), nil, dir); err != nil || report.OK != want {
				t.Fatalf("%v: ok %v, want %v (%v)", got, report.OK, want, err)
			}
		})
	}
}
