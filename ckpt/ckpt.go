// Package ckpt reads and writes checkpoints: safetensors files, alone or in shards, and the manifest that says where a
// checkpoint comes from.
//
// Every file is checked as a whole before the first tensor is handed out: length and encoding of the header, keys
// (exactly once, exactly spelled), types, shapes with checked products, and offsets that fill the data part without
// hole or overlap. A bad file is an error and never a panic. Files are mapped, not read; writing is atomic.
// The package knows no model: which tensors must be there is for the models to say.
package ckpt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

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
	file io.ReaderAt // holds data at offset at; nil if there is no file
	at   int64
}

// read fills to with the tensor's bytes from offset on. A file is read, not looked at through its map: pages of a map count
// as the process's memory, and faults are slower than reads.
func (e entry) read(to []byte, offset int) error {
	if e.file == nil {
		copy(to, e.data[offset:])
		return nil
	}
	_, err := e.file.ReadAt(to, e.at+int64(offset))
	return err
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
		f.tensors[name] = entry{Info: s.Info, data: data[start+int(s.begin) : start+int(s.end) : start+int(s.end)], at: int64(start) + int64(s.begin)}
	}
	sort.Strings(f.names)
	return f, nil
}

// Open maps a safetensors file into memory and checks it.
func Open(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("ckpt: %w", err)
	}
	return openSafetensors(file, path)
}

// openSafetensors checks an open file and takes it over.
func openSafetensors(file *os.File, path string) (*File, error) {
	f, err := openMapped(file, path, Parse)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	for name, e := range f.tensors {
		e.file = file
		f.tensors[name] = e
	}
	f.close = append(f.close, file.Close)
	return f, nil
}

// openMapped maps an open file, which may be closed afterwards, and lets parse check it.
func openMapped(file *os.File, path string, parse func([]byte) (*File, error)) (*File, error) {
	data, unmap, err := mapFile(file, path)
	if err != nil {
		return nil, fmt.Errorf("ckpt: %w", err)
	}
	f, err := parse(data)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w (%s)", err, path), unmap())
	}
	f.close = append(f.close, unmap)
	return f, nil
}

func mapFile(file *os.File, path string) ([]byte, func() error, error) {
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

// OpenFS opens a safetensors file of a file system and checks it: a file on disk is mapped, another, for example an
// embedded one, is read.
func OpenFS(fsys fs.FS, name string) (*File, error) {
	file, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("ckpt: %w", err)
	}
	if onDisk, ok := file.(*os.File); ok {
		return openSafetensors(onDisk, name)
	}
	defer file.Close()
	data, err := io.ReadAll(file)
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
	ModelFile     = "model.safetensors"
	IndexFile     = "model.safetensors.index.json"
	PublishedFile = "pytorch_model.safetensors" // what Show-o's repositories call theirs
)

// ErrPickle says that a folder holds its weights as torch pickles only, which are not opened as a model.
var ErrPickle = errors.New("weights are pickled")

// OpenModel opens the weights in a model folder: model.safetensors, else the shards that model.safetensors.index.json
// lists, else pytorch_model.safetensors.
func OpenModel(dir string) (*File, error) { return openModel(os.DirFS(dir), ".", dir) }

// OpenModelFS is OpenModel for a folder of a file system; "." is its root.
func OpenModelFS(fsys fs.FS, dir string) (*File, error) { return openModel(fsys, dir, dir) }

func openModel(fsys fs.FS, dir, shown string) (*File, error) {
	for _, name := range []string{ModelFile, IndexFile, PublishedFile} {
		at := path.Join(dir, name)
		if _, err := fs.Stat(fsys, at); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if name == IndexFile {
			return openShards(fsys, dir, shown)
		}
		return OpenFS(fsys, at)
	}
	if _, err := fs.Stat(fsys, path.Join(dir, AdapterFile)); err == nil {
		return nil, fmt.Errorf("ckpt: %s holds a LoRA adapter and no model: merge it into its base", shown)
	}
	for _, pattern := range []string{"*.bin", "*.pt", "*.pth"} {
		if found, err := fs.Glob(fsys, path.Join(dir, pattern)); err == nil && len(found) > 0 {
			return nil, fmt.Errorf("ckpt: %s: %w: %s; `imagecot convert` makes a safetensors file of it", shown, ErrPickle, path.Base(found[0]))
		}
	}
	if _, err := fs.Stat(fsys, dir); err != nil {
		return nil, fmt.Errorf("ckpt: model folder %s: %w", shown, err)
	}
	return nil, fmt.Errorf("ckpt: %s holds none of %s, %s, %s: %w", shown, ModelFile, IndexFile, PublishedFile, fs.ErrNotExist)
}

func openShards(fsys fs.FS, dir, shown string) (*File, error) {
	info, err := fs.Stat(fsys, path.Join(dir, IndexFile))
	if err == nil && info.Size() > maxIndex {
		err = fmt.Errorf("%d bytes, at most %d are allowed", info.Size(), maxIndex)
	}
	var text []byte
	if err == nil {
		text, err = fs.ReadFile(fsys, path.Join(dir, IndexFile))
	}
	var where map[string]string
	if err == nil {
		where, err = parseIndex(text)
	}
	if err != nil {
		return nil, fmt.Errorf("ckpt: %s in %s: %w", IndexFile, shown, err)
	}
	all := &File{tensors: map[string]entry{}, metadata: map[string]string{}}
	if err := all.addShards(where, func(name string) (*File, error) { return OpenFS(fsys, path.Join(dir, name)) }); err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return all, nil
}

// addShards takes in every tensor of the index from its shard, and demands that shards and index hold the same names.
func (f *File) addShards(where map[string]string, open func(string) (*File, error)) error {
	opened := map[string]*File{}
	for _, name := range slices.Sorted(maps.Keys(where)) {
		shard := where[name]
		s := opened[shard]
		if s == nil {
			var err error
			if s, err = open(shard); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("ckpt: shard %s of the index is missing: %w", shard, err)
			} else if err != nil {
				return err
			}
			opened[shard] = s
			f.close = append(f.close, s.close...)
			maps.Copy(f.metadata, s.metadata)
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
	return nil
}

// maxIndex bounds the index of a model in shards, in bytes.
const maxIndex = 64 << 20

// parseIndex returns tensor name -> shard. Shards are plain file names: an index cannot point out of its folder.
func parseIndex(text []byte) (map[string]string, error) {
	if len(text) > maxIndex {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(text), maxIndex)
	}
	if !json.Valid(text) || !utf8.Valid(text) {
		return nil, errors.New("not valid JSON")
	}
	s := &scanner{text: text}
	where := map[string]string{}
	err := s.object("index", maxTensors, func(key string) error {
		if key != "weight_map" {
			return s.skip()
		}
		return s.object(key, 16*maxTensors, func(name string) error {
			shard, err := s.str()
			if err == nil && (strings.ContainsAny(shard, `/\:`) || strings.HasPrefix(shard, ".") || !strings.HasSuffix(shard, ".safetensors")) {
				err = fmt.Errorf("shard %.80q is not a plain file name ending in .safetensors", shard)
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
	maps.Copy(m, f.metadata)
	return m
}
