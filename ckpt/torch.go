package ckpt

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/big"
	"os"
	"path"
	"sort"
	"strings"
)

// OpenTorch opens a file that torch.save wrote (.bin, .pt, .pth): a dictionary of tensors, or one that holds it as
// state_dict. Nothing of it is run: the pickle inside may rebuild tensors and name no other code. Still, such files are
// opened where a user asks for it only; Convert makes a safetensors file of one.
//
// Both formats are read: the zip archive of torch 1.6 and later, whose checksums are verified, and the older stream of
// pickles.
func OpenTorch(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("ckpt: %w", err)
	}
	defer file.Close()
	return openMapped(file, path, ParseTorch)
}

// ParseTorch is OpenTorch for a file in memory, which must not change.
func ParseTorch(data []byte) (*File, error) {
	var root any
	var err error
	switch {
	case bytes.HasPrefix(data, []byte("PK\x03\x04")):
		root, err = torchZip(data)
	case bytes.HasPrefix(data, legacyStart):
		root, err = torchLegacy(data)
	case len(data) > 262 && string(data[257:262]) == "ustar":
		err = errors.New("tar archive of torch 0.1: save it again with a newer torch")
	default:
		err = errors.New("not a file of torch.save: neither a zip archive nor a pickle with torch's mark")
	}
	if err != nil {
		return nil, fmt.Errorf("ckpt: torch: %w", err)
	}
	f, err := fromRoot(root, len(data))
	if err != nil {
		return nil, fmt.Errorf("ckpt: torch: %w", err)
	}
	return f, nil
}

// fromRoot finds the dictionary of tensors in what was pickled. Tensors may share memory, as tied weights do, but not so
// much that they hold many times what the file does.
func fromRoot(root any, size int) (*File, error) {
	d, ok := root.(*dict)
	if !ok {
		return nil, fmt.Errorf("holds a %T, want a dictionary of tensors", root)
	}
	for i, key := range d.keys {
		if inner, ok := d.values[i].(*dict); ok && key == "state_dict" {
			d = inner
			break
		}
	}
	f := &File{tensors: map[string]entry{}, metadata: map[string]string{}}
	total := 0
	for i, key := range d.keys {
		v, ok := d.values[i].(*view)
		if !ok {
			if isMeta(d.values[i]) {
				continue
			}
			return nil, fmt.Errorf("entry %.80q is no tensor", fmt.Sprint(key))
		}
		name, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("a tensor is named %.80v", key)
		}
		if _, ok := f.tensors[name]; ok {
			return nil, fmt.Errorf("tensor %.80q comes twice", name)
		}
		if total += v.numel() * v.storage.dtype.Bits() / 8; total > 4*size {
			return nil, fmt.Errorf("tensors share memory: they hold more than %d bytes, the file %d", 4*size, size)
		}
		f.names = append(f.names, name)
		f.tensors[name] = entry{Info: Info{v.storage.dtype, v.size}, data: v.bytes()}
	}
	if len(f.names) == 0 {
		return nil, errors.New("holds no tensor")
	}
	sort.Strings(f.names)
	return f, nil
}

// isMeta says whether a value beside the tensors is a plain one, such as a step count.
func isMeta(v any) bool {
	switch v.(type) {
	case nil, bool, int, float64, string, *big.Int:
		return true
	}
	return false
}

// bounded fails once more than a number of bytes were read: an archive's directory costs memory before it can be judged.
type bounded struct {
	r    io.ReaderAt
	left int
}

func (b *bounded) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("the archive's directory is longer than %d bytes", maxPickle)
	}
	return b.r.ReadAt(p, off)
}

// torchZip reads ARCHIVE/data.pkl, ARCHIVE/byteorder and the storages ARCHIVE/data/KEY.
func torchZip(data []byte) (any, error) {
	directory := &bounded{bytes.NewReader(data), maxPickle}
	z, err := zip.NewReader(directory, int64(len(data)))
	if err != nil {
		return nil, err
	}
	parts := map[string]*zip.File{}
	for _, f := range z.File {
		_, name, _ := strings.Cut(path.Clean(f.Name), "/") // without the archive's own name
		if parts[name] != nil {
			return nil, fmt.Errorf("part %.80q comes twice", name)
		}
		parts[name] = f
	}
	read := func(name string) ([]byte, error) {
		directory.left = maxPickle
		return stored(parts[name], data)
	}
	if parts["data.pkl"] == nil {
		return nil, errors.New("zip archive without data.pkl: not from torch.save")
	}
	text, err := read("data.pkl")
	if err != nil {
		return nil, err
	}
	if parts["byteorder"] != nil {
		order, err := read("byteorder")
		if err != nil {
			return nil, err
		}
		if string(order) != "little" {
			return nil, fmt.Errorf("byte order %.20q, only little is known", order)
		}
	}
	storages := map[string]*storage{}
	root, n, err := unpickle(text, storages)
	if err != nil {
		return nil, err
	}
	if n != len(text) {
		return nil, fmt.Errorf("data.pkl goes on after its end at byte %d", n)
	}
	for key, s := range storages {
		name := "data/" + key
		if parts[name] == nil {
			return nil, fmt.Errorf("storage %.80q is missing", name)
		}
		if s.data, err = read(name); err != nil {
			return nil, err
		}
		if want := uint64(s.numel) * uint64(s.dtype.Bits()/8); uint64(len(s.data)) != want {
			return nil, fmt.Errorf("storage %.80q has %d bytes, want %d of %s", name, len(s.data), s.numel, s.dtype)
		}
	}
	return root, nil
}

// stored is the content of a part that was stored as it is, a part of data; its checksum is verified.
func stored(f *zip.File, data []byte) ([]byte, error) {
	if f.Method != zip.Store || f.UncompressedSize64 != f.CompressedSize64 {
		return nil, fmt.Errorf("part %.80q is compressed, which torch.save never does", f.Name)
	}
	at, err := f.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("part %.80q: %w", f.Name, err)
	}
	if at < 0 || uint64(at) > uint64(len(data)) || f.UncompressedSize64 > uint64(len(data))-uint64(at) {
		return nil, fmt.Errorf("part %.80q is cut", f.Name)
	}
	part := data[at : uint64(at)+f.UncompressedSize64]
	if sum := crc32.ChecksumIEEE(part); sum != f.CRC32 {
		return nil, fmt.Errorf("part %.80q has checksum %08x, want %08x: the file is damaged", f.Name, sum, f.CRC32)
	}
	return part, nil
}

// legacyStart is the first pickle of the older format: the number 0x1950a86a20f9469cfc6c in protocol 2.
var legacyStart = []byte("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.")

// torchLegacy reads five pickles (mark, protocol, machine, object, keys of the storages), then each storage: its length as
// 64 bits and its elements.
func torchLegacy(data []byte) (any, error) {
	storages := map[string]*storage{}
	var values [5]any
	for i := range values {
		v, n, err := unpickle(data, storages)
		if err != nil {
			return nil, fmt.Errorf("part %d: %w", i, err)
		}
		values[i], data = v, data[n:]
	}
	if values[1] != 1001 {
		return nil, fmt.Errorf("protocol %v, want 1001", values[1])
	}
	keys, ok := values[4].(*list)
	if !ok {
		return nil, errors.New("no list of storages")
	}
	for _, k := range keys.items {
		key, _ := k.(string)
		s := storages[key]
		if s == nil || s.data != nil {
			return nil, fmt.Errorf("storage %.40q comes twice or belongs to nothing", fmt.Sprint(k))
		}
		if len(data) < 8 {
			return nil, fmt.Errorf("storage %.40q is cut", key)
		}
		n := binary.LittleEndian.Uint64(data)
		size := uint64(s.numel) * uint64(s.dtype.Bits()/8)
		if n != uint64(s.numel) || size > uint64(len(data)-8) {
			return nil, fmt.Errorf("storage %.40q: %d elements of %s in %d bytes, want %d", key, n, s.dtype, len(data)-8, s.numel)
		}
		s.data, data = data[8:8+size:8+size], data[8+size:]
	}
	if len(data) != 0 {
		return nil, fmt.Errorf("%d bytes after the last storage", len(data))
	}
	for key, s := range storages {
		if s.data == nil && s.numel > 0 {
			return nil, fmt.Errorf("storage %.40q is missing", key)
		}
	}
	return values[3], nil
}

// Convert writes the tensors of a torch file as a safetensors file, in their types.
func Convert(from, to string) error {
	f, err := OpenTorch(from)
	if err != nil {
		return err
	}
	defer f.Close()
	all := make([]Tensor, 0, len(f.names))
	for _, name := range f.names {
		e := f.tensors[name]
		all = append(all, Tensor{Name: name, DType: e.DType, Shape: e.Shape, Values: Raw(e.data)})
	}
	return Write(to, all, map[string]string{"format": "pt"})
}
