package ckpt_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/ckpt"
)

// The hash of a model is that of its file; of shards it depends on each, and on nothing else in the folder. A blob of a hub's
// cache is not read: its name is its hash.
func TestHashModel(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hash := func() string {
		t.Helper()
		sum, err := ckpt.HashModel(os.DirFS(dir))
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	if _, err := ckpt.HashModel(os.DirFS(dir)); err == nil || !strings.Contains(err.Error(), "no weights") {
		t.Errorf("error %v", err)
	}
	write(ckpt.IndexFile, "index")
	write("model-1.safetensors", "a")
	write("model-2.safetensors", "b")
	shards := hash()
	write("config.json", "{}")
	if hash() != shards {
		t.Error("config.json counts as weights")
	}
	write("model-2.safetensors", "c")
	if hash() == shards {
		t.Error("a shard does not count")
	}
	write(ckpt.ModelFile, "whole")
	want, err := ckpt.HashFile(filepath.Join(dir, ckpt.ModelFile))
	if err != nil || hash() != want {
		t.Errorf("one file has the hash %s, want %s (%v)", hash(), want, err)
	}
	blob := strings.Repeat("ab", 32)
	if err := os.Remove(filepath.Join(dir, ckpt.ModelFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("blobs", blob), filepath.Join(dir, ckpt.ModelFile)); err != nil {
		t.Skip(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "blobs"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join("blobs", blob), "weights")
	if got := hash(); got != blob {
		t.Errorf("a blob has the hash %s, want its name", got)
	}
}
