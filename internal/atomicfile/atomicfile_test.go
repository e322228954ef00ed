package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func onlyFile(t *testing.T, dir string, want int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != want {
		t.Fatalf("%d entries in the folder, want %d: %v", len(entries), want, entries)
	}
}

func TestWriteFileReplacesAndKeepsPermission(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	if err := WriteFile(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "two" {
		t.Fatalf("content %q, want two", got)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Fatalf("permission %o, want that of the file replaced, 600", info.Mode().Perm())
	}
	onlyFile(t, dir, 1)
}

func TestOldContentStaysUntilCommit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("new"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "old" {
		t.Fatalf("content before Commit %q, want old", got)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "old" {
		t.Fatalf("content after Close without Commit %q, want old", got)
	}
	onlyFile(t, dir, 1)
	if err := f.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("Commit after Close: %v, want ErrClosed", err)
	}
}

func TestFailuresLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFile(filepath.Join(dir, "none", "a"), nil, 0o644); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing folder: %v", err)
	}
	if err := WriteFile(dir, nil, 0o644); err == nil {
		t.Fatal("a folder was replaced by a file")
	}
	onlyFile(t, dir, 0)
}

// Several files change together: one that cannot be written leaves the others as they were, and nothing beside them.
func TestWriteFilesIsAllOrNone(t *testing.T) {
	dir := t.TempDir()
	list := func() (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "b"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"a": []byte("1"), "b": []byte("2"), "c": []byte("3")}
	if err := WriteFiles(dir, files, 0o644); err == nil {
		t.Fatal("a folder in the place of c was overwritten")
	}
	if got := list(); !slices.Equal(got, []string{"b", "c"}) || read(t, filepath.Join(dir, "b")) != "old" {
		t.Errorf("left behind: %q", got)
	}
	if err := os.Remove(filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	if err := WriteFiles(dir, files, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := list(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("there are %q", got)
	}
	for name, want := range files {
		if got := read(t, filepath.Join(dir, name)); got != string(want) {
			t.Errorf("%s holds %q", name, got)
		}
	}
}
