package train

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"imagecot/internal/atomicfile"
)

// Scalars is told the figures of a step too: a TensorBoard event file, for instance.
type Scalars interface {
	Scalars(step int, values map[string]float64) error
}

// FileLog appends figures to DIR/metrics.jsonl.
type FileLog struct {
	Also []Scalars // told the same figures

	file *os.File
}

// OpenLog opens DIR/metrics.jsonl for a run that stands at step; lines of later steps, left by a run that was killed
// after its last checkpoint, are dropped, so that every step is logged once.
func OpenLog(dir string, step int) (*FileLog, error) {
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
	return &FileLog{file: f}, nil
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
	for _, a := range l.Also {
		if err := a.Scalars(step, values); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the file.
func (l *FileLog) Close() error { return l.file.Close() }
