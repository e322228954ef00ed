package ckpt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"sort"
	"strconv"
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

func parseJSON(text []byte) (map[string]span, map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	spans := map[string]span{}
	var metadata map[string]string
	err := object(d, "header", func(name string) error {
		if name == "__metadata__" {
			metadata = map[string]string{}
			return object(d, name, func(key string) error {
				value, err := str(d)
				metadata[key] = value
				return err
			})
		}
		s, err := parseTensor(d, name)
		spans[name] = s
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("header goes on after its closing }")
	}
	return spans, metadata, nil
}

func parseTensor(d *json.Decoder, name string) (span, error) {
	var s span
	var offsets []uint64
	seen := 0
	err := object(d, name, func(key string) (err error) {
		seen++
		switch key {
		case "dtype":
			var t string
			t, err = str(d)
			s.DType = DType(t)
			if err == nil && bitsOf[s.DType] == 0 {
				err = fmt.Errorf("unknown dtype %q", t)
			}
		case "shape":
			var dims []uint64
			dims, err = numbers(d)
			s.Shape = make([]int, len(dims))
			for i, n := range dims {
				s.Shape[i] = int(n)
			}
		case "data_offsets":
			offsets, err = numbers(d)
			if err == nil && len(offsets) != 2 {
				err = fmt.Errorf("%d data_offsets, want 2", len(offsets))
			}
		default:
			err = fmt.Errorf("unknown key %q", key)
		}
		return err
	})
	if err == nil && seen != 3 {
		err = errors.New("dtype, shape and data_offsets are not all there")
	}
	if err != nil {
		return s, fmt.Errorf("tensor %q: %w", name, err)
	}
	s.begin, s.end = offsets[0], offsets[1]
	return s, nil
}

// checkLayout compares shapes with offsets and demands that the tensors fill the data part without hole or overlap.
func checkLayout(spans map[string]span, size uint64) error {
	names := make([]string, 0, len(spans))
	for name, s := range spans {
		names = append(names, name)
		if s.begin > s.end {
			return fmt.Errorf("tensor %q: begins at %d, after its end %d", name, s.begin, s.end)
		}
		want, err := byteSize(s.Info)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		if want != s.end-s.begin {
			return fmt.Errorf("tensor %q: %s %v takes %d bytes, offsets give %d", name, s.DType, s.Shape, want, s.end-s.begin)
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
			return fmt.Errorf("tensor %q: begins at %d, the one before ends at %d", name, s.begin, at)
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

// object reads one JSON object and calls value when a key's value is next. Keys are compared exactly; a key that comes
// twice is an error.
func object(d *json.Decoder, what string, value func(key string) error) error {
	if err := delim(d, '{'); err != nil {
		return fmt.Errorf("%q: %w", what, err)
	}
	seen := map[string]bool{}
	for d.More() {
		key, err := str(d)
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("key %q comes twice", key)
		}
		seen[key] = true
		if err := value(key); err != nil {
			return err
		}
	}
	return delim(d, '}')
}

func numbers(d *json.Decoder) ([]uint64, error) {
	if err := delim(d, '['); err != nil {
		return nil, err
	}
	out := []uint64{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		number, ok := t.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%v where a number belongs", t)
		}
		v, err := strconv.ParseUint(number.String(), 10, 64)
		if err != nil || v > math.MaxInt {
			return nil, fmt.Errorf("%s is not a whole number from 0 to %d", number, math.MaxInt)
		}
		out = append(out, v)
	}
	return out, delim(d, ']')
}

func str(d *json.Decoder) (string, error) {
	t, err := d.Token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("%v where a string belongs", t)
	}
	return s, nil
}

func delim(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err != nil {
		return fmt.Errorf("header is cut or malformed: %w", err)
	}
	if t != want {
		return fmt.Errorf("%v where %v belongs", t, want)
	}
	return nil
}
