package geneval

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Folder is one prompt's folder in the benchmark's layout: <root>/<digits>/metadata.jsonl and
// <root>/<digits>/samples/<digits>.png.
type Folder struct {
	Name     string // the digits
	Path     string
	Metadata Metadata
	Images   []string // full paths, in numerical order
}

// FolderName is the name of the i-th prompt's folder, five digits.
func FolderName(i int) string { return fmt.Sprintf("%05d", i) }

// ImageName is the name of the i-th image of a prompt, four digits.
func ImageName(i int) string { return fmt.Sprintf("%04d.png", i) }

// ReadFolders lists the prompt folders below root in numerical order. metadata.jsonl is one JSON object spread over any
// number of lines. Other files and folders are ignored; a folder of digits without metadata is an error, one without
// images is not. No prompt folder at all is an error.
//
// The original takes every name that starts with digits and .png (also 0000.png.tmp) in directory order; here names must
// match as a whole, and order is numerical.
func ReadFolders(root string) ([]Folder, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("geneval: %w", err)
	}
	var list []Folder
	for _, e := range entries {
		path := filepath.Join(root, e.Name())
		info, err := os.Stat(path)
		if err != nil || !info.IsDir() || !digits(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(path, "metadata.jsonl"))
		if err != nil {
			return nil, fmt.Errorf("geneval: folder %s: %w", e.Name(), err)
		}
		m, err := ParseMetadata(text)
		if err != nil {
			return nil, fmt.Errorf("geneval: folder %s: %w", e.Name(), err)
		}
		images, err := readImages(filepath.Join(path, "samples"))
		if err != nil {
			return nil, fmt.Errorf("geneval: folder %s: %w", e.Name(), err)
		}
		list = append(list, Folder{Name: e.Name(), Path: path, Metadata: m, Images: images})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("geneval: %s holds no prompt folder (00000, 00001, ...)", root)
	}
	slices.SortStableFunc(list, func(a, b Folder) int { return compareDigits(a.Name, b.Name) })
	return list, nil
}

func readImages(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), ".png"); ok && digits(base) && !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return compareDigits(strings.TrimSuffix(a, ".png"), strings.TrimSuffix(b, ".png"))
	})
	for i, name := range names {
		names[i] = filepath.Join(dir, name)
	}
	return names, nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// compareDigits orders by value, then by spelling. Values beyond 64 bits are the largest one.
func compareDigits(a, b string) int {
	x, _ := strconv.ParseUint(a, 10, 64)
	y, _ := strconv.ParseUint(b, 10, 64)
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
}
