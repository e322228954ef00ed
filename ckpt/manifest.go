package ckpt

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"imagecot/internal/atomicfile"
	"imagecot/internal/fetch"
)

// ManifestFile is the manifest's name in a model folder.
const ManifestFile = "manifest.json"

// Parent is a checkpoint that another was trained from or with.
type Parent struct {
	Role   string `json:"role"` // for example "tokenizer", "init", "reference"
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // of its weights file
}

// Manifest says where a checkpoint comes from. Scores that were not measured are absent.
type Manifest struct {
	Kind     string             `json:"kind"` // "tokenizer", "generator", "judge"
	Name     string             `json:"name"`
	Recipe   json.RawMessage    `json:"recipe,omitempty"` // the recipe that trained it, whole
	Parents  []Parent           `json:"parents,omitempty"`
	DataHash string             `json:"data_hash,omitempty"` // sha256 over the training data
	Steps    int                `json:"steps"`               // optimiser steps
	Date     string             `json:"date"`                // RFC 3339
	Scores   map[string]float64 `json:"scores,omitempty"`
	Notes    string             `json:"notes,omitempty"`
}

// ReadManifest reads DIR/manifest.json. Unknown fields are errors.
func ReadManifest(dir string) (Manifest, error) { return ReadManifestFS(os.DirFS(dir), ".") }

// ReadManifestFS is ReadManifest for a folder of a file system.
func ReadManifestFS(fsys fs.FS, dir string) (Manifest, error) {
	var m Manifest
	text, err := fs.ReadFile(fsys, path.Join(dir, ManifestFile))
	if err != nil {
		return m, fmt.Errorf("ckpt: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("ckpt: %s: %w", ManifestFile, err)
	}
	if m.Kind == "" {
		return m, fmt.Errorf("ckpt: %s: no kind", ManifestFile)
	}
	return m, nil
}

// WriteManifest replaces DIR/manifest.json, atomically.
func WriteManifest(dir string, m Manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("ckpt: %s: %w", ManifestFile, err)
	}
	return atomicfile.WriteFile(filepath.Join(dir, ManifestFile), append(text, '\n'), 0o644)
}

// HashFile is the SHA-256 of a file's content in hexadecimal.
func HashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("ckpt: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("ckpt: hash %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// HashModel is the SHA-256 of a model folder's weights in hexadecimal; of shards it is the hash of their hashes.
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
