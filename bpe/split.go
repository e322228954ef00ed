package bpe

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Split names one of the two ways in which text is cut into pieces before merging.
type Split string

// The two pre-tokenizers that the models use.
const (
	GPT2  Split = "gpt2"  // GPT-2, CodeGen, Phi
	Qwen2 Split = "qwen2" // Qwen2 and LLaVA-OneVision
)

// qwen2Regex is the text by which a tokenizer.json names the Qwen2 pre-tokenizer. It is compared and written, never
// executed: the scanners below are written by hand.
const qwen2Regex = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

// class of a character, as far as the scanners care. Marks, symbols and ill-formed bytes are other.
type class int

const (
	other class = iota
	letter
	digit
	space
	end // of the text
)

// at returns class and width of the character at byte i.
func at(s string, i int) (class, int) {
	if i >= len(s) {
		return end, 0
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	switch {
	case r < utf8.RuneSelf:
		switch {
		case 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z':
			return letter, 1
		case '0' <= r && r <= '9':
			return digit, 1
		case r == ' ' || '\t' <= r && r <= '\r':
			return space, 1
		}
		return other, 1
	case r == utf8.RuneError && n == 1:
		return other, 1
	case unicode.IsLetter(r):
		return letter, n
	case unicode.In(r, unicode.N):
		return digit, n
	case unicode.IsSpace(r):
		return space, n
	}
	return other, n
}

// run returns the end of the run of characters of class c that starts at i.
func run(s string, i int, c class) int {
	for {
		got, n := at(s, i)
		if got != c {
			return i
		}
		i += n
	}
}

// pieces cuts s and hands every piece to yield, in order; together they are s.
func (p Split) pieces(s string, yield func(string)) {
	next := nextGPT2
	if p == Qwen2 {
		next = nextQwen2
	}
	for i := 0; i < len(s); {
		j := next(s, i)
		yield(s[i:j])
		i = j
	}
}

// nextGPT2 returns the end of the piece that starts at i.
func nextGPT2(s string, i int) int {
	if n := contraction(s[i:], false); n > 0 {
		return i + n
	}
	from := i
	if s[i] == ' ' {
		from++
	}
	if c, _ := at(s, from); c != space && c != end {
		return run(s, from, c)
	}
	return spaces(s, i)
}

// nextQwen2 returns the end of the piece that starts at i.
func nextQwen2(s string, i int) int {
	if n := contraction(s[i:], true); n > 0 {
		return i + n
	}
	c, n := at(s, i)
	switch {
	case c == letter:
		return run(s, i, letter)
	case c == digit:
		return i + n
	case s[i] != '\r' && s[i] != '\n':
		if after, _ := at(s, i+n); after == letter {
			return run(s, i+n, letter)
		}
	}
	from := i
	if s[i] == ' ' {
		from++
	}
	if j := run(s, from, other); j > from {
		for j < len(s) && (s[j] == '\r' || s[j] == '\n') {
			j++
		}
		return j
	}
	if j := run(s, i, space); strings.ContainsAny(s[i:j], "\r\n") {
		return i + strings.LastIndexAny(s[i:j], "\r\n") + 1
	}
	return spaces(s, i)
}

// spaces is the end of a white-space piece: the whole run at the end of the text, else all but its last character,
// which goes with what follows, unless it is the only one.
func spaces(s string, i int) int {
	j := run(s, i, space)
	if j == len(s) {
		return j
	}
	_, n := utf8.DecodeLastRuneInString(s[i:j])
	if j-n > i {
		return j - n
	}
	return j
}

// contraction is the length of 's 't 're 've 'm 'll 'd at the start of s, 0 if there is none. With fold, any case
// counts, and so does U+017F, which folds to s.
func contraction(s string, fold bool) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	if fold {
		if strings.HasPrefix(s[1:], "\u017f") {
			return 1 + len("\u017f")
		}
		s = strings.ToLower(s[:min(3, len(s))])
	}
	switch s[1] {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(s) >= 3 && (s[1:3] == "re" || s[1:3] == "ve" || s[1:3] == "ll") {
		return 3
	}
	return 0
}
