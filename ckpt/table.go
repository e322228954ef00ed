package ckpt

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/tensors"
)

// Source says where a file keeps a weight. Several weights may share one tensor, for example the three parts of a fused
// projection.
type Source struct {
	Name  string // of the tensor in the file
	Shape []int  // of the tensor in the file
	// Take makes the weight from the tensor's elements (row-major) and says its shape. Nil takes the tensor as it is.
	Take func(flat []float32) ([]float32, []int)
}

// Faults is the error of LoadTable: what is wrong with a checkpoint, tensor by tensor.
type Faults []string

// shownFaults are spelled out, the others counted.
const shownFaults = 5

func (f Faults) Error() string {
	text := strings.Join(f[:min(shownFaults, len(f))], ", ")
	if len(f) > shownFaults {
		text += fmt.Sprintf(" and %d more", len(f)-shownFaults)
	}
	return text
}

// LoadTable reads the weights of a table, name -> source, as float32. Every source must be in the file, floating and in
// its shape; every tensor of the file must be somebody's source or ignored. Otherwise the error is Faults.
func (f *File) LoadTable(table map[string]Source, ignored func(name string) bool) (map[string]*tensors.Tensor, error) {
	used := map[string]bool{}
	var faults Faults
	for _, weight := range slices.Sorted(maps.Keys(table)) {
		source := table[weight]
		if used[source.Name] {
			continue
		}
		used[source.Name] = true
		info, ok := f.Info(source.Name)
		switch {
		case !ok:
			faults = append(faults, fmt.Sprintf("%q is missing", source.Name))
		case !slices.Equal(info.Shape, source.Shape):
			faults = append(faults, fmt.Sprintf("%q has shape %v, want %v", source.Name, info.Shape, source.Shape))
		case !info.DType.IsFloat():
			faults = append(faults, fmt.Sprintf("%q is %s, not floating", source.Name, info.DType))
		}
	}
	for _, name := range f.Names() {
		if !used[name] && !ignored(name) {
			faults = append(faults, fmt.Sprintf("%q is not known", name))
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	out := make(map[string]*tensors.Tensor, len(table))
	for weight, source := range table {
		flat, err := f.Float32(source.Name)
		if err != nil {
			return nil, err
		}
		shape := source.Shape
		if source.Take != nil {
			flat, shape = source.Take(flat)
		}
		out[weight] = tensors.FromFlatDataAndDimensions(flat, shape...)
	}
	return out, nil
}

// Part is the i-th of n equal parts of a tensor along its first axis.
func Part(i, n int, shape []int) func([]float32) ([]float32, []int) {
	return func(flat []float32) ([]float32, []int) {
		size := len(flat) / n
		part := slices.Clone(shape)
		part[0] /= n
		return flat[i*size : (i+1)*size : (i+1)*size], part
	}
}

// Transposed is a matrix of the given shape with rows and columns exchanged.
func Transposed(shape []int) func([]float32) ([]float32, []int) {
	rows, cols := shape[0], shape[1]
	return func(flat []float32) ([]float32, []int) {
		out := make([]float32, len(flat))
		for i, v := range flat {
			out[i%cols*rows+i/cols] = v
		}
		return out, []int{cols, rows}
	}
}
