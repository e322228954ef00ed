package ckpt

import (
	"fmt"

	"github.com/gomlx/gomlx/core/tensors"
)

// Tensor returns one tensor for the engine: floating types as float32, I32, I64 and U8 as they are.
func (f *File) Tensor(name string) (*tensors.Tensor, error) {
	e, err := f.get(name)
	if err != nil {
		return nil, err
	}
	switch {
	case e.DType.IsFloat():
		return tensors.FromFlatDataAndDimensions(float32s(e.DType, e.data), e.Shape...), nil
	case e.DType == I32:
		v, err := f.Int32(name)
		return tensors.FromFlatDataAndDimensions(v, e.Shape...), err
	case e.DType == I64:
		v, err := f.Int64(name)
		return tensors.FromFlatDataAndDimensions(v, e.Shape...), err
	case e.DType == U8:
		v, err := f.U8(name)
		return tensors.FromFlatDataAndDimensions(v, e.Shape...), err
	}
	return nil, fmt.Errorf("ckpt: tensor %q of %s can't be given to the engine", name, e.DType)
}

// Tensors returns every tensor by name, as Tensor does.
func (f *File) Tensors() (map[string]*tensors.Tensor, error) {
	all := make(map[string]*tensors.Tensor, len(f.names))
	for _, name := range f.names {
		t, err := f.Tensor(name)
		if err != nil {
			return nil, err
		}
		all[name] = t
	}
	return all, nil
}

// FromTensor prepares an engine tensor of float32, int32, int64 or uint8 for writing. float32 becomes d if that is
// F32 or BF16; other types ignore d.
func FromTensor(name string, t *tensors.Tensor, d DType) (Tensor, error) {
	out := Tensor{Name: name, Shape: t.Shape().Dimensions}
	err := t.ConstFlatData(func(flat any) {
		switch v := flat.(type) {
		case []float32:
			out.DType, out.Values = d, append([]float32(nil), v...)
		case []int32:
			out.DType, out.Values = I32, append([]int32(nil), v...)
		case []int64:
			out.DType, out.Values = I64, append([]int64(nil), v...)
		case []uint8:
			out.DType, out.Values = U8, append([]uint8(nil), v...)
		}
	})
	if err != nil {
		return out, fmt.Errorf("ckpt: tensor %q: %w", name, err)
	}
	if out.Values == nil {
		return out, fmt.Errorf("ckpt: tensor %q of %s can't be written", name, t.DType())
	}
	return out, nil
}
