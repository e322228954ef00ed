package ckpt

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"imagecot/internal/enginetest"

	"github.com/gomlx/gomlx/core/tensors"
)

// Opening is to be bound by the disk: compare MB/s of "open" with "read". IMAGECOT_BENCH_FILE names a large checkpoint,
// IMAGECOT_TEST_ENGINE the engine that gets it; "cold" drops the file from the page cache before each turn.
func BenchmarkOpen(b *testing.B) {
	path := os.Getenv("IMAGECOT_BENCH_FILE")
	if path == "" {
		path = filepath.Join(b.TempDir(), ModelFile)
		const rows, columns, layers = 2048, 2048, 16
		var all []Tensor
		for i := range layers {
			all = append(all, Tensor{Name: string(rune('a' + i)), DType: BF16, Shape: []int{rows, columns}, Values: make([]float32, rows*columns)})
		}
		if err := Write(path, all, nil); err != nil {
			b.Fatal(err)
		}
	}
	engine := enginetest.Fastest(b)
	for _, cached := range []string{"warm", "cold"} {
		before := func() {}
		if cached == "cold" {
			before = func() {
				b.StopTimer()
				if err := dropCache(path); err != nil {
					b.Skip(err)
				}
				b.StartTimer()
			}
		}
		b.Run("read/"+cached, func(b *testing.B) { benchmarkRead(b, path, before) })
		for _, float := range []DType{BF16, F32} {
			b.Run("open as "+string(float)+"/"+cached, func(b *testing.B) { benchmarkOpen(b, path, Place{Engine: engine, Float: float}, before) })
		}
	}
}

// benchmarkRead reads the whole file in pieces, and keeps nothing.
func benchmarkRead(b *testing.B, path string, before func()) {
	buffer := make([]byte, 8<<20)
	for b.Loop() {
		before()
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buffer)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
		f.Close()
	}
}

func benchmarkOpen(b *testing.B, path string, place Place, before func()) {
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		before()
		f, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		loaded, err := f.TensorsFor(place)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		free(b, loaded)
		f.Close()
		b.StartTimer()
	}
}

func free(b *testing.B, all map[string]*tensors.Tensor) {
	for _, t := range all {
		if err := t.FinalizeAll(); err != nil {
			b.Fatal(err)
		}
	}
}
