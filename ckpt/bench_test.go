package ckpt

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
)

// Opening is to be bound by the disk: compare MB/s of the three.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), ModelFile)
	const rows, columns, layers = 2048, 2048, 16
	var all []Tensor
	for i := range layers {
		all = append(all, Tensor{Name: string(rune('a' + i)), DType: F32, Shape: []int{rows, columns}, Values: make([]float32, rows*columns)})
	}
	if err := Write(path, all, nil); err != nil {
		b.Fatal(err)
	}
	const size = 4 * rows * columns * layers
	b.Run("read", func(b *testing.B) {
		b.SetBytes(size)
		buffer := make([]byte, size+1<<20)
		for b.Loop() {
			f, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(f, buffer); err != io.ErrUnexpectedEOF {
				b.Fatal(err)
			}
			f.Close()
		}
	})
	for _, d := range []DType{F32, BF16} {
		b.Run("open as "+string(d), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				f, err := Open(path)
				if err != nil {
					b.Fatal(err)
				}
				loaded, err := f.TensorsAs(d)
				if err != nil {
					b.Fatal(err)
				}
				free(b, loaded)
				f.Close()
			}
		})
	}
}

func free(b *testing.B, all map[string]*tensors.Tensor) {
	for _, t := range all {
		if err := t.FinalizeAll(); err != nil {
			b.Fatal(err)
		}
	}
}
