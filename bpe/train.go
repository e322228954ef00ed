package bpe

import (
	"errors"
	"fmt"
	"sort"

	"golang.org/x/text/unicode/norm"
)

// TrainOptions says what Train shall build.
type TrainOptions struct {
	Split  Split
	NFC    bool    // normalise; Qwen2 does
	Merges int     // at most so many merges; 0 = until every piece of the corpus is one token
	Added  []Added // in order; their ids are set to follow the vocabulary
}

// word is one distinct piece of the corpus as ids, and how often it comes.
type word struct {
	ids   []int32
	count int
}

// Train builds a tokenizer.json from texts: 256 bytes, then one token a merge, then the added tokens. The most frequent
// pair is merged first; of equally frequent ones that whose parts come first in byte order. With Merges = 0 and texts
// from a small closed vocabulary, every word becomes a single token.
func Train(corpus []string, o TrainOptions) ([]byte, error) {
	if o.Split != GPT2 && o.Split != Qwen2 {
		return nil, fmt.Errorf("bpe: train: unknown split %q", o.Split)
	}
	if o.Merges < 0 {
		return nil, fmt.Errorf("bpe: train: %d merges", o.Merges)
	}
	tokens := make([]string, 256)
	for b := range tokens {
		tokens[b] = string([]byte{byte(b)})
	}
	known := map[string]int32{}
	words := countWords(corpus, o)
	merges, done := [][2]string{}, map[pair]bool{}
	for o.Merges == 0 || len(merges) < o.Merges {
		best, ok := mostFrequent(words, tokens)
		if !ok {
			break
		}
		if len(tokens) >= maxVocab {
			return nil, errors.New("bpe: train: vocabulary grows too large; set Merges")
		}
		joined := tokens[best.left] + tokens[best.right]
		id, ok := known[joined]
		if !ok {
			id = int32(len(tokens))
			known[joined] = id
			tokens = append(tokens, joined)
		}
		if !done[best] { // a token made in two ways can bring a pair back
			done[best] = true
			merges = append(merges, [2]string{spell(tokens[best.left]), spell(tokens[best.right])})
		}
		for i := range words {
			words[i].ids = join(words[i].ids, best, id)
		}
	}
	return encodeTokenizer(tokens, merges, o)
}

// countWords cuts the corpus into pieces, each distinct one once, in byte order.
func countWords(corpus []string, o TrainOptions) []word {
	raw := newFinder(nonEmpty(o.Added))
	counts := map[string]int{}
	var ignored []int32
	for _, text := range corpus {
		raw.cut(text, &ignored, func(part string) {
			if o.NFC {
				part = norm.NFC.String(part)
			}
			o.Split.pieces(part, func(piece string) { counts[piece]++ })
		})
	}
	pieces := make([]string, 0, len(counts))
	for piece := range counts {
		pieces = append(pieces, piece)
	}
	sort.Strings(pieces)
	words := make([]word, len(pieces))
	for i, piece := range pieces {
		words[i].count = counts[piece]
		for j := range len(piece) {
			words[i].ids = append(words[i].ids, int32(piece[j]))
		}
	}
	return words
}

func nonEmpty(added []Added) []Added {
	var out []Added
	for _, a := range added {
		if a.Content != "" {
			out = append(out, a)
		}
	}
	return out
}

func mostFrequent(words []word, tokens []string) (best pair, ok bool) {
	counts := map[pair]int{}
	for _, w := range words {
		for i := 1; i < len(w.ids); i++ {
			counts[pair{w.ids[i-1], w.ids[i]}] += w.count
		}
	}
	most := 0
	for p, n := range counts {
		if n > most || n == most && before(p, best, tokens) {
			best, most = p, n
		}
	}
	return best, most > 0
}

func before(p, q pair, tokens []string) bool {
	if tokens[p.left] != tokens[q.left] {
		return tokens[p.left] < tokens[q.left]
	}
	return tokens[p.right] < tokens[q.right]
}

// join replaces every occurrence of the pair, from the left, in place.
func join(ids []int32, p pair, id int32) []int32 {
	out := ids[:0]
	for i := 0; i < len(ids); i++ {
		if i+1 < len(ids) && ids[i] == p.left && ids[i+1] == p.right {
			out = append(out, id)
			i++
			continue
		}
		out = append(out, ids[i])
	}
	return out
}

func encodeTokenizer(tokens []string, merges [][2]string, o TrainOptions) ([]byte, error) {
	vocab := make(map[string]int32, len(tokens))
	for id, token := range tokens {
		vocab[spell(token)] = int32(id)
	}
	added := make([]addedJSON, len(o.Added))
	for i, a := range o.Added {
		a.ID = int32(len(tokens) + i)
		added[i] = addedJSON{Added: a}
	}
	byteLevel := func(regex bool) map[string]any {
		return map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": regex}
	}
	split := byteLevel(true)
	if o.Split == Qwen2 {
		split = map[string]any{"type": "Sequence", "pretokenizers": []any{
			map[string]any{"type": "Split", "pattern": pattern{qwen2Regex}, "behavior": "Isolated", "invert": false},
			byteLevel(false),
		}}
	}
	var normalizer any
	if o.NFC {
		normalizer = map[string]string{"type": "NFC"}
	}
	file, err := encodeJSON(map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added, "normalizer": normalizer,
		"pre_tokenizer": split, "post_processor": nil,
		"decoder": byteLevel(false),
		"model": map[string]any{
			"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("bpe: train: %w", err)
	}
	if _, err := Load(file); err != nil {
		return nil, fmt.Errorf("bpe: train: %w", err)
	}
	return file, nil
}
