package backend

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// bare gives the test a machine without plugins and without a choice in the environment.
func bare(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	t.Setenv(HomeEnv, home)
	t.Setenv(Env, "")
	t.Setenv("HOME", home)
	t.Setenv("VIRTUAL_ENV", "")
	t.Setenv("CONDA_PREFIX", "")
	return home
}

func double(t *testing.T, be compute.Backend) {
	t.Helper()
	out, err := graph.MustNewExec1(be, func(x *graph.Node) *graph.Node { return graph.Add(x, x) }).Call([]float32{1, 2.5})
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Value().([]float32); got[0] != 2 || got[1] != 5 {
		t.Fatalf("twice 1 and 2.5 is %v", got)
	}
}

func TestAutoFallsBackToGo(t *testing.T) {
	bare(t)
	be, info, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer be.Finalize()
	if info.Engine != "go" || info.Note == "" || strings.Contains(info.Note, "\n") {
		t.Fatalf("info %+v, want the pure-Go engine and a one-line note", info)
	}
	double(t, be)
}

func TestGoIsSilent(t *testing.T) {
	bare(t)
	t.Setenv(Env, "go")
	be, info, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer be.Finalize()
	if info.Engine != "go" || info.Note != "" {
		t.Fatalf("info %+v, want the pure-Go engine without a note", info)
	}
}

func TestOpenErrors(t *testing.T) {
	home := bare(t)
	text := filepath.Join(home, "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o755); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]string{
		"gpu":                             "unknown engine",
		"xla":                             "imagecot backend install",
		filepath.Join(home, "missing.so"): "no such file",
		home + "/":                        "no plugin that works here: " + home + " is not a file",
		text:                              "no plugin that works here: " + text,
	} {
		be, _, err := Open(spec)
		if err == nil {
			be.Finalize()
			t.Errorf("%s opened", spec)
			continue
		}
		if !strings.HasPrefix(err.Error(), "backend: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q, want one line with %q", spec, err, want)
		}
	}
}

// TestXLA runs where IMAGECOT_TEST_PLUGIN names a CPU plugin.
func TestXLA(t *testing.T) {
	plugin := os.Getenv("IMAGECOT_TEST_PLUGIN")
	if plugin == "" || !cgo {
		t.Skip("no plugin at hand (set IMAGECOT_TEST_PLUGIN)")
	}
	bare(t)
	be, info, err := Open(plugin)
	if err != nil {
		t.Fatal(err)
	}
	defer be.Finalize()
	if info.Engine != "xla" || info.Device != "cpu" || info.Plugin != plugin || info.Note != "" {
		t.Fatalf("info %+v", info)
	}
	double(t, be)
	if _, _, err := Open(plugin + ",no_such_option"); err == nil {
		t.Error("an unknown option was accepted")
	}
}

func TestFindsCUDAInPythonFolders(t *testing.T) {
	home := bare(t)
	path := filepath.Join(home, "venv", "lib", "python3.12", "site-packages", "jax_plugins", "xla_cuda12", "xla_cuda_plugin.so")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VIRTUAL_ENV", filepath.Join(home, "venv"))
	plugins, err := List()
	if err != nil {
		t.Fatal(err)
	}
	if len(plugins) == 0 || plugins[0].Path != path || plugins[0].Device != "cuda" || plugins[0].Installed {
		t.Fatalf("plugins %+v", plugins)
	}
}
