package cli

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"imagecot": func() { os.Exit(Main()) }})
}

// TestScripts runs testdata/script/*.txtar: command lines, what they print and how they exit. `exits N CMD...` checks an
// exit code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("NO_COLOR", "1")
			env.Setenv("IMAGECOT_BACKEND", "go")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
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
