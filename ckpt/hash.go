package ckpt

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"imagecot/internal/fetch"
)

// HashModel is the SHA-256 of a model folder's weights in hexadecimal: of its one file, or of shards and their index the hash of
// their hashes.
func HashModel(dir fs.FS) (string, error) {
	files, err := weightFiles(dir)
	if err != nil {
		return "", err
	}
	sums := make([]string, len(files))
	for i, file := range files {
		if sums[i], err = hashOf(dir, file); err != nil {
			return "", fmt.Errorf("ckpt: hash %s: %w", file, err)
		}
	}
	if len(sums) == 1 {
		return sums[0], nil
	}
	slices.Sort(sums)
	all := sha256.Sum256([]byte(strings.Join(sums, " ")))
	return hex.EncodeToString(all[:]), nil
}

// weightFiles are the files of a model folder that hold its weights, and the index of shards.
func weightFiles(dir fs.FS) ([]string, error) {
	for _, name := range []string{ModelFile, IndexFile, PublishedFile} {
		if _, err := fs.Stat(dir, name); err != nil {
			continue
		}
		if name != IndexFile {
			return []string{name}, nil
		}
		shards, err := fs.Glob(dir, "*.safetensors")
		return append([]string{name}, shards...), err
	}
	return nil, fmt.Errorf("ckpt: no weights: %w", fs.ErrNotExist)
}

// hashOf is the SHA-256 of a file. In a hub's cache it is the name of the blob that the file links to.
func hashOf(dir fs.FS, name string) (string, error) {
	if to, err := fs.ReadLink(dir, name); err == nil {
		if blob := path.Base(to); len(blob) == 64 && fetch.KnownHash(blob) {
			return blob, nil
		}
	}
	f, err := dir.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
