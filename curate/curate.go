// Package curate makes the data that reward models are fine-tuned on (Appendix B of the paper): training prompts that
// share no scene with the test prompts, ranking data (many images a prompt at high temperature, labelled by the
// evaluator), step data for the PRM (four roll-outs from a step; any right one makes it yes, after Math-Shepherd) and
// PARM's clarity and potential data. Images are kept as tokens: the tokenizer turns them into pixels when a model is
// trained. A data set is a folder of Parquet parts, one a group of prompts, with a card; equal seeds give equal bytes,
// and an interrupted build continues at the first missing part. The package knows generators by interface only.
package curate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"
	"github.com/parquet-go/parquet-go"

	"imagecot/geneval"
	"imagecot/internal/atomicfile"
)

// Evaluate judges a final image by the benchmark's rules.
type Evaluate func(ctx context.Context, img image.Image, m geneval.Metadata) (geneval.Result, error)

// ErrOtherData says that a folder holds a data set made in another way.
var ErrOtherData = errors.New("the folder holds another data set")

// Parts reports progress: parts done of all.
type Parts func(done, total int)

// build writes the parts that are missing. id describes how the data are made; it has to be equal for a build to go on.
func build[Row any](ctx context.Context, dir string, id any, parts int, progress Parts, make func(ctx context.Context, part int) ([]Row, error), options ...parquet.WriterOption) error {
	unlock, err := claim(dir, id)
	if err != nil {
		return err
	}
	defer unlock()
	for part := range parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, partName(part))
		if _, err := os.Stat(path); err == nil {
			continue
		}
		rows, err := make(ctx, part)
		if err != nil {
			return fmt.Errorf("curate: part %d: %w", part, err)
		}
		if err := writePart(dir, part, rows, options...); err != nil {
			return err
		}
		if progress != nil {
			progress(part+1, parts)
		}
	}
	return nil
}

// buildPrompts is build with size prompts a part, whose rows are made one prompt after the other.
func buildPrompts[Row any](ctx context.Context, dir string, id any, prompts []geneval.Metadata, size int, progress Parts, make func(context.Context, geneval.Metadata) ([]Row, error)) error {
	return build(ctx, dir, id, (len(prompts)+size-1)/size, progress, func(ctx context.Context, part int) ([]Row, error) {
		var rows []Row
		for _, m := range prompts[part*size : min((part+1)*size, len(prompts))] {
			some, err := make(ctx, m)
			if err != nil {
				return nil, fmt.Errorf("prompt %q: %w", m.Prompt, err)
			}
			rows = append(rows, some...)
		}
		return rows, nil
	})
}

// writePart writes one part as Parquet.
func writePart[Row any](dir string, part int, rows []Row, options ...parquet.WriterOption) error {
	var b bytes.Buffer
	if err := parquet.Write(&b, rows, append(options, parquet.Compression(&parquet.Zstd))...); err != nil {
		return fmt.Errorf("curate: part %d: %w", part, err)
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, partName(part)), b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("curate: part %d: %w", part, err)
	}
	return nil
}

func partName(part int) string { return fmt.Sprintf("part-%05d.parquet", part) }

// claim locks the folder and compares or writes recipe.json.
func claim(dir string, id any) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("curate: %w", err)
	}
	lock := flock.New(filepath.Join(dir, ".lock"))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("curate: lock %s: %w", dir, err)
	}
	if !ok {
		return nil, fmt.Errorf("curate: another process is writing to %s", dir)
	}
	defer func() {
		if err != nil {
			_ = lock.Unlock()
		}
	}()
	want, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("curate: recipe: %w", err)
	}
	path := filepath.Join(dir, "recipe.json")
	have, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := atomicfile.WriteFile(path, want, 0o644); err != nil {
			return nil, fmt.Errorf("curate: %w", err)
		}
	case err != nil:
		return nil, fmt.Errorf("curate: %w", err)
	case !bytes.Equal(have, want):
		return nil, fmt.Errorf("curate: %s: %w (compare its recipe.json)", dir, ErrOtherData)
	}
	return func() { _ = lock.Unlock() }, nil
}

// partsOf lists the parts of a data set, or of several whose folders stand with commas between, one after another. A
// folder without parts is an error.
func partsOf(from string) ([]string, error) {
	var all []string
	for _, dir := range strings.Split(from, ",") {
		names, err := filepath.Glob(filepath.Join(dir, "part-*.parquet"))
		if err != nil {
			return nil, fmt.Errorf("curate: %w", err)
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("curate: %s holds no data (part-00000.parquet, ...): %w", dir, fs.ErrNotExist)
		}
		slices.Sort(names)
		all = append(all, names...)
	}
	return all, nil
}

// Read returns all rows of a data set, or of several ("A,B"), in the order of their parts.
func Read[Row any](from string) ([]Row, error) {
	var all []Row
	err := eachRow(from, func(r Row) error {
		all = append(all, r)
		return nil
	})
	return all, err
}

// eachRow is Read part by part, so that what is not kept of a row takes no memory. A Row with fewer fields than the data set has
// columns reads these alone.
func eachRow[Row any](from string, each func(Row) error) error {
	names, err := partsOf(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		rows, err := readPart[Row](name)
		if err != nil {
			return fmt.Errorf("curate: %s: %w", name, err)
		}
		for _, r := range rows {
			if err := each(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// readPart reads one file; a damaged one is an error, not a panic.
func readPart[Row any](name string) (rows []Row, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged file: %v", r)
		}
	}()
	return parquet.ReadFile[Row](name)
}

// Fingerprint hashes a data set, or several ("A,B"): names and contents of the parts, for manifests.
func Fingerprint(from string) (string, error) {
	names, err := partsOf(from)
	if err != nil {
		return "", err
	}
	return hashFiles(names)
}

func hashFiles(names []string) (string, error) {
	h := sha256.New()
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("curate: %w", err)
		}
		fmt.Fprintf(h, "%s\n", filepath.Base(name))
		_, err = io.Copy(h, f)
		_ = f.Close()
		if err != nil {
			return "", fmt.Errorf("curate: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
