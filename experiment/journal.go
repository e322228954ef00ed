package experiment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// journal keeps finished work of a reproduction, one line each, in the order in which it was finished. A line's key is a
// hash of everything that decides its content, so lines of other models or settings are never taken for this run's. It is
// safe for concurrent use.
type journal struct {
	mu    sync.Mutex
	file  *os.File
	lines map[string]entry
}

// entry is the finished work of one measurement and one prompt.
type entry struct {
	Key       string   `json:"key"`
	Generator string   `json:"generator"` // these four are for readers
	Strategy  string   `json:"strategy"`
	N         int      `json:"n"`
	Prompt    string   `json:"prompt"`
	Chosen    []chosen `json:"chosen"` // one a group of N paths
}

// chosen is one selection: whether its image was right, if not why, and what it cost.
type chosen struct {
	Correct bool     `json:"correct"`
	Reason  string   `json:"reason,omitempty"`
	Steps   int      `json:"steps"`
	Calls   int      `json:"calls"`
	Decoded int      `json:"decoded"`
	PNG     []byte   `json:"png,omitempty"`  // of pictures that the gallery shows
	Said    []string `json:"said,omitempty"` // the judge's reasons before each correction (PARM++)
}

// openJournal reads a journal and opens it for more. A last line that a kill cut short is removed.
func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("experiment: journal: %w", err)
	}
	j := &journal{file: f, lines: map[string]entry{}}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("experiment: journal: %w", err), f.Close())
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	if whole < len(text) {
		if err := f.Truncate(int64(whole)); err != nil {
			return nil, errors.Join(fmt.Errorf("experiment: journal: %w", err), f.Close())
		}
	}
	n := 0
	for line := range bytes.Lines(text[:whole]) {
		n++
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, errors.Join(fmt.Errorf("experiment: %s line %d is damaged: %w", path, n, err), f.Close())
		}
		j.lines[e.Key] = e
	}
	return j, nil
}

func (j *journal) close() error { return j.file.Close() }

// get returns finished work.
func (j *journal) get(key string) (entry, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, ok := j.lines[key]
	return e, ok
}

// put adds finished work.
func (j *journal) put(e entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("experiment: journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("experiment: journal: %w", err)
	}
	j.lines[e.Key] = e
	return nil
}
