package ckpt

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads the little JSON that checkpoints use, in place: it copies names and nothing else, and it does not recurse,
// so that a hostile text costs neither memory nor stack. The text is valid UTF-8.
type scanner struct {
	text []byte
	at   int
}

var errCut = errors.New("header is cut or malformed")

// peek is the next byte that is no white space, 0 at the end.
func (s *scanner) peek() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// delim takes the delimiter that must come next.
func (s *scanner) delim(want byte) error {
	switch c := s.peek(); c {
	case want:
		s.at++
		return nil
	case 0:
		return errCut
	default:
		return fmt.Errorf("%s where %c belongs", s.glance(), want)
	}
}

// glance quotes a little of what comes next.
func (s *scanner) glance() string {
	const most = 12
	rest := s.text[s.at:]
	if i := bytes.IndexAny(rest, ",:]} \n"); i > 0 {
		rest = rest[:i]
	}
	return fmt.Sprintf("%.*q", most, rest)
}

// more says whether a list or object goes on: past a comma, or at its first element. The closing bracket is taken.
func (s *scanner) more(first bool, closing byte) (bool, error) {
	switch c := s.peek(); {
	case c == closing:
		s.at++
		return false, nil
	case first:
		return true, nil
	}
	return true, s.delim(',')
}

// object reads one object and calls value when a key's value is next. Keys are compared exactly; a key that comes twice
// is an error, and so are more than most keys.
func (s *scanner) object(what string, most int, value func(key string) error) error {
	if err := s.delim('{'); err != nil {
		return fmt.Errorf("%.80q: %w", what, err)
	}
	seen := map[string]bool{}
	for {
		more, err := s.more(len(seen) == 0, '}')
		if err != nil || !more {
			return err
		}
		key, err := s.str()
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("key %.80q comes twice", key)
		}
		if len(seen) == most {
			return fmt.Errorf("%.80q: more than %d keys", what, most)
		}
		seen[key] = true
		if err := s.delim(':'); err != nil {
			return err
		}
		if err := value(key); err != nil {
			return err
		}
	}
}

// numbers reads a list of at most most whole numbers that fit an int.
func (s *scanner) numbers(most int) ([]int, error) {
	if err := s.delim('['); err != nil {
		return nil, err
	}
	out := []int{}
	for {
		more, err := s.more(len(out) == 0, ']')
		if err != nil || !more {
			return out, err
		}
		if len(out) == most {
			return nil, fmt.Errorf("list of more than %d numbers", most)
		}
		n, err := s.number()
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
}

func (s *scanner) number() (int, error) {
	c := s.peek()
	if c != '-' && (c < '0' || c > '9') {
		if c == 0 {
			return 0, errCut
		}
		return 0, fmt.Errorf("%s where a number belongs", s.glance())
	}
	end := s.at
	for end < len(s.text) && strings.IndexByte("+-.eE0123456789", s.text[end]) >= 0 {
		end++
	}
	digits := s.text[s.at:end]
	v, err := strconv.ParseUint(string(digits[:min(len(digits), 24)]), 10, 64)
	if err != nil || v > math.MaxInt || len(digits) > 24 || len(digits) > 1 && digits[0] == '0' {
		return 0, fmt.Errorf("%.24s is not a whole number from 0 to %d", digits, math.MaxInt)
	}
	s.at = end
	return int(v), nil
}

// str reads a string.
func (s *scanner) str() (string, error) {
	if c := s.peek(); c != '"' {
		if c == 0 {
			return "", errCut
		}
		return "", fmt.Errorf("%s where a string belongs", s.glance())
	}
	s.at++
	start, escaped := s.at, false
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			raw := s.text[start:s.at]
			s.at++
			if escaped {
				return unescape(raw)
			}
			return string(raw), nil
		case c == '\\':
			escaped = true
			s.at++
		case c < ' ':
			return "", errCut
		}
	}
	return "", errCut
}

// unescape resolves the backslashes of a string. Half a surrogate pair is malformed.
func unescape(raw []byte) (string, error) {
	var b strings.Builder
	b.Grow(len(raw))
	hex := func(at int) (rune, bool) {
		if at+6 > len(raw) || raw[at] != '\\' || raw[at+1] != 'u' {
			return 0, false
		}
		v, err := strconv.ParseUint(string(raw[at+2:at+6]), 16, 16)
		return rune(v), err == nil
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			b.WriteByte(raw[i])
			continue
		}
		if i+1 == len(raw) {
			return "", errCut
		}
		if k := strings.IndexByte(`"\/bfnrt`, raw[i+1]); k >= 0 {
			b.WriteByte("\"\\/\b\f\n\r\t"[k])
			i++
			continue
		}
		r, ok := hex(i)
		if ok && utf16.IsSurrogate(r) {
			low, both := hex(i + 6)
			r, ok = utf16.DecodeRune(r, low), both
			ok = ok && r != utf8.RuneError
			i += 6
		}
		if !ok {
			return "", errCut
		}
		b.WriteRune(r)
		i += 5
	}
	return b.String(), nil
}

// skip passes over one value of any kind, of which only strings and brackets are looked at.
func (s *scanner) skip() error {
	for depth := 0; ; {
		switch c := s.peek(); c {
		case 0:
			return errCut
		case '"':
			if _, err := s.str(); err != nil {
				return err
			}
		case '{', '[':
			depth++
			s.at++
		case '}', ']':
			depth--
			s.at++
		case ',', ':':
			s.at++
			continue
		default:
			for s.at < len(s.text) && strings.IndexByte(",:]} \t\r\n", s.text[s.at]) < 0 {
				s.at++
			}
		}
		if depth <= 0 {
			return nil
		}
	}
}
