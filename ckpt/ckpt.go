// Package ckpt reads and writes checkpoints: safetensors files, alone or in shards, and the manifest that says where a
// checkpoint comes from.
//
// Every file is checked as a whole before the first tensor is handed out: length and encoding of the header, keys
// (exactly once, exactly spelled), types, shapes with checked products, and offsets that fill the data part without
// hole or overlap. A bad file is an error and never a panic. Files are mapped, not read; writing is atomic.
// The package knows no model: which tensors must be there is for the models to say.
package ckpt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/edsrzf/mmap-go"
)

// Info describes one tensor. Shape is empty for a scalar.
type Info struct {
	DType DType
	Shape []int
}

// Size is the number of elements.
func (i Info) Size() int {
	n := 1
	for _, d := range i.Shape {
		n *= d
	}
	return n
}

type entry struct {
	Info
	data []byte
}

// File is an open checkpoint of one or more safetensors files. It may be read from several goroutines; Close ends the
// validity of every slice that Bytes returned.
type File struct {
	names    []string
	tensors  map[string]entry
	metadata map[string]string
	close    []func() error
}

// Parse checks a safetensors file in memory. The File refers to data, which must not change.
func Parse(data []byte) (*File, error) {
	spans, metadata, start, err := parseHeader(data)
	if err != nil {
		return nil, fmt.Errorf("ckpt: %w", err)
	}
	f := &File{tensors: make(map[string]entry, len(spans)), metadata: metadata}
	for name, s := range spans {
		f.names = append(f.names, name)
		f.tensors[name] = entry{s.Info, data[start+int(s.begin) : start+int(s.end) : start+int(s.end)]}
	}
	sort.Strings(f.names)
	return f, nil
}

// Open maps a safetensors file into memory and checks it.
func Open(path string) (*File, error) {
	data, unmap, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("ckpt: %w", err)
	}
	f, err := Parse(data)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w (%s)", err, path), unmap())
	}
	f.close = append(f.close, unmap)
	return f, nil
}

func mapFile(path string) ([]byte, func() error, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() == 0:
		return nil, func() error { return nil }, nil
	case info.Size() > math.MaxInt:
		return nil, nil, fmt.Errorf("%s: %d bytes do not fit this machine's addresses", path, info.Size())
	}
	data, err := mmap.Map(file, mmap.RDONLY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("map %s: %w", path, err)
	}
	return data, data.Unmap, nil
}

// OpenFS reads a safetensors file of a file system, for example an embedded one, and checks it.
func OpenFS(fsys fs.FS, name string) (*File, error) {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("ckpt: %w", err)
	}
	f, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, name)
	}
	return f, nil
}

// The file names of a model folder.
const (
	ModelFile = "model.safetensors"
	IndexFile = "model.safetensors.index.json"
)

// OpenModel opens the weights in a model folder: model.safetensors, else the shards that model.safetensors.index.json
// lists.
func OpenModel(dir string) (*File, error) {
	return openModel(dir,
		func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) },
		func(name string) (*File, error) { return Open(filepath.Join(dir, name)) })
}

// OpenModelFS is OpenModel for a folder of a file system; "." is its root.
func OpenModelFS(fsys fs.FS, dir string) (*File, error) {
	return openModel(dir,
		func(name string) ([]byte, error) { return fs.ReadFile(fsys, path.Join(dir, name)) },
		func(name string) (*File, error) { return OpenFS(fsys, path.Join(dir, name)) })
}

func openModel(dir string, read func(string) ([]byte, error), open func(string) (*File, error)) (*File, error) {
	f, err := open(ModelFile)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	text, err := read(IndexFile)
	if err != nil {
		return nil, fmt.Errorf("ckpt: %s holds neither %s nor %s: %w", dir, ModelFile, IndexFile, err)
	}
	where, err := parseIndex(text)
	if err != nil {
		return nil, fmt.Errorf("ckpt: %s in %s: %w", IndexFile, dir, err)
	}
	all := &File{tensors: map[string]entry{}, metadata: map[string]string{}}
	if err := all.addShards(where, open); err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return all, nil
}

// addShards takes in every tensor of the index from its shard, and demands that shards and index hold the same names.
func (f *File) addShards(where map[string]string, open func(string) (*File, error)) error {
	opened := map[string]*File{}
	for name, shard := range where {
		s := opened[shard]
		if s == nil {
			var err error
			if s, err = open(shard); err != nil {
				return err
			}
			opened[shard] = s
			f.close = append(f.close, s.close...)
			for key, value := range s.metadata {
				f.metadata[key] = value
			}
			for _, extra := range s.names {
				if where[extra] != shard {
					return fmt.Errorf("ckpt: tensor %q lies in shard %s, the index says %q", extra, shard, where[extra])
				}
			}
		}
		e, ok := s.tensors[name]
		if !ok {
			return fmt.Errorf("ckpt: tensor %q is not in shard %s", name, shard)
		}
		f.tensors[name] = e
		f.names = append(f.names, name)
	}
	sort.Strings(f.names)
	return nil
}

// parseIndex returns tensor name -> shard. Shards are plain file names: an index cannot point out of its folder.
func parseIndex(text []byte) (map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	where := map[string]string{}
	err := object(d, "index", func(key string) error {
		if key != "weight_map" {
			var skipped json.RawMessage
			return d.Decode(&skipped)
		}
		return object(d, key, func(name string) error {
			shard, err := str(d)
			if err == nil && (strings.ContainsAny(shard, `/\:`) || strings.HasPrefix(shard, ".") || !strings.HasSuffix(shard, ".safetensors")) {
				err = fmt.Errorf("shard %q is not a plain file name ending in .safetensors", shard)
			}
			where[name] = shard
			return err
		})
	})
	if err == nil && len(where) == 0 {
		err = errors.New("no tensor in weight_map")
	}
	return where, err
}

// Close releases the mapped files.
func (f *File) Close() error {
	var err error
	for _, c := range f.close {
		err = errors.Join(err, c())
	}
	f.close, f.names, f.tensors = nil, nil, nil
	return err
}

// Names of all tensors in ascending order.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Info returns type and shape, and whether there is a tensor of that name.
func (f *File) Info(name string) (Info, bool) {
	e, ok := f.tensors[name]
	return Info{e.DType, slices.Clone(e.Shape)}, ok
}

// Metadata is the header's free-form part; never nil.
func (f *File) Metadata() map[string]string {
	m := make(map[string]string, len(f.metadata))
	for k, v := range f.metadata {
		m[k] = v
	}
	return m
}

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
