package train

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"imagecot/internal/atomicfile"
)

// Scalars is told the figures of a step too: a TensorBoard event file, for instance.
type Scalars interface {
	Scalars(step int, values map[string]float64) error
}

// FileLog appends figures to DIR/metrics.jsonl and shows them, with the time left, on a writer for people.
type FileLog struct {
	Also Scalars // may be nil

	file    *os.File
	show    io.Writer
	total   int
	started time.Time
	first   int
}

// OpenLog opens DIR/metrics.jsonl for a run that stands at step; lines of later steps, left by a run that was killed
// after its last checkpoint, are dropped, so that every step is logged once.
func OpenLog(dir string, step, total int, show io.Writer) (*FileLog, error) {
	path := filepath.Join(dir, "metrics.jsonl")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("train: %w", err)
	}
	var keep bytes.Buffer
	for sc := bufio.NewScanner(bytes.NewReader(old)); sc.Scan(); {
		var line struct {
			Step int `json:"global_step"`
		}
		if json.Unmarshal(sc.Bytes(), &line) == nil && line.Step <= step {
			keep.Write(sc.Bytes())
			keep.WriteByte('\n')
		}
	}
	if err := atomicfile.WriteFile(path, keep.Bytes(), 0o644); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	return &FileLog{file: f, show: show, total: total, started: time.Now(), first: step}, nil
}

// Log implements Logger.
func (l *FileLog) Log(step int, values map[string]float64) error {
	line := map[string]any{"global_step": step}
	for k, v := range values {
		line[k] = v
	}
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("train: metrics: %w", err)
	}
	if _, err := l.file.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("train: metrics: %w", err)
	}
	if l.Also != nil {
		if err := l.Also.Scalars(step, values); err != nil {
			return err
		}
	}
	left := time.Since(l.started) / time.Duration(max(1, step-l.first)) * time.Duration(l.total-step)
	fmt.Fprintf(l.show, "step %d/%d, %s left:", step, l.total, left.Round(time.Second))
	for _, k := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(l.show, " %s %.4g", k, values[k])
	}
	fmt.Fprintln(l.show)
	return nil
}

// Close closes the file.
func (l *FileLog) Close() error { return l.file.Close() }
