package ckpt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"

	"imagecot/internal/atomicfile"
)

// Tensor is one tensor to write. Values is a []float32 (for F32, or BF16 or F16 with rounding to nearest even), []float64
// (F64), []int32 (I32), []int64 (I64), []uint8 (U8), Raw or Lazy, row-major.
type Tensor struct {
	Name   string
	DType  DType
	Shape  []int
	Values any
}

// Raw holds elements of any type as they lie in a file: little-endian, whole bytes each.
type Raw []byte

// Lazy makes N float32 elements when they are written, so that a model need not be in memory as a whole.
type Lazy struct {
	N    int
	Make func() ([]float32, error)
}

// Write replaces path by a safetensors file, atomically. Equal arguments give equal bytes, in whatever order the
// tensors come.
func Write(path string, tensors []Tensor, metadata map[string]string) error {
	f, err := atomicfile.Create(path, 0o644)
	if err != nil {
		return fmt.Errorf("ckpt: %w", err)
	}
	defer f.Close()
	if err := Encode(f, tensors, metadata); err != nil {
		return err
	}
	if err := f.Commit(); err != nil {
		return fmt.Errorf("ckpt: %w", err)
	}
	return nil
}

// Encode writes a safetensors file to w: widest types first, so that every tensor is aligned, then by name.
func Encode(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	sorted := append([]Tensor(nil), tensors...)
	sort.SliceStable(sorted, func(i, j int) bool {
		a, b := sorted[i], sorted[j]
		if a.DType.Bits() != b.DType.Bits() {
			return a.DType.Bits() > b.DType.Bits()
		}
		return a.Name < b.Name
	})
	header, err := encodeHeader(sorted, metadata)
	if err != nil {
		return fmt.Errorf("ckpt: %w", err)
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("ckpt: write header: %w", err)
	}
	for _, t := range sorted {
		if err := t.write(w); err != nil {
			return fmt.Errorf("ckpt: write tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

func encodeHeader(tensors []Tensor, metadata map[string]string) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	sep := byte('{')
	add := func(key string, value any) error {
		b.WriteByte(sep)
		sep = ','
		k, err := json.Marshal(key)
		if err != nil {
			return err
		}
		v, err := json.Marshal(value)
		if err != nil {
			return err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
		return nil
	}
	if len(metadata) > 0 {
		if err := add("__metadata__", metadata); err != nil {
			return nil, err
		}
	}
	seen := map[string]bool{"__metadata__": true}
	at := uint64(0)
	for _, t := range tensors {
		if seen[t.Name] {
			return nil, fmt.Errorf("tensor name %q is taken or reserved", t.Name)
		}
		seen[t.Name] = true
		size, err := t.byteSize()
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		if err := add(t.Name, struct {
			DType   DType     `json:"dtype"`
			Shape   []int     `json:"shape"`
			Offsets [2]uint64 `json:"data_offsets"`
		}{t.DType, shape, [2]uint64{at, at + size}}); err != nil {
			return nil, err
		}
		at += size
	}
	if sep == '{' {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	if b.Len()-8 > maxHeader {
		return nil, fmt.Errorf("header of %d bytes, at most %d are allowed", b.Len()-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(b.Len()-8))
	return b.Bytes(), nil
}

func (t Tensor) byteSize() (uint64, error) {
	n := valueCount(t.DType, t.Values)
	if n < 0 || !put(nil, t.DType, t.Values, 0, 0) {
		return 0, fmt.Errorf("%T can't be written as %q", t.Values, t.DType)
	}
	for _, d := range t.Shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", t.Shape)
		}
	}
	size, err := byteSize(Info{t.DType, t.Shape})
	if err == nil && size != uint64(n)*bitsOf[t.DType]/8 {
		err = fmt.Errorf("%d values for shape %v", n, t.Shape)
	}
	return size, err
}

func valueCount(d DType, values any) int {
	switch v := values.(type) {
	case []float32:
		return len(v)
	case []float64:
		return len(v)
	case []int32:
		return len(v)
	case []int64:
		return len(v)
	case []uint8:
		return len(v)
	case Lazy:
		return v.N
	case Raw:
		if size := d.Bits() / 8; size > 0 && len(v)%size == 0 {
			return len(v) / size
		}
	}
	return -1
}

// write streams the elements in pieces, so that no second copy of a large tensor is made.
func (t Tensor) write(w io.Writer) error {
	const piece = 1 << 16
	if lazy, ok := t.Values.(Lazy); ok {
		values, err := lazy.Make()
		if err != nil {
			return err
		}
		if len(values) != lazy.N {
			return fmt.Errorf("%d values where %d were announced", len(values), lazy.N)
		}
		t.Values = values
	}
	size := t.DType.Bits() / 8
	buffer := make([]byte, piece*size)
	for i, n := 0, valueCount(t.DType, t.Values); i < n; i += piece {
		m := min(piece, n-i)
		if !put(buffer, t.DType, t.Values, i, m) {
			return errors.New("unsuitable values")
		}
		if _, err := w.Write(buffer[:m*size]); err != nil {
			return err
		}
	}
	return nil
}
