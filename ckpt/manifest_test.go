package ckpt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// A model is known by the hash of its weights, wherever its files are called what; of shards by all of them.
func TestHashModel(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	hash := func(fsys fs.FS) string {
		t.Helper()
		sum, err := HashModel(fsys)
		if err != nil || len(sum) != 64 {
			t.Fatalf("%q, %v", sum, err)
		}
		return sum
	}
	one := hash(fstest.MapFS{ModelFile: file("a"), "config.json": file("b")})
	if want := "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"; one != want { // of "a"
		t.Errorf("%s, want %s", one, want)
	}
	if got := hash(fstest.MapFS{PublishedFile: file("a")}); got != one {
		t.Errorf("another name changes the hash: %s", got)
	}
	shards := fstest.MapFS{IndexFile: file("i"), "1.safetensors": file("a"), "2.safetensors": file("b")}
	all := hash(shards)
	shards["2.safetensors"] = file("c")
	if hash(shards) == all || all == one {
		t.Error("the second shard does not count")
	}
	if _, err := HashModel(fstest.MapFS{"config.json": file("b")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no weights: %v", err)
	}
	dir := t.TempDir() // a hub's cache: the link says the hash, and gigabytes are not read
	blob := strings.Repeat("0b", 32)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, blob), []byte("a"), 0o600), os.Symlink(blob, filepath.Join(dir, ModelFile))); err != nil {
		t.Skip(err)
	}
	if got := hash(os.DirFS(dir)); got != blob {
		t.Errorf("%s, want the blob's name", got)
	}
}
