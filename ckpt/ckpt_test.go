package ckpt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime/metrics"
	"strings"
	"testing"
	"testing/fstest"

	"imagecot/internal/enginetest"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/gomlx/core/tensors"
)

// raw builds a file from a header text and a number of data bytes.
func raw(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func withLength(n uint64, rest string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, n), rest...)
}

const one = `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`

// badFiles are files that must be refused, each with a part of the message.
var badFiles = []struct {
	name string
	file []byte
	want string
}{
	{"empty file", nil, "file of 0 bytes"},
	{"seven bytes", make([]byte, 7), "file of 7 bytes"},
	{"header longer than the format allows", withLength(100_000_001, one), "at most 100000000"},
	{"header longer than the file", withLength(1000, one), "header of 1000 bytes in a file"},
	{"header length of all ones", withLength(math.MaxUint64, one), "at most"},
	{"header of length zero", withLength(0, ""), "does not start with {"},
	{"header not UTF-8", raw("{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8), "UTF-8"},
	{"leading space", raw(" "+one, 8), "does not start with {"},
	{"header is a list", raw(`[]`, 0), "does not start with {"},
	{"header cut", raw(one[:30], 8), "malformed"},
	{"text after the header", raw(one+"x", 8), "goes on after"},
	{"second object after the header", raw(one+"{}", 8), "goes on after"},
	{"duplicate tensor", raw(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), "comes twice"},
	{"duplicate tensor by escape", raw(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), "comes twice"},
	{"duplicate key in a tensor", raw(`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8), "comes twice"},
	{"duplicate metadata", raw(`{"__metadata__":{"k":"1","k":"2"}}`, 0), "comes twice"},
	{"key in another case", raw(`{"a":{"dtype":"F32","shape":[2],"data_ofFsets":[0,8]}}`, 8), "unknown key"},
	{"unknown key", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}`, 8), "unknown key"},
	{"offsets missing", raw(`{"a":{"dtype":"F32","shape":[2]}}`, 8), "not all there"},
	{"tensor is a number", raw(`{"a":1}`, 0), "belongs"},
	{"tensor is null", raw(`{"a":null}`, 0), "belongs"},
	{"metadata is a number", raw(`{"__metadata__":{"k":1}}`, 0), "string belongs"},
	{"metadata nested", raw(`{"__metadata__":{"k":{"x":"y"}}}`, 0), "string belongs"},
	{"unknown dtype", raw(`{"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}`, 8), "unknown dtype"},
	{"dtype in lower case", raw(`{"a":{"dtype":"f32","shape":[2],"data_offsets":[0,8]}}`, 8), "unknown dtype"},
	{"negative dimension", raw(`{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}`, 8), "whole number"},
	{"fractional dimension", raw(`{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}`, 8), "whole number"},
	{"dimension beyond 64 bits", raw(`{"a":{"dtype":"F32","shape":[18446744073709551618],"data_offsets":[0,8]}}`, 8), "whole number"},
	{"shape product overflows", raw(`{"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}}`, 0), "overflows"},
	{"shape times type overflows", raw(`{"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}}`, 0), "overflows"},
	{"half a byte", raw(`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}`, 1), "whole number of bytes"},
	{"negative offsets", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[-16,-8]}}`, 8), "whole number"},
	{"offsets reversed", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}`, 8), "after its end"},
	{"one offset", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[8]}}`, 8), "1 data_offsets"},
	{"three offsets", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}`, 8), "3 data_offsets"},
	{"offset as text", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":["0",8]}}`, 8), "number belongs"},
	{"size unlike shape", raw(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8), "takes 12 bytes"},
	{"data cut", raw(one, 7), "end at byte 8 of 7"},
	{"trailing data", raw(one, 9), "end at byte 8 of 9"},
	{"hole at the start", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "begins at 1"},
	{"hole between", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3), "begins at 2"},
	{"overlap", raw(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3), "begins at 1"},
	{"same bytes twice", raw(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 2), "begins at 0"},
	{"number with a leading zero", raw(`{"a":{"dtype":"F32","shape":[02],"data_offsets":[0,8]}}`, 8), "whole number"},
	{"offset beyond 64 bits", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,99999999999999999999999999]}}`, 8), "whole number"},
	{"65 dimensions", raw(`{"a":{"dtype":"U8","shape":[1`+strings.Repeat(",1", 64)+`],"data_offsets":[0,1]}}`, 1), "more than 64 numbers"},
	{"no comma between tensors", raw(one[:len(one)-1]+` "b":{}}`, 8), "where , belongs"},
	{"comma before the end", raw(one[:len(one)-1]+`,}`, 8), "where a string belongs"},
	{"no colon", raw(`{"a" {}}`, 0), "where : belongs"},
	{"half a surrogate pair in a name", raw(`{"\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), "malformed"},
	{"unknown escape in a name", raw(`{"\q":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), "malformed"},
	{"line break in a name", raw("{\"\n\":{}}", 0), "malformed"},
	{"nested 100,000 deep", raw(`{"a":`+strings.Repeat("[", 100_000), 0), "belongs"},
}

func TestBadFiles(t *testing.T) {
	for _, test := range badFiles {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.safetensors")
			if err := os.WriteFile(path, test.file, 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := Open(path)
			if err == nil {
				t.Fatalf("accepted, with tensors %v", f.Names())
			}
			if !strings.HasPrefix(err.Error(), "ckpt: ") || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %q, want one with %q", err, test.want)
			}
		})
	}
}

// allowance is what opening a file may allocate beyond its size.
const allowance = 64 << 20

// allocated is the number of bytes allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// Headers that are as long as they may be and hold as much as they can in the fewest bytes.
func TestAllocationIsBounded(t *testing.T) {
	const length = 20_000_000
	many := func(first, one, last string) []byte {
		return raw(first+strings.Repeat(one, length/len(one))+last, 0)
	}
	numbered := func(entry string) []byte {
		var b strings.Builder
		b.WriteByte('{')
		for i := 0; b.Len() < length; i++ {
			fmt.Fprintf(&b, entry, i)
		}
		return raw(strings.TrimSuffix(b.String(), ",")+"}", 0)
	}
	for name, file := range map[string][]byte{
		"dimensions":    many(`{"a":{"dtype":"U8","shape":[`, "0,", `0],"data_offsets":[0,0]}}`),
		"tensors":       numbered(`"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},`),
		"metadata":      raw(`{"__metadata__":`+string(numbered(`"%d":"",`)[8:])+"}", 0),
		"one long name": many(`{"`, "a", `":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`),
		"one long text": many(`{"__metadata__":{"a":"`, `\u0041`, `"}}`),
		"a long number": many(`{"a":{"dtype":"U8","shape":[1`, "0", `],"data_offsets":[0,0]}}`),
		"brackets":      many(`{"a":`, "[", ""),
		"white space":   many(`{`, " ", ""),
	} {
		before := allocated()
		_, err := Parse(file)
		if got := allocated() - before; got > uint64(len(file))+allowance {
			t.Errorf("%s: %d bytes allocated for a file of %d (%v)", name, got, len(file), err)
		}
		if err != nil && len(err.Error()) > 600 {
			t.Errorf("%s: a message of %d bytes", name, len(err.Error()))
		}
	}
}

func TestTensorsAs(t *testing.T) {
	path := filepath.Join(t.TempDir(), ModelFile)
	values := []float32{1, -2.5, 1.00390625, 3e38, 0, -0.1}
	if err := Write(path, []Tensor{
		{"w", F32, []int{2, 3}, values}, {"h", BF16, []int{6}, values}, {"x", F16, []int{2}, Raw{0, 0x3c, 1, 0}}, {"i", I32, []int{1}, []int32{7}},
	}, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d, want := range map[DType]string{F32: "Float32", BF16: "BFloat16"} {
		all, err := f.TensorsAs(d)
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range all {
			if name == "i" {
				continue
			}
			if got.DType().String() != want {
				t.Errorf("%s as %s has type %s", name, d, got.DType())
			}
			expected, err := f.Float32(name)
			if err != nil {
				t.Fatal(err)
			}
			var have []float32
			if d == F32 {
				have = tensors.MustCopyFlatData[float32](got)
			} else {
				for _, v := range tensors.MustCopyFlatData[bfloat16.BFloat16](got) {
					have = append(have, v.Float32())
				}
				for i, v := range expected {
					expected[i] = math.Float32frombits(uint32(ToBF16(v)) << 16)
				}
			}
			if !reflect.DeepEqual(have, expected) {
				t.Errorf("%s as %s is %v, want %v", name, d, have, expected)
			}
		}
	}
	if _, err := f.TensorAs("w", F16); err == nil {
		t.Error("a tensor as F16")
	}
}

func TestGoodOddFiles(t *testing.T) {
	for name, file := range map[string][]byte{
		"no tensors":               raw(`{}`, 0),
		"padding after the header": raw(one+"   ", 8),
		"scalar and empty tensor":  raw(`{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F32","shape":[0,5],"data_offsets":[4,4]}}`, 4),
		"white space and order":    raw("{ \"a\" : {\"data_offsets\":[0,8],\n\"shape\":[2],\"dtype\":\"F32\"} , \"__metadata__\":{} }", 8),
	} {
		if _, err := Parse(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func sample() []Tensor {
	return []Tensor{
		{"w", F32, []int{2, 3}, []float32{1, -2, 3.5, 0, float32(math.Inf(1)), 1e-40}},
		{"h", BF16, []int{4}, []float32{1, 1.00390625, 1.01171875, -3}},
		{"i", I32, []int{2}, []int32{-1, math.MaxInt32}},
		{"l", I64, []int{1}, []int64{math.MinInt64}},
		{"b", U8, []int{3}, []uint8{0, 255, 7}},
		{"d", F64, nil, []float64{math.Pi}},
		{"s", F16, []int{3}, []float32{1, 1 + 0x1p-11, -0.1}},
	}
}

func TestWriteAndOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), ModelFile)
	if err := Write(path, sample(), map[string]string{"format": "pt", "<&>": "é"}); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, want := f.Names(), []string{"b", "d", "h", "i", "l", "s", "w"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("names %v, want %v", got, want)
	}
	if got := f.Metadata()["<&>"]; got != "é" {
		t.Errorf("metadata %q", got)
	}
	check := func(got any, err error, want any) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v (%v), want %v", got, err, want)
		}
	}
	w, err := f.Float32("w")
	check(w, err, sample()[0].Values)
	h, err := f.Float32("h") // 1.00390625 = 1 + 2^-8 is a tie and goes to even, 1.01171875 = 1 + 3*2^-8 likewise
	check(h, err, []float32{1, 1, 1.015625, -3})
	half, err := f.Float32("s")
	check(half, err, []float32{1, 1, -0.099975586})
	i, err := f.Int32("i")
	check(i, err, sample()[2].Values)
	l, err := f.Int64("l")
	check(l, err, sample()[3].Values)
	b, err := f.U8("b")
	check(b, err, sample()[4].Values)
	d, err := f.Float64("d")
	check(d, err, sample()[5].Values)
	if info, ok := f.Info("w"); !ok || info.DType != F32 || !reflect.DeepEqual(info.Shape, []int{2, 3}) || info.Size() != 6 {
		t.Errorf("info %+v %v", info, ok)
	}
	if _, err := f.Float32("i"); err == nil || !strings.Contains(err.Error(), "I32") {
		t.Errorf("an I32 tensor as float32: %v", err)
	}
	if _, err := f.Bytes("none"); err == nil {
		t.Error("a tensor that is not there")
	}
	if err := f.CheckFinite(); err == nil || !strings.Contains(err.Error(), `"w"`) {
		t.Errorf("infinity in w: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Float32("w"); err == nil {
		t.Error("read after Close")
	}
}

func TestEncodeIsDeterministicAndAligned(t *testing.T) {
	var a, b bytes.Buffer
	tensors := sample()
	if err := Encode(&a, tensors, map[string]string{"x": "1", "y": "2"}); err != nil {
		t.Fatal(err)
	}
	tensors[0], tensors[5], tensors[1], tensors[3] = tensors[5], tensors[0], tensors[3], tensors[1]
	if err := Encode(&b, tensors, map[string]string{"y": "2", "x": "1"}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the order of the tensors changes the bytes")
	}
	spans, _, start, err := parseHeader(a.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range spans {
		if at := start + int(s.begin); at%(s.DType.Bits()/8) != 0 {
			t.Errorf("%s of %s begins at byte %d", name, s.DType, at)
		}
	}
}

func TestWriteRefusals(t *testing.T) {
	for name, tensors := range map[string][]Tensor{
		"name twice":         {{"a", U8, []int{1}, []uint8{1}}, {"a", U8, []int{1}, []uint8{1}}},
		"reserved name":      {{"__metadata__", U8, []int{1}, []uint8{1}}},
		"values unlike type": {{"a", I32, []int{1}, []float32{1}}},
		"no values":          {{"a", F32, []int{0}, nil}},
		"too few values":     {{"a", F32, []int{2}, []float32{1}}},
		"negative dimension": {{"a", F32, []int{-1, -1}, []float32{1}}},
		"unknown type":       {{"a", "F31", []int{1}, []float32{1}}},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "x.safetensors")
		if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Write(path, tensors, nil); err == nil {
			t.Errorf("%s: written", name)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "old" {
			t.Errorf("%s: the old file is now %q (%v)", name, text, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%s: left %v (%v)", name, entries, err)
		}
	}
}

func TestHalfPrecision(t *testing.T) {
	for bits, want := range map[uint16]float32{
		0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0400: 0x1p-14, 0x03ff: 1023 * 0x1p-24, 0x0001: 0x1p-24, 0x7c00: float32(math.Inf(1)),
	} {
		if got := halfToFloat(bits); got != want {
			t.Errorf("%04x is %v, want %v", bits, got, want)
		}
	}
	if got := halfToFloat(0x8000); got != 0 || !math.Signbit(float64(got)) {
		t.Errorf("8000 is %v, want -0", got)
	}
	nan := math.Float32frombits(0x7f800001) // rounding alone would make it infinite
	if got := ToBF16(nan); got&0x7f == 0 || got>>7&0xff != 0xff {
		t.Errorf("NaN became %04x", got)
	}
}

// Every half is what it rounds to, and between two neighbours the nearer one wins, or the even one.
func TestToF16(t *testing.T) {
	for h := range uint16(0x7c00) {
		low, high := halfToFloat(h), halfToFloat(h+1)
		if h == 0x7bff {
			high = 65536 // the next number, if the exponent had one more
		}
		middle := (low + high) / 2
		even := h + h&1
		for v, want := range map[float32]uint16{
			low: h, middle: even, math.Nextafter32(middle, low): h, math.Nextafter32(middle, high): h + 1,
			-low: 0x8000 | h, -middle: 0x8000 | even,
		} {
			if got := ToF16(v); got != want && !(v == 0 && got|0x8000 == 0x8000) {
				t.Fatalf("%v became %04x, want %04x", v, got, want)
			}
		}
	}
	for v, want := range map[float32]uint16{float32(math.Inf(1)): 0x7c00, float32(math.Inf(-1)): 0xfc00, 1e10: 0x7c00} {
		if got := ToF16(v); got != want {
			t.Errorf("%v became %04x, want %04x", v, got, want)
		}
	}
	if got := halfToFloat(ToF16(float32(math.NaN()))); got == got {
		t.Errorf("NaN became %v", got)
	}
	if Half([]float32{1, -65519}) != F16 || Half([]float32{1, -65520}) != BF16 || Half([]float32{float32(math.NaN())}) != BF16 || Half(nil) != F16 {
		t.Error("Half chose another type")
	}
}

func shards(t *testing.T, index string, names ...string) fstest.MapFS {
	t.Helper()
	fsys := fstest.MapFS{IndexFile: {Data: []byte(index)}}
	for _, name := range names {
		var b bytes.Buffer
		if err := Encode(&b, []Tensor{{name, U8, []int{1}, []uint8{name[0]}}}, nil); err != nil {
			t.Fatal(err)
		}
		fsys[name+".safetensors"] = &fstest.MapFile{Data: b.Bytes()}
	}
	return fsys
}

func TestOpenModelShards(t *testing.T) {
	fsys := shards(t, `{"metadata":{"total_size":2},"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}`, "a", "b")
	dir := t.TempDir()
	if err := os.CopyFS(dir, fsys); err != nil {
		t.Fatal(err)
	}
	fromDisk, err := OpenModel(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fromDisk.Close()
	fromFS, err := OpenModelFS(fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*File{fromDisk, fromFS} {
		for _, name := range []string{"a", "b"} {
			if got, err := f.U8(name); err != nil || got[0] != name[0] {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
	}
	for name, bad := range map[string]fstest.MapFS{
		"no weights at all":     {},
		"shard missing":         shards(t, `{"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}`, "a"),
		"tensor not in shard":   shards(t, `{"weight_map":{"a":"a.safetensors","c":"a.safetensors"}}`, "a"),
		"tensor not in index":   shards(t, `{"weight_map":{"b":"a.safetensors"}}`, "a"),
		"tensor twice in index": shards(t, `{"weight_map":{"a":"a.safetensors","a":"b.safetensors"}}`, "a", "b"),
		"shard outside":         shards(t, `{"weight_map":{"a":"../a.safetensors"}}`, "a"),
		"shard by drive":        shards(t, `{"weight_map":{"a":"c:a.safetensors"}}`, "a"),
		"weight_map is a list":  shards(t, `{"weight_map":[]}`, "a"),
		"shard is a number":     shards(t, `{"weight_map":{"a":1}}`, "a"),
		"shard of another type": shards(t, `{"weight_map":{"a":"index.json"}}`, "a"),
		"empty map":             shards(t, `{"weight_map":{}}`, "a"),
		"no JSON":               shards(t, `{"weight_map":`, "a"),
	} {
		if _, err := OpenModelFS(bad, "."); err == nil || !strings.HasPrefix(err.Error(), "ckpt: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("a folder was opened")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestManifest(t *testing.T) {
	dir := t.TempDir()
	want := Manifest{Kind: "judge", Name: "orm", Recipe: json.RawMessage(`{"steps":3}`), Parents: []Parent{{"init", "zeroshot", "ab"}}, Steps: 3, Date: "2026-01-02T03:04:05Z", Scores: map[string]float64{"overall": .5}}
	if err := WriteManifest(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, got.Recipe); err != nil {
		t.Fatal(err)
	}
	got.Recipe = compact.Bytes()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("manifest %+v, want %+v", got, want)
	}
	for _, bad := range []string{`{`, `{}`, `{"kind":"judge","sorce":1}`} {
		if err := os.WriteFile(filepath.Join(dir, ManifestFile), []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadManifest(dir); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}

// FuzzParse holds every accepted file to what acceptance promises: tensors that cover the data part once.
func FuzzParse(f *testing.F) {
	for _, test := range badFiles {
		if len(test.file) < 4096 {
			f.Add(test.file)
		}
	}
	var good bytes.Buffer
	if err := Encode(&good, sample(), map[string]string{"k": "v"}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Fuzz(func(t *testing.T, file []byte) {
		before := allocated()
		c, err := Parse(file)
		if got := allocated() - before; got > uint64(len(file))+allowance {
			t.Fatalf("%d bytes allocated for a file of %d", got, len(file))
		}
		if err != nil {
			return
		}
		total := 0
		for _, name := range c.Names() {
			b, err := c.Bytes(name)
			if err != nil {
				t.Fatal(err)
			}
			total += len(b)
			if info, _ := c.Info(name); info.Size()*info.DType.Bits() != 8*len(b) {
				t.Fatalf("%s: %d bytes for %+v", name, len(b), info)
			}
			if _, err := c.Tensor(name); err != nil && !strings.Contains(err.Error(), "engine") {
				t.Fatal(err)
			}
		}
		if want := len(file) - 8 - int(binary.LittleEndian.Uint64(file)); total != want {
			t.Fatalf("tensors cover %d bytes of %d", total, want)
		}
	})
}

// Weights at their place hold what the file holds, and a file that shrank after it was opened is an error.
func TestTensorsFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), ModelFile)
	long := make([]float32, 1<<19+3) // more than one piece
	for i := range long {
		long[i] = float32(i%251) - 125
	}
	if err := Write(path, []Tensor{{"bias", F32, []int{3}, []float32{1, 2, 3}}, {"half", BF16, []int{1, len(long)}, long}, {"wide", F32, []int{len(long), 1}, long}}, nil); err != nil {
		t.Fatal(err)
	}
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, p := range []Place{{}, {Engine: be}, {Engine: be, Float: BF16}} {
			all, err := f.TensorsFor(p)
			if err != nil {
				t.Fatal(err)
			}
			if got := tensors.MustCopyFlatData[float32](all["bias"]); !reflect.DeepEqual(got, []float32{1, 2, 3}) {
				t.Errorf("%v: a bias is %v", p.Float, got)
			}
			for _, name := range []string{"half", "wide"} {
				var got []float32
				if p.Float == BF16 {
					for _, v := range tensors.MustCopyFlatData[bfloat16.BFloat16](all[name]) {
						got = append(got, v.Float32())
					}
				} else {
					got = tensors.MustCopyFlatData[float32](all[name])
				}
				if !reflect.DeepEqual(got, long) { // small whole numbers are exact in all types
					t.Errorf("%v: %s is not what was written", p.Float, name)
				}
			}
		}
	})
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := f.TensorsFor(Place{}, "wide"); !errors.Is(err, io.EOF) {
		t.Errorf("a file that shrank: %v", err)
	}
}

func TestKept(t *testing.T) {
	for _, c := range []struct {
		elements int
		dtype    string
		want     DType
	}{
		{8, "auto", F32}, {8, "", F32}, {8, "bf16", BF16}, {60_000_000, "auto", BF16}, {60_000_000, "f32", F32}, {8, "f16", ""},
	} {
		f := &File{tensors: map[string]entry{"w": {Info: Info{F32, []int{c.elements}}}}}
		if got, err := f.Kept(c.dtype); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%d elements, %q: %q, %v", c.elements, c.dtype, got, err)
		}
	}
}
