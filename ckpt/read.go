package ckpt

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

func (f *File) get(name string, want ...DType) (entry, error) {
	e, ok := f.tensors[name]
	if !ok {
		return e, fmt.Errorf("ckpt: no tensor %q among %d", name, len(f.tensors))
	}
	if len(want) > 0 && !slices.Contains(want, e.DType) {
		return e, fmt.Errorf("ckpt: tensor %q is %s, want %v", name, e.DType, want)
	}
	return e, nil
}

// Bytes is a view of the tensor's little-endian elements, valid until Close and not to be written to.
func (f *File) Bytes(name string) ([]byte, error) {
	e, err := f.get(name)
	return e.data, err
}

// Float32 returns a copy of a tensor of F32, BF16, F16 or (rounded) F64.
func (f *File) Float32(name string) ([]float32, error) {
	e, err := f.get(name, F32, BF16, F16, F64)
	if err != nil {
		return nil, err
	}
	return float32s(e.DType, e.data), nil
}

// Float64 returns a copy of a tensor of any floating type.
func (f *File) Float64(name string) ([]float64, error) {
	e, err := f.get(name, F32, BF16, F16, F64)
	if err != nil {
		return nil, err
	}
	if e.DType == F64 {
		return decode(e.data, 8, func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }), nil
	}
	narrow := float32s(e.DType, e.data)
	out := make([]float64, len(narrow))
	for i, v := range narrow {
		out[i] = float64(v)
	}
	return out, nil
}

// Int32 returns a copy of an I32 tensor.
func (f *File) Int32(name string) ([]int32, error) {
	e, err := f.get(name, I32)
	if err != nil {
		return nil, err
	}
	return decode(e.data, 4, func(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) }), nil
}

// Int64 returns a copy of an I64 or I32 tensor.
func (f *File) Int64(name string) ([]int64, error) {
	e, err := f.get(name, I64, I32)
	if err != nil {
		return nil, err
	}
	if e.DType == I32 {
		return decode(e.data, 4, func(b []byte) int64 { return int64(int32(binary.LittleEndian.Uint32(b))) }), nil
	}
	return decode(e.data, 8, func(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) }), nil
}

// U8 returns a copy of a U8 or BOOL tensor.
func (f *File) U8(name string) ([]uint8, error) {
	e, err := f.get(name, U8, Bool)
	if err != nil {
		return nil, err
	}
	return slices.Clone(e.data), nil
}

// CheckFinite reports the first NaN or infinite element; the format itself allows them.
func (f *File) CheckFinite() error {
	for _, name := range f.names {
		if !f.tensors[name].DType.IsFloat() {
			continue
		}
		values, err := f.Float64(name)
		if err != nil {
			return err
		}
		for i, v := range values {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("ckpt: tensor %q holds %v at element %d", name, v, i)
			}
		}
	}
	return nil
}
