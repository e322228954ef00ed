package experiment

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"os"
	"path/filepath"

	"imagecot/geneval"
)

// Score evaluates every image of a folder in GenEval's layout, whoever made it. open reads one image. File names in the
// rows are relative to the folder.
func Score(ctx context.Context, dir string, evaluate Evaluate, open func(path string) (image.Image, error), progress func(done, total int)) ([]geneval.Row, error) {
	folders, err := geneval.ReadFolders(dir)
	if err != nil {
		return nil, err
	}
	total := 0
	for _, f := range folders {
		total += len(f.Images)
	}
	var rows []geneval.Row
	for _, f := range folders {
		for _, path := range f.Images {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			img, err := open(path)
			if err != nil {
				return nil, err
			}
			result, err := evaluate(ctx, img, f.Metadata)
			if err != nil {
				return nil, fmt.Errorf("experiment: score %s: %w", path, err)
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return nil, fmt.Errorf("experiment: score: %w", err)
			}
			rows = append(rows, geneval.NewRow(filepath.ToSlash(name), f.Metadata, result))
			if progress != nil {
				progress(len(rows), total)
			}
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("experiment: score: %s holds prompt folders but no samples/0000.png", dir)
	}
	return rows, nil
}

// WriteRows writes a results.jsonl.
func WriteRows(path string, rows []geneval.Row) error {
	var b bytes.Buffer
	for _, r := range rows {
		if err := geneval.WriteRow(&b, r); err != nil {
			return err
		}
	}
	return write(path, b.Bytes())
}

// ReadRows reads a results.jsonl, given itself or the folder that it lies in.
func ReadRows(path string) ([]geneval.Row, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "results.jsonl")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	defer f.Close()
	rows, err := geneval.ReadRows(f)
	if err != nil {
		return nil, fmt.Errorf("experiment: %s: %w", path, err)
	}
	return rows, nil
}
