package ckpt

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
)

// Tensor returns one tensor for the engine: floating types as float32, I32, I64 and U8 as they are.
func (f *File) Tensor(name string) (*tensors.Tensor, error) { return f.TensorAs(name, F32) }

// TensorAs is Tensor with floating types as F32 or BF16. The elements are copied once, from the file to the tensor.
func (f *File) TensorAs(name string, float DType) (*tensors.Tensor, error) {
	e, err := f.get(name)
	if err != nil {
		return nil, err
	}
	if float != F32 && float != BF16 {
		return nil, fmt.Errorf("ckpt: tensor %q as %s: want F32 or BF16", name, float)
	}
	switch {
	case e.DType.IsFloat() && float == BF16:
		t := tensors.FromShape(shapes.Make(dtypes.BFloat16, e.Shape...))
		return t, t.MutableBytes(func(to []byte) { toBF16(to, e.DType, e.data) })
	case e.DType.IsFloat():
		t := tensors.FromShape(shapes.Make(dtypes.Float32, e.Shape...))
		return t, t.MutableFlatData(func(flat any) { toFloat32(flat.([]float32), e.DType, e.data) })
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
func (f *File) Tensors() (map[string]*tensors.Tensor, error) { return f.TensorsAs(F32) }

// TensorsAs returns every tensor by name, as TensorAs does, several at a time: reading is bound by the disk.
func (f *File) TensorsAs(float DType) (map[string]*tensors.Tensor, error) {
	all := make(map[string]*tensors.Tensor, len(f.names))
	var failed error
	var lock sync.Mutex
	var workers sync.WaitGroup
	names := make(chan string)
	for range max(1, min(runtime.GOMAXPROCS(0), 8)) {
		workers.Go(func() {
			for name := range names {
				t, err := f.TensorAs(name, float)
				lock.Lock()
				all[name], failed = t, errors.Join(failed, err)
				lock.Unlock()
			}
		})
	}
	for _, name := range f.names {
		names <- name
	}
	close(names)
	workers.Wait()
	if failed != nil {
		return nil, failed
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
