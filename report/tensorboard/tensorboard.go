// Package tensorboard writes scalars as TensorBoard event files: a sequence of length-prefixed, checksummed protocol
// buffers (tensorflow.Event), the format that every TensorBoard reads.
package tensorboard

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Writer appends events to one file. It is used by one goroutine.
type Writer struct{ file *os.File }

// Create starts a new event file in dir, named as TensorBoard expects it.
func Create(dir string) (*Writer, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	now := time.Now()
	for n := 0; ; n++ {
		name := fmt.Sprintf("events.out.tfevents.%d.%s.%d.%d", now.Unix(), host, os.Getpid(), n)
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if os.IsExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("tensorboard: %w", err)
		}
		w := &Writer{f}
		version := protowire.AppendString(protowire.AppendTag(nil, eventVersion, protowire.BytesType), "brain.Event:2")
		return w, w.record(event(now, 0, version))
	}
}

// Field numbers of Event, Summary and Summary.Value.
const (
	eventWallTime = 1
	eventStep     = 2
	eventVersion  = 3
	eventSummary  = 5
	summaryValue  = 1
	valueTag      = 1
	valueScalar   = 2
)

// Scalars writes the values of a step, in the order of their names.
func (w *Writer) Scalars(step int, values map[string]float64) error {
	var summary []byte
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := protowire.AppendString(protowire.AppendTag(nil, valueTag, protowire.BytesType), name)
		v = protowire.AppendFixed32(protowire.AppendTag(v, valueScalar, protowire.Fixed32Type), math.Float32bits(float32(values[name])))
		summary = protowire.AppendBytes(protowire.AppendTag(summary, summaryValue, protowire.BytesType), v)
	}
	body := protowire.AppendBytes(protowire.AppendTag(nil, eventSummary, protowire.BytesType), summary)
	return w.record(event(time.Now(), step, body))
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

func event(at time.Time, step int, body []byte) []byte {
	seconds := float64(at.UnixNano()) / 1e9
	e := protowire.AppendFixed64(protowire.AppendTag(nil, eventWallTime, protowire.Fixed64Type), math.Float64bits(seconds))
	e = protowire.AppendVarint(protowire.AppendTag(e, eventStep, protowire.VarintType), uint64(step))
	return append(e, body...)
}

// record writes length, checksum of the length, data, checksum of the data.
func (w *Writer) record(data []byte) error {
	buf := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	buf = binary.LittleEndian.AppendUint32(buf, mask(buf))
	buf = append(buf, data...)
	buf = binary.LittleEndian.AppendUint32(buf, mask(data))
	if _, err := w.file.Write(buf); err != nil {
		return fmt.Errorf("tensorboard: %w", err)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mask is TFRecord's checksum: CRC-32C, rotated and offset so that checksums of checksums stay different.
func mask(data []byte) uint32 {
	c := crc32.Checksum(data, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}
