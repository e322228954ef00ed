package geneval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The original is written in Python, and its files are compared byte by byte. This file holds Python's spelling of JSON.

// pythonString is json.dumps of a string: ASCII only, \uXXXX for the rest, surrogate pairs beyond the first plane.
func pythonString(s string) string { return escape(s, false) }

// escape quotes s. slash also writes "/" as "\/", as the original's table writer does.
func escape(s string, slash bool) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '/' && slash:
			b.WriteString(`\/`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r < 0x20 || (r >= 0x7f && r < 0x10000):
			if r == 0x7f && slash { // the table writer lets this one pass
				b.WriteRune(r)
				continue
			}
			fmt.Fprintf(&b, `\u%04x`, r)
		case r >= 0x10000:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// pythonFloat is repr of a float: the shortest digits that read back, always with a point or an exponent.
func pythonFloat(v float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "Infinity"
	case math.IsInf(v, -1):
		return "-Infinity"
	}
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// pythonDump reads one JSON value and dumps it as json.dumps does, keys in their order. A key that occurs twice in one
// object is an error, for readers disagree about which one counts.
func pythonDump(text []byte) (string, error) {
	if !utf8.Valid(text) {
		return "", errors.New("not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var b strings.Builder
	if err := dumpValue(dec, &b); err != nil {
		return "", err
	}
	return b.String(), nil
}

func dumpValue(dec *json.Decoder, b *strings.Builder) error {
	token, err := dec.Token()
	if err != nil {
		return fmt.Errorf("JSON: %w", err)
	}
	switch v := token.(type) {
	case json.Delim:
		return dumpContainer(dec, b, v)
	case string:
		b.WriteString(pythonString(v))
	case json.Number:
		if n, err := v.Int64(); err == nil {
			fmt.Fprint(b, n)
			return nil
		}
		f, err := v.Float64()
		if err != nil {
			return fmt.Errorf("JSON number %s: %w", v, err)
		}
		b.WriteString(pythonFloat(f))
	case bool:
		fmt.Fprint(b, v)
	case nil:
		b.WriteString("null")
	}
	return nil
}

func dumpContainer(dec *json.Decoder, b *strings.Builder, open json.Delim) error {
	b.WriteByte(byte(open))
	seen := map[string]bool{}
	for i := 0; dec.More(); i++ {
		if i > 0 {
			b.WriteString(", ")
		}
		if open == '{' {
			key, err := dec.Token()
			if err != nil {
				return fmt.Errorf("JSON: %w", err)
			}
			name := key.(string) // the decoder lets nothing else pass in this place
			if seen[name] {
				return fmt.Errorf("JSON: key %q occurs twice", name)
			}
			seen[name] = true
			b.WriteString(pythonString(name) + ": ")
		}
		if err := dumpValue(dec, b); err != nil {
			return err
		}
	}
	end, err := dec.Token()
	if errors.Is(err, io.EOF) || err != nil {
		return fmt.Errorf("JSON: %w", err)
	}
	b.WriteByte(byte(end.(json.Delim)))
	return nil
}
