package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"imagecot/internal/atomicfile"
)

// ReadJournal reads lines of JSON; a file that is not there has none.
func ReadJournal[Line any](path string) ([]Line, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("policy: journal: %w", err)
	}
	var out []Line
	for d := json.NewDecoder(bytes.NewReader(data)); d.More(); {
		var l Line
		if err := d.Decode(&l); err != nil {
			return nil, fmt.Errorf("policy: journal %s: %w", path, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// WriteJournal replaces the file.
func WriteJournal[Line any](path string, lines []Line) error {
	var b bytes.Buffer
	for _, l := range lines {
		text, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("policy: journal: %w", err)
		}
		b.Write(append(text, '\n'))
	}
	return atomicfile.WriteFile(path, b.Bytes(), 0o644)
}
