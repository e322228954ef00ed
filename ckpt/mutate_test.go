package ckpt

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"testing"
)

// headers is how many mutated files TestMutatedHeaders tries: go test ./ckpt -run Mutated -headers 10000000
var headers = flag.Int("headers", 20_000, "mutated headers to try")

// words are what mutations put into a header.
var words = []string{
	"{", "}", "[", "]", ",", ":", `"`, `\`, `\u0041`, `\ud800`, "0", "-1", "8", "18446744073709551615", "9223372036854775807", "1e3", "null", `"F32"`, `"shape"`,
	`"data_offsets"`, `"dtype"`, `"__metadata__"`, "\x00", "\xff", " ", `"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}`,
}

// mutate changes a file in a few places and mends the length of its header half of the time.
func mutate(rng *rand.Rand, file []byte) []byte {
	b := bytes.Clone(file)
	for range 1 + rng.IntN(4) {
		if len(b) == 0 {
			return b
		}
		at := rng.IntN(len(b))
		to := min(len(b), at+1+rng.IntN(12))
		switch rng.IntN(6) {
		case 0:
			b[at] ^= 1 << rng.IntN(8)
		case 1:
			b = append(b[:at:at], b[to:]...)
		case 2:
			b = append(b[:at:at], append([]byte(words[rng.IntN(len(words))]), b[at:]...)...)
		case 3:
			b = append(b[:at:at], append([]byte(words[rng.IntN(len(words))]), b[to:]...)...)
		case 4:
			b = append(b[:to:to], b[at:]...)
		case 5:
			b = b[:at]
		}
	}
	if len(b) >= 8 && rng.IntN(2) == 0 {
		if end := bytes.LastIndexByte(b[8:], '}'); end >= 0 {
			binary.LittleEndian.PutUint64(b, uint64(end+1))
		}
	}
	return b
}

// No mutated header panics, allocates more than the file's size and 64 MiB, or is taken for what it is not.
func TestMutatedHeaders(t *testing.T) {
	var good bytes.Buffer
	if err := Encode(&good, sample(), map[string]string{"k": "v"}); err != nil {
		t.Fatal(err)
	}
	seeds := [][]byte{good.Bytes(), good.Bytes(), good.Bytes(), raw(one, 8), raw(one, 8)}
	for _, test := range badFiles {
		if len(test.file) < 4096 {
			seeds = append(seeds, test.file)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	const batch = 64 // files whose allocations are counted together
	before, size := allocated(), 0
	for i := range *headers {
		file := mutate(rng, seeds[rng.IntN(len(seeds))])
		size = max(size, len(file))
		f, err := Parse(file)
		if i%batch == batch-1 {
			if got := allocated() - before; got > uint64(size)+allowance {
				t.Fatalf("%d bytes allocated in files %d to %d", got, i-batch+1, i)
			}
			before, size = allocated(), 0
		}
		if err != nil {
			if len(err.Error()) > 600 {
				t.Fatalf("a message of %d bytes: %.600s", len(err.Error()), err)
			}
			continue
		}
		accepted++
		covered := 0
		for _, name := range f.Names() {
			info, _ := f.Info(name)
			data, err := f.Bytes(name)
			if err != nil || info.Size()*info.DType.Bits() != 8*len(data) {
				t.Fatalf("%q: %d bytes for %+v (%v) in %q", name, len(data), info, err, file)
			}
			covered += len(data)
		}
		if want := len(file) - 8 - int(binary.LittleEndian.Uint64(file)); covered != want {
			t.Fatalf("tensors cover %d bytes of %d in %q", covered, want, file)
		}
	}
	if accepted == 0 || accepted > *headers*9/10 {
		t.Errorf("%d of %d mutated files accepted: the mutations are of no use", accepted, *headers)
	}
	t.Logf("%d mutated files, %d accepted", *headers, accepted)
}
