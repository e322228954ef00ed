package ckpt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sort"
	"unicode/utf8"
)

// maxHeader is the longest header that the format allows, in bytes.
const maxHeader = 100_000_000

// span is a tensor as the header describes it; begin and end count from the end of the header.
type span struct {
	Info
	begin, end uint64
}

// parseHeader checks a whole file by the rules of the format and returns the tensors, the metadata and the offset of
// the first data byte. It never trusts a number before it is checked against the size of the file.
func parseHeader(file []byte) (map[string]span, map[string]string, int, error) {
	if len(file) < 8 {
		return nil, nil, 0, fmt.Errorf("file of %d bytes, a header needs at least 8", len(file))
	}
	n := binary.LittleEndian.Uint64(file)
	if n > maxHeader {
		return nil, nil, 0, fmt.Errorf("header of %d bytes, at most %d are allowed", n, maxHeader)
	}
	if n > uint64(len(file)-8) {
		return nil, nil, 0, fmt.Errorf("header of %d bytes in a file of %d", n, len(file))
	}
	text := file[8 : 8+n]
	if !utf8.Valid(text) {
		return nil, nil, 0, errors.New("header is not UTF-8")
	}
	if len(text) == 0 || text[0] != '{' {
		return nil, nil, 0, errors.New("header does not start with {")
	}
	spans, metadata, err := parseJSON(text)
	if err != nil {
		return nil, nil, 0, err
	}
	if err := checkLayout(spans, uint64(len(file))-8-n); err != nil {
		return nil, nil, 0, err
	}
	return spans, metadata, int(8 + n), nil
}

// Bounds that no real file comes near, so that a header costs little more memory than its text.
const (
	maxTensors = 1 << 16 // tensors, and as many entries of metadata
	maxRank    = 64
)

func parseJSON(text []byte) (map[string]span, map[string]string, error) {
	s := &scanner{text: text}
	spans := map[string]span{}
	var metadata map[string]string
	err := s.object("header", maxTensors+1, func(name string) error {
		if name == "__metadata__" {
			metadata = map[string]string{}
			return s.object(name, maxTensors, func(key string) error {
				value, err := s.str()
				metadata[key] = value
				return err
			})
		}
		t, err := parseTensor(s, name)
		spans[name] = t
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if s.peek() != 0 {
		return nil, nil, errors.New("header goes on after its closing }")
	}
	return spans, metadata, nil
}

func parseTensor(s *scanner, name string) (span, error) {
	var t span
	var offsets []int
	seen := 0
	err := s.object(name, 4, func(key string) (err error) {
		seen++
		switch key {
		case "dtype":
			var d string
			d, err = s.str()
			t.DType = DType(d)
			if err == nil && bitsOf[t.DType] == 0 {
				err = fmt.Errorf("unknown dtype %.20q", d)
			}
		case "shape":
			t.Shape, err = s.numbers(maxRank)
		case "data_offsets":
			offsets, err = s.numbers(3)
			if err == nil && len(offsets) != 2 {
				err = fmt.Errorf("%d data_offsets, want 2", len(offsets))
			}
		default:
			err = fmt.Errorf("unknown key %.80q", key)
		}
		return err
	})
	if err == nil && seen != 3 {
		err = errors.New("dtype, shape and data_offsets are not all there")
	}
	if err != nil {
		return t, fmt.Errorf("tensor %.80q: %w", name, err)
	}
	t.begin, t.end = uint64(offsets[0]), uint64(offsets[1])
	return t, nil
}

// checkLayout compares shapes with offsets and demands that the tensors fill the data part without hole or overlap.
func checkLayout(spans map[string]span, size uint64) error {
	names := make([]string, 0, len(spans))
	for name, s := range spans {
		names = append(names, name)
		if s.begin > s.end {
			return fmt.Errorf("tensor %.80q: begins at %d, after its end %d", name, s.begin, s.end)
		}
		want, err := byteSize(s.Info)
		if err != nil {
			return fmt.Errorf("tensor %.80q: %w", name, err)
		}
		if want != s.end-s.begin {
			return fmt.Errorf("tensor %.80q: %s %v takes %d bytes, offsets give %d", name, s.DType, s.Shape, want, s.end-s.begin)
		}
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := spans[names[i]], spans[names[j]]
		if a.begin != b.begin {
			return a.begin < b.begin
		}
		if a.end != b.end {
			return a.end < b.end
		}
		return names[i] < names[j]
	})
	at := uint64(0)
	for _, name := range names {
		if s := spans[name]; s.begin != at {
			return fmt.Errorf("tensor %.80q: begins at %d, the one before ends at %d", name, s.begin, at)
		}
		at = spans[name].end
	}
	if at != size {
		return fmt.Errorf("tensors end at byte %d of %d", at, size)
	}
	return nil
}

// byteSize of a tensor, with every product checked.
func byteSize(i Info) (uint64, error) {
	total := bitsOf[i.DType]
	for _, n := range i.Shape {
		hi, lo := bits.Mul64(total, uint64(n))
		if hi != 0 {
			return 0, fmt.Errorf("size of %s %v overflows", i.DType, i.Shape)
		}
		total = lo
	}
	if total%8 != 0 {
		return 0, fmt.Errorf("%s %v is no whole number of bytes", i.DType, i.Shape)
	}
	return total / 8, nil
}
