package ckpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// The files of testdata are made by oracle/torchfiles.py.

func TestOpenTorch(t *testing.T) {
	for _, name := range []string{"zip.bin", "nested.pth"} { // today's format, and the older one below state_dict
		f, err := OpenTorch(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for tensor, want := range map[string][]float64{
			"w": {0, 1, 2, 3, 4, 5}, "transposed": {0, 3, 1, 4, 2, 5}, "part": {4, 5, 6, 7, 8, 9}, "half": {0, 1, 2, 3, 4, 5},
			"bf16": {0, 1, 2, 3, 4, 5}, "double": {0, 1, 2, 3, 4, 5}, "scalar": {7}, "empty": {}, "parameter": {1, 2, 3, 4, 5, 6},
			"tied": {0, 1, 2, 3, 4, 5},
		} {
			got, err := f.Float64(tensor)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %s is %v (%v), want %v", name, tensor, got, err, want)
			}
		}
		if got, err := f.Int64("long"); err != nil || !slices.Equal(got, []int64{-1, 1 << 40}) {
			t.Errorf("%s: long is %v (%v)", name, got, err)
		}
		if got, err := f.U8("bool"); err != nil || !slices.Equal(got, []uint8{1, 0}) {
			t.Errorf("%s: bool is %v (%v)", name, got, err)
		}
		if info, _ := f.Info("transposed"); !reflect.DeepEqual(info, Info{F32, []int{3, 2}}) {
			t.Errorf("%s: transposed is %v", name, info)
		}
		if n := len(f.Names()); n != 12 {
			t.Errorf("%s: %d tensors, want 12", name, n)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	f, err := OpenTorch(filepath.Join("testdata", "plain.pt")) // protocol 4, a number beside the tensor
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := f.Names(); !slices.Equal(got, []string{"w"}) {
		t.Errorf("names %v", got)
	}
}

func TestConvert(t *testing.T) {
	to := filepath.Join(t.TempDir(), ModelFile)
	if err := Convert(filepath.Join("testdata", "zip.bin"), to); err != nil {
		t.Fatal(err)
	}
	f, err := Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, want := range map[string]DType{"w": F32, "bf16": BF16, "half": F16, "long": I64, "bool": Bool} {
		if info, ok := f.Info(name); !ok || info.DType != want {
			t.Errorf("%s became %v", name, info)
		}
	}
	if got, err := f.Float32("transposed"); err != nil || !slices.Equal(got, []float32{0, 3, 1, 4, 2, 5}) {
		t.Errorf("transposed is %v (%v)", got, err)
	}
}

func testFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// legacy is a file of the older format with that pickle as its object.
func legacy(object string) []byte {
	return []byte(string(legacyStart) + "\x80\x02M\xe9\x03.\x80\x02}." + "\x80\x02" + object + ".\x80\x02].")
}

func TestBadTorchFiles(t *testing.T) {
	damaged := bytes.Replace(testFile(t, "zip.bin"), []byte("\x00\x00\x40\x40\x00\x00\x80\x40"), []byte("\x00\x00\x40\x41\x00\x00\x80\x40"), 1)
	cut := testFile(t, "nested.pth")
	tensor := "(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n%s\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%stQ%stRu"
	storageOf := func(class, numel, rest string) []byte {
		return legacy("}" + strings.NewReplacer("%s", "").Replace(strings.Replace(strings.Replace(strings.Replace(tensor, "%s", class, 1), "%s", numel, 1), "%s", rest, 1)))
	}
	for _, test := range []struct {
		name string
		file []byte
		want string
	}{
		{"a call of os.system", testFile(t, "evil.bin"), `"system" of module "posix" is not allowed`},
		{"a program", testFile(t, "script.pt"), "holds a program (TorchScript"},
		{"a list", testFile(t, "list.bin"), "want a dictionary"},
		{"nothing", nil, "neither a zip archive nor"},
		{"safetensors under another name", raw(one, 8), "neither a zip archive nor"},
		{"tar archive", append(make([]byte, 257), "ustar\x0000etc"...), "tar archive of torch 0.1"},
		{"damaged storage", damaged, "checksum"},
		{"cut archive", testFile(t, "zip.bin")[:2000], "zip"},
		{"cut storage", cut[:len(cut)-3], "storage"},
		{"bytes after the end", append(bytes.Clone(cut), 0), "1 bytes after the last storage"},
		{"cut pickle", cut[:200], "pickle is cut"},
		{"a frame of 2^40 bytes and nothing in it", legacy("\x95\x00\x00\x00\x00\x00\x01\x00\x00}"), "no tensor"},
		{"text of 2^63 bytes", legacy("\x8d\x00\x00\x00\x00\x00\x00\x00\x80"), "pickle is cut"},
		{"bytes of 1 GiB", legacy("B\x00\x00\x00\x40"), "pickle is cut"},
		{"four-byte long of 1 GiB", legacy("\x8b\x00\x00\x00\x40"), "not known"},
		{"odd number of items", legacy("}(K\x01u"), "another kind"},
		{"items without a dictionary", legacy("(K\x01K\x02u"), "another kind"},
		{"tuple from an empty stack", legacy("\x87"), "another kind"},
		{"mark taken as a value", legacy("(\x85"), "another kind"},
		{"nothing remembered", legacy("h\x05"), "nothing was remembered as 5"},
		{"call of what is no name", legacy("}()R"), "another kind"},
		{"extension registry", legacy("\x82\x01"), "operation 0x82"},
		{"new object", legacy("ccollections\nOrderedDict\n)\x81"), "operation 0x81"},
		{"empty dictionary", legacy("}"), "no tensor"},
		{"a number as the whole", legacy("K\x01"), "want a dictionary"},
		{"a dictionary among tensors", legacy("}(X\x01\x00\x00\x00w}u"), `entry "w" is no tensor`},
		{"storage class that is not known", storageOf("QInt8Storage", "K\x02", "K\x00K\x02\x85K\x01\x85"), "QInt8Storage"},
		{"negative storage", storageOf("FloatStorage", "J\xff\xff\xff\xff", "K\x00K\x02\x85K\x01\x85"), "storage"},
		{"tensor beyond its storage", storageOf("FloatStorage", "K\x02", "K\x00K\x03\x85K\x01\x85"), "beyond its storage of 2"},
		{"offset beyond the storage", storageOf("FloatStorage", "K\x02", "K\x01K\x02\x85K\x01\x85"), "beyond its storage of 2"},
		{"stride beyond the storage", storageOf("FloatStorage", "K\x02", "K\x00K\x02\x85K\x02\x85"), "beyond its storage of 2"},
		{"storage that is not there", storageOf("FloatStorage", "K\x02", "K\x00K\x02\x85K\x01\x85"), "is missing"},
		{"size that overflows", storageOf("FloatStorage", "K\x02", "K\x00\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40K\x08\x86K\x00K\x00\x86"), "overflows"},
		{"a million operations", legacy(strings.Repeat("N0", 500_000) + "}"), "more than 262144 operations"},
	} {
		f, err := ParseTorch(test.file)
		if err == nil {
			t.Errorf("%s: accepted, with %v", test.name, f.Names())
			continue
		}
		if !strings.HasPrefix(err.Error(), "ckpt: torch: ") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %q, want one with %q", test.name, err, test.want)
		}
	}
}

// A model folder with pickles only is not opened: the user converts it, or does not.
func TestOpenModelRefusesPickles(t *testing.T) {
	for _, name := range []string{"pytorch_model.bin", "model.pt", "detector.pth"} {
		_, err := OpenModelFS(fstest.MapFS{"dir/" + name: {Data: testFile(t, "zip.bin")}}, "dir")
		if !errors.Is(err, ErrPickle) || !strings.Contains(err.Error(), "imagecot convert") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseTorch(f *testing.F) {
	for _, name := range []string{"zip.bin", "nested.pth", "plain.pt", "evil.bin", "list.bin"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(legacy("}"))
	f.Fuzz(func(t *testing.T, file []byte) {
		before := allocated()
		c, err := ParseTorch(file)
		if got := allocated() - before; got > uint64(len(file))+allowance {
			t.Fatalf("%d bytes allocated for a file of %d", got, len(file))
		}
		if err != nil {
			return
		}
		for _, name := range c.Names() {
			info, _ := c.Info(name)
			if b, err := c.Bytes(name); err != nil || len(b)*8 != info.Size()*info.DType.Bits() {
				t.Fatalf("%s: %d bytes for %+v (%v)", name, len(b), info, err)
			}
		}
	})
}

// A pickle is checked before anything of the length that it declares is made.
func TestPickleNumbers(t *testing.T) {
	for text, want := range map[string]any{
		"\x8a\x00.": 0, "\x8a\x01\xff.": -1, "\x8a\x02\x00\x80.": -32768, "\x8a\x02\xff\x00.": 255,
		"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.": math.MaxInt64, "J\xfe\xff\xff\xff.": -2, "G\x3f\xf8\x00\x00\x00\x00\x00\x00.": 1.5,
	} {
		got, n, err := unpickle([]byte(text), nil)
		if err != nil || got != want || n != len(text) {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	if binary.LittleEndian.Uint16(legacyStart) != 0x0280 {
		t.Error("the older format starts with another pickle")
	}
}
