// Package bpe is the byte-level BPE tokenizer of the paper's models: Show-o reads prompts with CodeGen's, LLaVA-OneVision
// with Qwen2's.
//
// Added tokens are cut out of the text first; the rest is normalised (Qwen2: NFC) and cut into pieces (see Split); the
// bytes of a piece are joined pair by pair, the pair of lowest rank first and the leftmost of equals, until no pair of
// the merge list is left. Nothing is added around a text. The package knows no model and no chat template.
package bpe

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Added is a token that is recognised in the text as a whole, before anything else.
type Added struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	Normalized bool   `json:"normalized"` // looked for after normalisation instead of in the raw text
	Special    bool   `json:"special"`    // left out by Decode with skipSpecial
}

type pair struct{ left, right int32 }

type merge struct{ rank, id int32 }

// Tokenizer may be used from several goroutines.
type Tokenizer struct {
	split        Split
	nfc          bool
	ignoreMerges bool // a piece that is a token needs no merging

	ids     map[string]int32 // bytes of a token -> id
	bytes   [][]byte         // id -> bytes, nil for unused ids
	special []bool           // id -> left out with skipSpecial
	single  [256]int32       // byte -> id
	merges  map[pair]merge

	added       []Added
	raw, normed finder

	cache struct {
		sync.RWMutex
		pieces map[string][]int32
	}
}

// The cache holds at most cacheSize pieces of at most cachePiece bytes.
const cacheSize, cachePiece = 1 << 15, 64

// VocabSize is the highest id in use plus one, added tokens included.
func (t *Tokenizer) VocabSize() int { return len(t.bytes) }

// TokenID returns the id of a token that is spelled as plain text (not byte-level): an added token or a vocabulary
// entry, for example "<|im_end|>" or " yes".
func (t *Tokenizer) TokenID(text string) (int32, bool) {
	for _, a := range t.added {
		if a.Content == text {
			return a.ID, true
		}
	}
	id, ok := t.ids[text]
	return id, ok
}

// AddedTokens in the order of their ids.
func (t *Tokenizer) AddedTokens() []Added { return slices.Clone(t.added) }

// Add appends tokens that are not there yet, with the next free ids, as Show-o does with its markers. It returns the id
// of each, and must not be called while the tokenizer is in use elsewhere.
func (t *Tokenizer) Add(special bool, contents ...string) ([]int32, error) {
	ids := make([]int32, len(contents))
	for i, content := range contents {
		if id, ok := t.TokenID(content); ok {
			ids[i] = id
			continue
		}
		ids[i] = int32(len(t.bytes))
		if err := t.add(Added{ID: ids[i], Content: content, Normalized: !special, Special: special}); err != nil {
			return nil, err
		}
	}
	t.index()
	return ids, nil
}

// Encode returns the ids of a text. Added tokens in it are recognised; nothing is added around it.
func (t *Tokenizer) Encode(text string) []int32 {
	var ids []int32
	t.raw.cut(text, &ids, func(part string) {
		if t.nfc {
			part = norm.NFC.String(part)
		}
		t.normed.cut(part, &ids, func(part string) {
			t.split.pieces(part, func(piece string) { ids = t.appendPiece(ids, piece) })
		})
	})
	return ids
}

func (t *Tokenizer) appendPiece(ids []int32, piece string) []int32 {
	if len(piece) > cachePiece {
		return append(ids, t.merge(piece)...)
	}
	t.cache.RLock()
	known, ok := t.cache.pieces[piece]
	t.cache.RUnlock()
	if !ok {
		known = t.merge(piece)
		t.cache.Lock()
		if t.cache.pieces == nil || len(t.cache.pieces) >= cacheSize {
			t.cache.pieces = map[string][]int32{}
		}
		t.cache.pieces[strings.Clone(piece)] = known
		t.cache.Unlock()
	}
	return append(ids, known...)
}

// merge joins the bytes of one piece. Symbols form a doubly linked list over byte positions; candidate pairs wait in a
// heap and are dropped when their symbols have changed meanwhile, so that a piece of n bytes takes n log n steps.
func (t *Tokenizer) merge(piece string) []int32 {
	if id, ok := t.ids[piece]; ok && t.ignoreMerges {
		return []int32{id}
	}
	n := len(piece)
	symbols, next, prev := make([]int32, n), make([]int, n), make([]int, n)
	for i := range n {
		symbols[i], next[i], prev[i] = t.single[piece[i]], i+1, i-1
	}
	var queue candidates
	offer := func(i int) {
		if i < 0 || next[i] >= n {
			return
		}
		p := pair{symbols[i], symbols[next[i]]}
		if m, ok := t.merges[p]; ok {
			queue = append(queue, candidate{m, p, i})
		}
	}
	for i := range n - 1 {
		offer(i)
	}
	heap.Init(&queue)
	for len(queue) > 0 {
		c := heap.Pop(&queue).(candidate)
		i := c.at
		if symbols[i] != c.left || next[i] >= n || symbols[next[i]] != c.right {
			continue
		}
		gone := next[i]
		symbols[i], symbols[gone] = c.id, -1
		next[i] = next[gone]
		if next[i] < n {
			prev[next[i]] = i
		}
		for _, j := range [2]int{prev[i], i} {
			before := len(queue)
			if offer(j); len(queue) > before {
				heap.Fix(&queue, before)
			}
		}
	}
	out := symbols[:0]
	for i := 0; i < n; i = next[i] {
		out = append(out, symbols[i])
	}
	return slices.Clip(out)
}

type candidate struct {
	merge
	pair
	at int
}

type candidates []candidate

func (c candidates) Len() int { return len(c) }
func (c candidates) Less(i, j int) bool {
	return c[i].rank < c[j].rank || c[i].rank == c[j].rank && c[i].at < c[j].at
}
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(x any)   { *c = append(*c, x.(candidate)) }
func (c *candidates) Pop() any {
	old := *c
	last := old[len(old)-1]
	*c = old[:len(old)-1]
	return last
}

// Decode turns ids back into text. Ids that no token has are left out; ill-formed UTF-8 becomes U+FFFD, one for each
// maximal ill-formed part (Unicode, section 3.9).
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	var b []byte
	for _, id := range ids {
		if id < 0 || int(id) >= len(t.bytes) || skipSpecial && t.special[id] {
			continue
		}
		b = append(b, t.bytes[id]...)
	}
	return repair(b)
}

func repair(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			n = illFormed(b)
		}
		out.WriteRune(r)
		b = b[n:]
	}
	return out.String()
}

// illFormed is the length of the maximal ill-formed part at the start of b: as many bytes as begin some character.
func illFormed(b []byte) int {
	low, high, want := byte(0x80), byte(0xbf), 0
	switch c := b[0]; {
	case 0xc2 <= c && c <= 0xdf:
		want = 1
	case 0xe0 <= c && c <= 0xef:
		want = 2
		if c == 0xe0 {
			low = 0xa0
		} else if c == 0xed {
			high = 0x9f
		}
	case 0xf0 <= c && c <= 0xf4:
		want = 3
		if c == 0xf0 {
			low = 0x90
		} else if c == 0xf4 {
			high = 0x8f
		}
	}
	n := 1
	for n <= want && n < len(b) && low <= b[n] && b[n] <= high {
		low, high = 0x80, 0xbf
		n++
	}
	return n
}

// finder cuts added tokens out of a text: leftmost first, the longest of those that start at one place.
type finder struct {
	byFirst [256][]Added // by first byte, longest first
	firsts  string
}

func newFinder(added []Added) finder {
	var f finder
	for _, a := range added {
		c := a.Content[0]
		if f.byFirst[c] == nil {
			f.firsts += a.Content[:1]
		}
		f.byFirst[c] = append(f.byFirst[c], a)
	}
	for _, list := range f.byFirst {
		slices.SortStableFunc(list, func(a, b Added) int { return len(b.Content) - len(a.Content) })
	}
	return f
}

// cut appends the ids of the added tokens to ids and hands what lies between to rest.
func (f *finder) cut(text string, ids *[]int32, rest func(string)) {
	from := 0
	if f.firsts != "" {
	scan:
		for i := 0; i < len(text); i++ {
			for _, a := range f.byFirst[text[i]] {
				if !strings.HasPrefix(text[i:], a.Content) {
					continue
				}
				if from < i {
					rest(text[from:i])
				}
				*ids = append(*ids, a.ID)
				from = i + len(a.Content)
				i = from - 1
				continue scan
			}
		}
	}
	if from < len(text) {
		rest(text[from:])
	}
}

// add enters an added token; index must follow.
func (t *Tokenizer) add(a Added) error {
	if a.Content == "" || a.ID < 0 || a.ID >= maxVocab {
		return fmt.Errorf("bpe: added token %q with id %d", a.Content, a.ID)
	}
	for int(a.ID) >= len(t.bytes) {
		t.bytes, t.special = append(t.bytes, nil), append(t.special, false)
	}
	if old := t.bytes[a.ID]; old != nil && string(old) != a.Content {
		return fmt.Errorf("bpe: id %d belongs to %q and to the added token %q", a.ID, old, a.Content)
	}
	t.bytes[a.ID], t.special[a.ID] = []byte(a.Content), a.Special
	t.added = append(t.added, a)
	return nil
}

func (t *Tokenizer) index() {
	slices.SortStableFunc(t.added, func(a, b Added) int { return int(a.ID - b.ID) })
	var raw, normed []Added
	for _, a := range t.added {
		if a.Normalized && t.nfc {
			a.Content = norm.NFC.String(a.Content)
		}
		if a.Normalized {
			normed = append(normed, a)
		} else {
			raw = append(raw, a)
		}
	}
	t.raw, t.normed = newFinder(raw), newFinder(normed)
}
