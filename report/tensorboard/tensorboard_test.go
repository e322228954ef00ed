package tensorboard

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// fields splits a message into its fields; nested messages stay bytes.
func fields(t *testing.T, b []byte) map[protowire.Number][]any {
	t.Helper()
	out := map[protowire.Number][]any{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal("bad tag")
		}
		b = b[n:]
		var v any
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			v, n = protowire.ConsumeFixed32(b)
		case protowire.Fixed64Type:
			v, n = protowire.ConsumeFixed64(b)
		default:
			v, n = protowire.ConsumeBytes(b)
		}
		if n < 0 {
			t.Fatalf("bad field %d", num)
		}
		out[num], b = append(out[num], v), b[n:]
	}
	return out
}

func TestFileReadsBack(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	for step, loss := range []float64{2.5, .75} {
		if err := w.Scalars(step+1, map[string]float64{"loss": loss, "grad_norm": 3}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
	if len(names) != 1 {
		t.Fatalf("files %v", names)
	}
	data, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	var events []map[protowire.Number][]any
	for len(data) > 0 {
		n := binary.LittleEndian.Uint64(data)
		if mask(data[:8]) != binary.LittleEndian.Uint32(data[8:]) || mask(data[12:12+n]) != binary.LittleEndian.Uint32(data[12+n:]) {
			t.Fatal("wrong checksum")
		}
		events = append(events, fields(t, data[12:12+n]))
		data = data[16+n:]
	}
	if len(events) != 3 || string(events[0][3][0].([]byte)) != "brain.Event:2" {
		t.Fatalf("%d events, first %v", len(events), events[0])
	}
	last := events[2]
	if last[2][0].(uint64) != 2 {
		t.Errorf("step %v", last[2])
	}
	got := map[string]float32{}
	for _, v := range fields(t, last[5][0].([]byte))[1] {
		f := fields(t, v.([]byte))
		got[string(f[1][0].([]byte))] = math.Float32frombits(f[2][0].(uint32))
	}
	if got["loss"] != .75 || got["grad_norm"] != 3 {
		t.Errorf("values %v", got)
	}
}

// The published example: CRC-32C of 32 zero bytes is 8a9136aa (RFC 3720).
func TestMask(t *testing.T) {
	want := uint32(0x8a9136aa)
	want = (want>>15 | want<<17) + 0xa282ead8
	if got := mask(make([]byte, 32)); got != want {
		t.Errorf("%x, want %x", got, want)
	}
}
