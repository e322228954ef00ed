package geneval

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Row is one image's line in results.jsonl.
type Row struct {
	Filename string `json:"filename"`
	Tag      string `json:"tag"`
	Prompt   string `json:"prompt"`
	Correct  bool   `json:"correct"`
	Reason   string `json:"reason"`   // lines joined by "\n", "" when correct
	Metadata string `json:"metadata"` // Metadata.Dump: the prompt's identity
	Details  string `json:"details"`  // Details of the kept objects
}

// NewRow makes the line of one judged image.
func NewRow(filename string, m Metadata, r Result) Row {
	return Row{
		Filename: filename, Tag: m.Tag, Prompt: m.Prompt, Correct: r.Correct,
		Reason: strings.Join(r.Reasons, "\n"), Metadata: m.Dump(), Details: Details(r.Kept),
	}
}

// WriteRow writes one line in the original's spelling: keys in order, "/" as "\/", ASCII only.
func WriteRow(w io.Writer, r Row) error {
	_, err := fmt.Fprintf(w, "{\"filename\":%s,\"tag\":%s,\"prompt\":%s,\"correct\":%t,\"reason\":%s,\"metadata\":%s,\"details\":%s}\n",
		escape(r.Filename, true), escape(r.Tag, true), escape(r.Prompt, true), r.Correct,
		escape(r.Reason, true), escape(r.Metadata, true), escape(r.Details, true))
	if err != nil {
		return fmt.Errorf("geneval: results: %w", err)
	}
	return nil
}

// ReadRows reads a results file of ours or of the original. Blank lines are skipped, further keys are ignored; a line
// without tag, metadata or verdict is an error.
func ReadRows(r io.Reader) ([]Row, error) {
	var rows []Row
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("geneval: results: %w", err)
		}
		last := err != nil
		if line = bytes.TrimSpace(line); len(line) > 0 {
			row, err := parseRow(line)
			if err != nil {
				return nil, fmt.Errorf("geneval: results line %d: %w", n, err)
			}
			rows = append(rows, row)
		}
		if last {
			return rows, nil
		}
	}
}

func parseRow(line []byte) (Row, error) {
	var raw struct {
		Row
		Tag      *string `json:"tag"`
		Correct  *bool   `json:"correct"`
		Metadata *string `json:"metadata"`
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return Row{}, err
	}
	if raw.Tag == nil || raw.Correct == nil || raw.Metadata == nil {
		return Row{}, errors.New("tag, correct and metadata must be there")
	}
	row := raw.Row
	row.Tag, row.Correct, row.Metadata = *raw.Tag, *raw.Correct, *raw.Metadata
	return row, nil
}
