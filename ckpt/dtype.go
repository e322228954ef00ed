package ckpt

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// DType is the element type of a tensor, spelled as in the file format.
type DType string

// The element types that this package converts; the header check knows the others of the format too.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I64  DType = "I64"
	I32  DType = "I32"
	U8   DType = "U8"
	Bool DType = "BOOL"
)

// bitsOf one element, for every type of the format.
var bitsOf = map[DType]uint64{
	F64: 64, F32: 32, F16: 16, BF16: 16, I64: 64, I32: 32, U8: 8, Bool: 8,
	"U64": 64, "U32": 32, "U16": 16, "I16": 16, "I8": 8, "C64": 64,
	"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}

// Bits of one element, 0 for an unknown type.
func (d DType) Bits() int { return int(bitsOf[d]) }

// IsFloat reports whether Float32 can convert the type without leaving the real numbers.
func (d DType) IsFloat() bool { return d == F64 || d == F32 || d == F16 || d == BF16 }

// halfToFloat converts IEEE 754 binary16.
func halfToFloat(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp, frac := uint32(h>>10)&31, uint32(h)&1023
	switch {
	case exp == 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case exp == 0: // zero or subnormal: frac * 2^-24, exact in float32
		v := float32(frac) * 0x1p-24
		return math.Float32frombits(sign | math.Float32bits(v))
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// ToBF16 rounds to the nearest bfloat16, ties to even; NaN stays NaN.
func ToBF16(v float32) uint16 {
	b := math.Float32bits(v)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// ToF16 rounds to the nearest IEEE 754 binary16, ties to even; what is too large becomes infinite, NaN stays NaN.
func ToF16(v float32) uint16 {
	b := math.Float32bits(v)
	sign, a := uint16(b>>16&0x8000), b&0x7fffffff
	switch {
	case a > 0x7f800000:
		return sign | 0x7e00
	case a >= 0x477ff000: // halfway between the largest number, 65504, and the next
		return sign | 0x7c00
	case a >= 0x38800000: // 2^-14, the smallest normal number
		return sign | uint16((a-112<<23+0xfff+a>>13&1)>>13)
	}
	return sign | uint16(math.RoundToEven(float64(math.Float32frombits(a))*0x1p24))
}

// Half is the 16-bit type that keeps the values best: F16, or BF16 where one of them is out of its range.
func Half(values []float32) DType {
	for _, v := range values {
		if !(math.Abs(float64(v)) < 65520) {
			return BF16
		}
	}
	return F16
}

// decode converts little-endian elements of size bytes each.
func decode[T any](b []byte, size int, one func([]byte) T) []T {
	out := make([]T, len(b)/size)
	for i := range out {
		out[i] = one(b[i*size : i*size+size])
	}
	return out
}

func float32s(d DType, b []byte) []float32 {
	out := make([]float32, len(b)*8/max(d.Bits(), 8))
	toFloat32(out, d, b)
	return out
}

// littleEndian says whether memory and file have the same order of bytes.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// toFloat32 fills out with the elements of b, which are of a floating type. float32 is copied as it lies.
func toFloat32(out []float32, d DType, b []byte) {
	le := binary.LittleEndian
	switch d {
	case F32:
		if littleEndian && len(out) > 0 {
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&out[0])), 4*len(out)), b)
			return
		}
		for i := range out {
			out[i] = math.Float32frombits(le.Uint32(b[4*i:]))
		}
	case BF16:
		for i := range out {
			out[i] = math.Float32frombits(uint32(le.Uint16(b[2*i:])) << 16)
		}
	case F16:
		for i := range out {
			out[i] = halfToFloat(le.Uint16(b[2*i:]))
		}
	case F64:
		for i := range out {
			out[i] = float32(math.Float64frombits(le.Uint64(b[8*i:])))
		}
	}
}

// toBF16 fills out with the elements of b, rounded to bfloat16.
func toBF16(out []byte, d DType, b []byte) {
	var values [4096]float32
	from := d.Bits() / 8
	for n := len(out) / 2; n > 0; {
		m := min(n, len(values))
		toFloat32(values[:m], d, b)
		for i, v := range values[:m] {
			binary.NativeEndian.PutUint16(out[2*i:], ToBF16(v))
		}
		out, b, n = out[2*m:], b[from*m:], n-m
	}
}

// piece is how many bytes of a tensor are read before they are converted.
const piece = 1 << 20

// convert fills out, in the machine's order of bytes, with all elements as F32, as BF16 or in their own type.
func (e entry) convert(out []byte, to DType) error {
	if to == e.DType && littleEndian {
		return e.read(out, 0)
	}
	size, wide := e.DType.Bits()/8, to.Bits()/8
	raw := make([]byte, min(piece, len(e.data)))
	for at := 0; at < len(e.data); at += piece {
		b := raw[:min(piece, len(e.data)-at)]
		if err := e.read(b, at); err != nil {
			return err
		}
		part := out[at/size*wide:][:len(b)/size*wide]
		switch {
		case to == F32:
			toFloat32(unsafe.Slice((*float32)(unsafe.Pointer(&part[0])), len(part)/4), e.DType, b)
		case to == BF16:
			toBF16(part, e.DType, b)
		default:
			for i := range part { // a big-endian machine
				part[i] = b[i/size*size+size-1-i%size]
			}
		}
	}
	return nil
}

// put writes n elements into b, from element i of the values on; it returns false if the values do not suit the type.
func put(b []byte, d DType, values any, i, n int) bool {
	le := binary.LittleEndian
	switch v := values.(type) {
	case []float32:
		switch d {
		case F32:
			for j, x := range v[i : i+n] {
				le.PutUint32(b[4*j:], math.Float32bits(x))
			}
			return true
		case BF16:
			for j, x := range v[i : i+n] {
				le.PutUint16(b[2*j:], ToBF16(x))
			}
			return true
		case F16:
			for j, x := range v[i : i+n] {
				le.PutUint16(b[2*j:], ToF16(x))
			}
			return true
		}
	case []float64:
		for j, x := range v[i : i+n] {
			le.PutUint64(b[8*j:], math.Float64bits(x))
		}
		return d == F64
	case []int32:
		for j, x := range v[i : i+n] {
			le.PutUint32(b[4*j:], uint32(x))
		}
		return d == I32
	case []int64:
		for j, x := range v[i : i+n] {
			le.PutUint64(b[8*j:], uint64(x))
		}
		return d == I64
	case []uint8:
		copy(b, v[i:i+n])
		return d == U8
	case Lazy:
		return d == F32 || d == BF16 || d == F16
	case Raw:
		size := d.Bits() / 8
		copy(b, v[i*size:(i+n)*size])
		return size > 0
	}
	return false
}
