package clip

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

// The markers around a text, and the suffix of a symbol that ends a word.
const (
	startToken = "<|startoftext|>"
	endToken   = "<|endoftext|>"
	wordEnd    = "</w>"
)

// Tokenizer is CLIP's byte-level BPE. It may be used from several goroutines.
type Tokenizer struct {
	ids        map[string]int32 // symbol, in the alphabet of the files -> id
	ranks      map[[2]string]int
	start, end int32
	context    int
}

// publishedStart and publishedEnd are the markers' ids in the published vocabulary, its last two.
const publishedStart, publishedEnd = 49406, 49407

// LoadTokenizer reads vocab.json, {symbol: id}, and merges.txt, one pair a line in the order of their ranks after a
// #version line. A vocabulary without the markers has them at the published ids. context is the most ids that a text may
// take.
func LoadTokenizer(vocab, merges []byte, context int) (*Tokenizer, error) {
	t := &Tokenizer{ranks: map[[2]string]int{}, context: context}
	if err := json.Unmarshal(vocab, &t.ids); err != nil {
		return nil, fmt.Errorf("clip: vocab.json: %w", err)
	}
	for _, b := range alphabet {
		for _, symbol := range []string{string(b), string(b) + wordEnd} {
			if _, ok := t.ids[symbol]; !ok {
				return nil, fmt.Errorf("clip: vocab.json lacks the symbol %q (another model's vocabulary?)", symbol)
			}
		}
	}
	for i, line := range strings.Split(string(merges), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || i == 0 && strings.HasPrefix(line, "#version") {
			continue
		}
		left, right, ok := strings.Cut(line, " ")
		if !ok || left == "" || right == "" || strings.Contains(right, " ") {
			return nil, fmt.Errorf("clip: merges.txt: line %d: %q is not two symbols with a space between", i+1, line)
		}
		t.ranks[[2]string{left, right}] = len(t.ranks)
	}
	if _, ok := t.ids[startToken]; !ok {
		t.ids[startToken] = publishedStart
	}
	if _, ok := t.ids[endToken]; !ok {
		t.ids[endToken] = publishedEnd
	}
	t.start, t.end = t.ids[startToken], t.ids[endToken]
	if context < 2 {
		return nil, fmt.Errorf("clip: context of %d, want 2 at least", context)
	}
	return t, nil
}

// OpenTokenizer reads the tokenizer in a model folder: vocab.json and merges.txt.
func OpenTokenizer(fsys fs.FS, context int) (*Tokenizer, error) {
	vocab, err := fs.ReadFile(fsys, "vocab.json")
	merges, err2 := fs.ReadFile(fsys, "merges.txt")
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("clip: tokenizer: %w", err)
	}
	return LoadTokenizer(vocab, merges, context)
}

// Encode returns the ids of a text between start and end token, at most context of them: a longer text is cut and ends
// in the end token all the same. A symbol that the vocabulary lacks becomes the end token, which stands for unknown.
func (t *Tokenizer) Encode(text string) []int32 {
	ids := []int32{t.start}
	for piece := range pieces(clean(text)) {
		switch piece {
		case startToken, endToken:
			ids = append(ids, t.ids[piece])
			continue
		}
		for _, symbol := range t.merge(piece) {
			id, ok := t.ids[symbol]
			if !ok {
				id = t.end
			}
			ids = append(ids, id)
		}
		if len(ids) >= t.context {
			break
		}
	}
	if len(ids) >= t.context {
		ids = ids[:t.context-1]
	}
	return append(ids, t.end)
}

// rowStep is what lengths are rounded up to, so that few shapes are compiled.
const rowStep = 16

// rows encodes texts as [texts, n], filled up with zeros; n is as long as the longest needs, for nothing looks at what
// follows an end token.
func (t *Tokenizer) rows(texts []string) (flat []int32, n int) {
	encoded := make([][]int32, len(texts))
	for i, text := range texts {
		encoded[i] = t.Encode(text)
		n = max(n, len(encoded[i]))
	}
	n = min((n+rowStep-1)/rowStep*rowStep, t.context)
	flat = make([]int32, len(texts)*n)
	for i, ids := range encoded {
		copy(flat[i*n:], ids)
	}
	return flat, n
}

// punctuation undoes what typesetting does to plain text: curly quotes, ligatures.
var punctuation = strings.NewReplacer(
	"\u2018", "'", "\u2019", "'", "\u201a", "'", "\u201b", "'", "\u201c", `"`, "\u201d", `"`, "\u201e", `"`, "\u201f", `"`,
	"\ufb00", "ff", "\ufb01", "fi", "\ufb02", "fl", "\ufb03", "ffi", "\ufb04", "ffl",
)

// clean is CLIP's normalisation: HTML entities undone twice, typography made plain, composed characters (NFC), runs of
// white space to one space, lower case. Texts whose encoding was confused earlier are not repaired.
func clean(text string) string {
	text = punctuation.Replace(html.UnescapeString(html.UnescapeString(text)))
	text = norm.NFC.String(text)
	text = strings.Join(strings.FieldsFunc(text, isSpace), " ")
	return cases.Lower(language.Und).String(text)
}

func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }

// pieces cuts a clean text into markers, contractions, words of letters, single digits, and runs of anything else.
func pieces(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := 0; i < len(text); {
			n := pieceLength(text[i:])
			if text[i] != ' ' && !yield(text[i:i+n]) {
				return
			}
			i += n
		}
	}
}

func pieceLength(s string) int {
	for _, whole := range []string{startToken, endToken, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
		if strings.HasPrefix(s, whole) {
			return len(whole)
		}
	}
	first, n := utf8.DecodeRuneInString(s)
	kind := kindOf(first)
	if kind == digit || kind == space {
		return n
	}
	for i, r := range s {
		if kindOf(r) != kind {
			return i
		}
	}
	return len(s)
}

type kind uint8

const (
	other kind = iota
	letter
	digit
	space
)

func kindOf(r rune) kind {
	switch {
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return digit
	case r == ' ':
		return space
	}
	return other
}

// merge joins the symbols of one piece, the pair of lowest rank first, all its occurrences from left to right, until no
// pair has a rank. The last symbol ends in the mark of a word's end.
func (t *Tokenizer) merge(piece string) []string {
	var word []string
	for i := range len(piece) {
		word = append(word, string(alphabet[piece[i]]))
	}
	word[len(word)-1] += wordEnd
	for len(word) > 1 {
		best := math.MaxInt
		var pair [2]string
		for i := range len(word) - 1 {
			if rank, ok := t.ranks[[2]string{word[i], word[i+1]}]; ok && rank < best {
				best, pair = rank, [2]string{word[i], word[i+1]}
			}
		}
		if best == math.MaxInt {
			break
		}
		joined := word[:0]
		for i := 0; i < len(word); i++ {
			if i+1 < len(word) && word[i] == pair[0] && word[i+1] == pair[1] {
				joined = append(joined, pair[0]+pair[1])
				i++
				continue
			}
			joined = append(joined, word[i])
		}
		word = joined
	}
	return word
}

// alphabet maps a byte to the character that stands for it in vocab.json: printable characters of Latin-1 to
// themselves, the other 68 in ascending order to U+0100 and on.
var alphabet = func() (a [256]rune) {
	moved := rune(0x100)
	for b := range a {
		a[b] = rune(b)
		if r := rune(b); !('!' <= r && r <= '~' || 0xa1 <= r && r <= 0xac || 0xae <= r && r <= 0xff) {
			a[b] = moved
			moved++
		}
	}
	return a
}()
