package ckpt

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sort"
	"sync"

	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
)

// Place says where weights go, and how wide.
type Place struct {
	// Engine gets every tensor as soon as it is read, so that no second copy of a checkpoint ever exists; nil leaves
	// tensors in Go's memory until a program uses them.
	Engine compute.Backend
	// Float is the type of matrices and tables, F32 (the zero value counts as it) or BF16; vectors (biases, norms) are F32.
	Float DType
}

// Kept is the type in which a checkpoint's matrices are kept: "f32", "bf16", or "auto" (or ""), which is F32 for small
// checkpoints and BF16 from graphx.LargeSize elements on.
func (f *File) Kept(dtype string) (DType, error) {
	total := 0
	for _, e := range f.tensors {
		total += e.Size()
	}
	switch {
	case dtype == "f32", (dtype == "auto" || dtype == "") && total < graphx.LargeSize:
		return F32, nil
	case dtype == "bf16", dtype == "auto", dtype == "":
		return BF16, nil
	}
	return "", fmt.Errorf("ckpt: weights kept as %q: want auto, f32 or bf16", dtype)
}

// float is the type of a floating tensor of that many axes.
func (p Place) float(axes int) DType {
	if p.Float == "" || axes < 2 {
		return F32
	}
	return p.Float
}

// Tensor returns one tensor for the engine: floating types as float32, I32, I64 and U8 as they are.
func (f *File) Tensor(name string) (*tensors.Tensor, error) { return f.TensorAs(name, F32) }

// TensorAs is Tensor with floating types as F32 or BF16. The elements are copied once, from the file to the tensor.
func (f *File) TensorAs(name string, float DType) (*tensors.Tensor, error) {
	return f.tensor(name, float, nil)
}

// TensorFor is Tensor at its place.
func (f *File) TensorFor(name string, p Place) (*tensors.Tensor, error) {
	return f.tensor(name, p.float(len(f.tensors[name].Shape)), p.Engine)
}

// Tensors returns every tensor by name, as Tensor does.
func (f *File) Tensors() (map[string]*tensors.Tensor, error) { return f.TensorsAs(F32) }

// TensorsAs returns every tensor by name, as TensorAs does.
func (f *File) TensorsAs(float DType) (map[string]*tensors.Tensor, error) {
	return f.load(f.names, func(name string) (*tensors.Tensor, error) { return f.TensorAs(name, float) })
}

// TensorsFor returns the named tensors, or without names all of them, as TensorFor does.
func (f *File) TensorsFor(p Place, names ...string) (map[string]*tensors.Tensor, error) {
	if names == nil {
		names = f.names
	}
	return f.load(names, func(name string) (*tensors.Tensor, error) { return f.TensorFor(name, p) })
}

// load reads tensors in the order of the file, several at a time: reading is bound by the disk.
func (f *File) load(names []string, one func(name string) (*tensors.Tensor, error)) (map[string]*tensors.Tensor, error) {
	all := make(map[string]*tensors.Tensor, len(names))
	var failed error
	var lock sync.Mutex
	var workers sync.WaitGroup
	next := make(chan string)
	for range max(1, min(runtime.GOMAXPROCS(0), 8)) {
		workers.Go(func() {
			for name := range next {
				t, err := one(name)
				lock.Lock()
				all[name], failed = t, errors.Join(failed, err)
				lock.Unlock()
			}
		})
	}
	inOrder := slices.Clone(names)
	sort.SliceStable(inOrder, func(i, j int) bool { return f.tensors[inOrder[i]].at < f.tensors[inOrder[j]].at })
	for _, name := range inOrder {
		next <- name
	}
	close(next)
	workers.Wait()
	if failed != nil {
		return nil, failed
	}
	return all, nil
}

// tensor makes one tensor, its floating elements as F32 or BF16, on the engine if one is given.
func (f *File) tensor(name string, float DType, engine compute.Backend) (*tensors.Tensor, error) {
	e, err := f.get(name)
	if err != nil {
		return nil, err
	}
	var kind dtypes.DType
	switch {
	case float != F32 && float != BF16:
		return nil, fmt.Errorf("ckpt: tensor %q as %s: want F32 or BF16", name, float)
	case e.DType.IsFloat() && float == BF16:
		kind = dtypes.BFloat16
	case e.DType.IsFloat():
		kind = dtypes.Float32
	case e.DType == I32:
		kind = dtypes.Int32
	case e.DType == I64:
		kind = dtypes.Int64
	case e.DType == U8:
		kind = dtypes.Uint8
	default:
		return nil, fmt.Errorf("ckpt: tensor %q of %s can't be given to the engine", name, e.DType)
	}
	to := e.DType
	if to.IsFloat() {
		to = float
	}
	t, err := fill(engine, shapes.Make(kind, e.Shape...), func(out []byte) error { return e.convert(out, to) })
	if err != nil {
		return nil, fmt.Errorf("ckpt: tensor %q: %w", name, err)
	}
	return t, nil
}

// fill makes a tensor on the engine, or in Go's memory without one, and lets write fill it. Where engine and host share
// memory, it is written in place; otherwise the host's copy goes at once.
func fill(engine compute.Backend, shape shapes.Shape, write func([]byte) error) (*tensors.Tensor, error) {
	if engine != nil && engine.HasSharedBuffers() && shape.Size() > 0 {
		buffer, flat, err := engine.NewSharedBuffer(0, shape)
		if err != nil {
			return nil, err
		}
		if err := write(dtypes.UnsafeByteSliceFromAny(flat)); err != nil {
			return nil, errors.Join(err, buffer.Finalize())
		}
		return tensors.FromBuffer(buffer)
	}
	t := tensors.FromShape(shape)
	var failed error
	if err := t.MutableBytes(func(out []byte) { failed = write(out) }); err != nil || failed != nil {
		return nil, errors.Join(err, failed)
	}
	if engine == nil {
		return t, nil
	}
	if err := t.MaterializeOnDevice(engine, false, 0); err != nil {
		return nil, err
	}
	t.FinalizeLocal()
	return t, nil
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
