package experiment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"os"

	"imagecot/geneval"
	"imagecot/internal/imgio"
)

// Memory keeps verdicts in a file, one line each, so that scoring goes on where it was stopped. A line's key is a hash of
// the evaluator, the prompt's metadata and the picture's pixels: whatever changes is judged again.
type Memory struct {
	evaluator string
	file      *os.File
	known     map[string]geneval.Result
}

// remembered is one line. Masks are not kept: nothing that is written needs them.
type remembered struct {
	Key     string            `json:"key"`
	Correct bool              `json:"correct"`
	Reasons []string          `json:"reasons,omitempty"`
	Kept    []rememberedClass `json:"kept"`
}

type rememberedClass struct {
	Class   string       `json:"class"`
	Objects [][5]float32 `json:"objects"` // x1, y1, x2, y2, score
}

// OpenMemory opens or makes the file. evaluator is everything that decides a verdict besides picture and prompt. A last
// line that a kill cut short is removed.
func OpenMemory(path, evaluator string) (*Memory, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	m := &Memory{evaluator: evaluator, file: file, known: map[string]geneval.Result{}}
	if err := m.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("experiment: %s: %w", path, err), file.Close())
	}
	return m, nil
}

func (m *Memory) read() error {
	text, err := io.ReadAll(m.file)
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	if whole < len(text) {
		if err := m.file.Truncate(int64(whole)); err != nil {
			return err
		}
	}
	n := 0
	for line := range bytes.Lines(text[:whole]) {
		n++
		var r remembered
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("line %d is damaged: %w", n, err)
		}
		result := geneval.Result{Correct: r.Correct, Reasons: r.Reasons}
		for _, k := range r.Kept {
			class := geneval.Kept{Class: k.Class}
			for _, o := range k.Objects {
				class.Objects = append(class.Objects, geneval.Detection{Class: k.Class, Box: [4]float32(o[:4]), Score: o[4]})
			}
			result.Kept = append(result.Kept, class)
		}
		m.known[r.Key] = result
	}
	return nil
}

// Remember answers from memory where it can and asks otherwise, keeping the answer.
func (m *Memory) Remember(evaluate Evaluate) Evaluate {
	return func(ctx context.Context, img image.Image, meta geneval.Metadata) (geneval.Result, error) {
		key := m.key(img, meta)
		if r, ok := m.known[key]; ok {
			return r, nil
		}
		r, err := evaluate(ctx, img, meta)
		if err != nil {
			return r, err
		}
		m.known[key] = r
		return r, m.keep(key, r)
	}
}

func (m *Memory) key(img image.Image, meta geneval.Metadata) string {
	h := sha256.New()
	field := func(b []byte) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	field([]byte(m.evaluator))
	field([]byte(meta.Dump()))
	rgb := imgio.RGB(img)
	field([]byte(rgb.Bounds().Size().String()))
	field(rgb.Pix)
	return hex.EncodeToString(h.Sum(nil))
}

func (m *Memory) keep(key string, r geneval.Result) error {
	line := remembered{Key: key, Correct: r.Correct, Reasons: r.Reasons, Kept: []rememberedClass{}}
	for _, k := range r.Kept {
		class := rememberedClass{Class: k.Class}
		for _, o := range k.Objects {
			class.Objects = append(class.Objects, [5]float32{o.Box[0], o.Box[1], o.Box[2], o.Box[3], o.Score})
		}
		line.Kept = append(line.Kept, class)
	}
	text, err := json.Marshal(line)
	if err == nil {
		_, err = m.file.Write(append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("experiment: %s: %w", m.file.Name(), err)
	}
	return nil
}

// Close keeps the file for the next run.
func (m *Memory) Close() error { return m.file.Close() }

// Done removes the file: the results are written, and nothing is left to go on from.
func (m *Memory) Done() error { return errors.Join(m.file.Close(), os.Remove(m.file.Name())) }
