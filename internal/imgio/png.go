package imgio

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"strings"
	"unicode/utf8"
)

// Text is one text chunk of a PNG file. Key has 1 to 79 printable Latin-1 characters; Value is any text without zero
// bytes.
type Text struct{ Key, Value string }

const (
	pngSignature = "\x89PNG\r\n\x1a\n"
	maxText      = 16 << 20 // bytes of one text, packed or not
)

// EncodePNG writes the picture and the texts, which are put before the pixels: plain ones as tEXt, others as iTXt in
// UTF-8. Equal input gives equal bytes.
func EncodePNG(w io.Writer, img image.Image, texts ...Text) error {
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		return fmt.Errorf("imgio: encode png: %w", err)
	}
	const header = len(pngSignature) + 12 + 13 // signature and the first chunk, IHDR
	data := buf.Bytes()
	out := append([]byte{}, data[:header]...)
	for _, t := range texts {
		name, body, err := t.chunk()
		if err != nil {
			return err
		}
		out = appendChunk(out, name, body)
	}
	if _, err := w.Write(append(out, data[header:]...)); err != nil {
		return fmt.Errorf("imgio: encode png: %w", err)
	}
	return nil
}

func (t Text) chunk() (name string, body []byte, err error) {
	key, ok := latin1(t.Key)
	if !ok || len(key) < 1 || len(key) > 79 || strings.TrimSpace(t.Key) != t.Key || strings.ContainsFunc(t.Key, control) {
		return "", nil, fmt.Errorf("imgio: encode png: text key %q, want 1 to 79 printable Latin-1 characters", t.Key)
	}
	if strings.IndexByte(t.Value, 0) >= 0 || !utf8.ValidString(t.Value) || len(t.Value) > maxText {
		return "", nil, fmt.Errorf("imgio: encode png: text %q (%d bytes) is no UTF-8, holds a zero byte or exceeds %d bytes", t.Key, len(t.Value), maxText)
	}
	if value, ok := latin1(t.Value); ok {
		return "tEXt", append(append(key, 0), value...), nil
	}
	// Zeros: end of key, not compressed, method, no language, no translated key.
	return "iTXt", append(append(key, 0, 0, 0, 0, 0), t.Value...), nil
}

func control(r rune) bool { return r < 32 || r >= 127 && r < 161 }

// latin1 encodes s, if each character has one byte there.
func latin1(s string) ([]byte, bool) {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 255 {
			return nil, false
		}
		out = append(out, byte(r))
	}
	return out, true
}

func fromLatin1(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return s.String()
}

func appendChunk(out []byte, name string, body []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	start := len(out)
	out = append(append(out, name...), body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[start:]))
}

// ReadText returns the tEXt, zTXt and iTXt chunks of a PNG file in their order. Pixels are not unpacked.
func ReadText(r io.Reader) ([]Text, error) {
	signature := make([]byte, len(pngSignature))
	if _, err := io.ReadFull(r, signature); err != nil || string(signature) != pngSignature {
		return nil, errors.New("imgio: read text: no PNG file")
	}
	var texts []Text
	for {
		name, body, err := readChunk(r)
		if err != nil {
			return nil, fmt.Errorf("imgio: read text: %w", err)
		}
		if name == "IEND" {
			return texts, nil
		}
		if body == nil {
			continue
		}
		t, err := parseText(name, body)
		if err != nil {
			return nil, fmt.Errorf("imgio: read text: %s chunk: %w", name, err)
		}
		texts = append(texts, t)
	}
}

// readChunk returns the body of text chunks only.
func readChunk(r io.Reader) (name string, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", nil, fmt.Errorf("chunk header: %w", err)
	}
	size := int64(binary.BigEndian.Uint32(head[:4]))
	name = string(head[4:])
	if name != "tEXt" && name != "zTXt" && name != "iTXt" {
		if _, err := io.CopyN(io.Discard, r, size+4); err != nil {
			return "", nil, fmt.Errorf("%q chunk of %d bytes: %w", name, size, err)
		}
		return name, nil, nil
	}
	if size > maxText {
		return "", nil, fmt.Errorf("%s chunk has %d bytes, at most %d are read", name, size, maxText)
	}
	data, err := io.ReadAll(io.LimitReader(r, size+4))
	if err != nil {
		return "", nil, err
	}
	if int64(len(data)) != size+4 {
		return "", nil, fmt.Errorf("%s chunk of %d bytes: %w", name, size, io.ErrUnexpectedEOF)
	}
	sum := crc32.Update(crc32.ChecksumIEEE(head[4:]), crc32.IEEETable, data[:size])
	if sum != binary.BigEndian.Uint32(data[size:]) {
		return "", nil, fmt.Errorf("%s chunk has a wrong checksum", name)
	}
	return name, data[:size:size], nil
}

func parseText(name string, body []byte) (Text, error) {
	key, rest, ok := bytes.Cut(body, []byte{0})
	if !ok {
		return Text{}, errors.New("key has no end")
	}
	t := Text{Key: fromLatin1(key)}
	switch name {
	case "tEXt":
		t.Value = fromLatin1(rest)
		return t, nil
	case "zTXt":
		if len(rest) < 1 {
			return Text{}, errors.New("no compression method")
		}
		value, err := inflate(rest[1:])
		t.Value = fromLatin1(value)
		return t, err
	}
	if len(rest) < 2 {
		return Text{}, errors.New("no compression flag")
	}
	packed := rest[0] != 0
	_, rest, language := bytes.Cut(rest[2:], []byte{0})
	_, value, translated := bytes.Cut(rest, []byte{0})
	if !language || !translated {
		return Text{}, errors.New("language or translated key has no end")
	}
	if packed {
		var err error
		if value, err = inflate(value); err != nil {
			return Text{}, err
		}
	}
	t.Value = string(value)
	return t, nil
}

func inflate(packed []byte) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	value, err := io.ReadAll(io.LimitReader(z, maxText+1))
	if err == nil && len(value) > maxText {
		err = fmt.Errorf("text exceeds %d bytes", maxText)
	}
	return value, err
}
