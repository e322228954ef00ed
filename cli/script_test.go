package cli

import (
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"imagecot/experiment/untrained"
	"imagecot/hub/hubtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"imagecot": func() { os.Exit(Main()) }})
}

// TestScripts runs testdata/script/*.txtar: command lines, what they print and how they exit. `exits N CMD...` checks an
// exit code; `untrained DIR` writes models with random weights; `hub DIR` serves DIR/ORG/NAME as a hub's repositories.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("NO_COLOR", "1")
			env.Setenv("IMAGECOT_BACKEND", "go")
			env.Setenv("IMAGECOT_HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("HF_HOME", filepath.Join(env.WorkDir, "hf"))
			source, err := filepath.Abs("..")
			env.Setenv("SOURCE", source)
			return err
		},
		Cmds:      map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits, "untrained": writeUntrained, "published": publishUntrained, "hub": serveHub},
		Condition: func(name string) (bool, error) { return name == "slow" && !testing.Short(), nil },
	})
}

// exits runs a command and compares its exit code, which testscript's exec cannot.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec("sh", append([]string{"-c", `"$@"; code=$?; [ $code -eq ` + args[0] + ` ] || { echo "exit code $code" >&2; exit 1; }`, "sh"}, args[1:]...)...)
	if err != nil {
		ts.Fatalf("%v: want exit code %s", args[1:], args[0])
	}
}

func writeUntrained(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: untrained DIR")
	}
	ts.Check(untrained.Write(ts.MkAbs(args[0]), 1))
}

func publishUntrained(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: published")
	}
	ts.Check(untrained.Publish(ts.MkAbs("home"), ts.MkAbs("hf/hub")))
}

func serveHub(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hub DIR")
	}
	server := httptest.NewServer(hubtest.Handler(os.DirFS(ts.MkAbs(args[0]))))
	ts.Defer(server.Close)
	ts.Setenv("HF_ENDPOINT", server.URL)
}

// TestInterruptKeepsWhole stops an evaluation with Ctrl-C: exit code 130, and only whole files are left.
func TestInterruptKeepsWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("runs models")
	}
	dir := t.TempDir()
	if err := untrained.Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("imagecot", "eval", "--backend", "go", "--strategy", "single", "--steps", "1", "--images", "1",
		"--generator", filepath.Join(dir, "generator"), "--out", filepath.Join(dir, "run"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(dir, "run", "00000", "traces", "0000.json")
	for range 600 {
		if _, err := os.Stat(first); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupt {
		t.Fatalf("error %v, want exit code %d; stderr:\n%s", err, exitInterrupt, stderr.String())
	}
	if !strings.Contains(stderr.String(), "goes on from there") {
		t.Errorf("stderr lacks the way out:\n%s", stderr.String())
	}
	pngs, err := filepath.Glob(filepath.Join(dir, "run", "*", "samples", "*"))
	if err != nil || len(pngs) == 0 {
		t.Fatalf("no images, error %v", err)
	}
	for _, path := range pngs {
		if _, err := readImage(path); err != nil {
			t.Errorf("half an image: %v", err)
		}
	}
}
