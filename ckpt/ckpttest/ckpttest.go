// Package ckpttest makes checkpoint files for tests: of any size, at no cost.
package ckpttest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"imagecot/ckpt"
)

// Sparse writes a safetensors file whose tensors have these shapes and are zero. The zeros take no room on the disk, so
// that a checkpoint of full size can be opened in a test, if not computed with.
func Sparse(path string, shapes map[string][]int, dtype ckpt.DType) error {
	type entry struct {
		DType   ckpt.DType `json:"dtype"`
		Shape   []int      `json:"shape"`
		Offsets [2]int     `json:"data_offsets"`
	}
	header, at := map[string]entry{}, 0
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		size := ckpt.Info{Shape: shapes[name]}.Size() * dtype.Bits() / 8
		header[name] = entry{dtype, append([]int{}, shapes[name]...), [2]int{at, at + size}}
		at += size
	}
	text, err := json.Marshal(header)
	if err != nil {
		return fmt.Errorf("ckpttest: %w", err)
	}
	text = append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("ckpttest: %w", err)
	}
	return os.Truncate(path, int64(len(text)+at))
}
