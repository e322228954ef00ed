// Package goldens finds the parity cases that tests compare with: folders of inputs and expected outputs of reference
// implementations. Tests skip where no cases are at hand.
package goldens

import (
	"os"
	"path/filepath"
	"testing"
)

// Env names the folder of parity cases.
const Env = "IMAGECOT_GOLDENS"

// Dir is the folder of parity cases: that of IMAGECOT_GOLDENS, else testdata/goldens in the module's root. The test is
// skipped if there is neither, and fails if the environment names a folder that does not exist.
func Dir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv(Env); dir != "" {
		if !isDir(dir) {
			t.Fatalf("goldens: %s=%s is not a folder", Env, dir)
		}
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatalf("goldens: %v", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Skip("goldens: no module root above the test")
		}
		dir = parent
	}
	dir = filepath.Join(dir, "testdata", "goldens")
	if !isDir(dir) {
		t.Skipf("goldens: no parity cases (set %s)", Env)
	}
	return dir
}

// Case is the folder of one case; the test is skipped if it is not there.
func Case(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(Dir(t), name)
	if !isDir(dir) {
		t.Skipf("goldens: no case %s (set %s)", name, Env)
	}
	return dir
}

// Cases are the folders whose names match the pattern (as in path.Match), in ascending order; the test is skipped if
// there is none.
func Cases(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(Dir(t), pattern, "case.json"))
	if err != nil {
		t.Fatalf("goldens: %v", err)
	}
	if len(found) == 0 {
		t.Skipf("goldens: no case matches %s (set %s)", pattern, Env)
	}
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
