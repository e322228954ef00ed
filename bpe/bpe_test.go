package bpe

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"imagecot/internal/goldens"
)

func TestSplit(t *testing.T) {
	tests := []struct{ text, gpt2, qwen2 string }{
		{"a red  circle", "a| red| | circle", "a| red| | circle"},
		{"it's IT'S we'll 'reason", "it|'s| IT|'|S| we|'ll| '|reason", "it|'s| IT|'S| we|'ll| '|reason"},
		{"x'ſ", "x|'|ſ", "x|'ſ"},
		{"don'T", "don|'|T", "don|'T"},
		{"'hello", "'|hello", "'hello"},
		{"abc123 45", "abc|123| 45", "abc|1|2|3| |4|5"},
		{"\tword", "\t|word", "\tword"},
		{"a\u00a0b", "a|\u00a0|b", "a|\u00a0b"},
		{"hi!\n\nyou", "hi|!|\n|\n|you", "hi|!\n\n|you"},
		{"a \n b", "a| \n| b", "a| \n| b"},
		{"a \n  ", "a| \n  ", "a| \n|  "},
		{"end   ", "end|   ", "end|   "},
		{"a  \t b", "a|  \t| b", "a|  \t| b"},
		{"क्या", "क|्|य|ा", "क|्य|ा"},
		{"\u200bx", "\u200b|x", "\u200bx"},
		{"(a) =b", "(|a|)| =|b", "(a|)| =|b"},
		{"½ Ⅷ", "½| Ⅷ", "½| |Ⅷ"},
		{"\xff\xfea", "\xff\xfe|a", "\xff\xfe|a"},
	}
	for _, test := range tests {
		for split, want := range map[Split]string{GPT2: test.gpt2, Qwen2: test.qwen2} {
			var got []string
			split.pieces(test.text, func(p string) { got = append(got, p) })
			if s := strings.Join(got, "|"); s != want {
				t.Errorf("%s: %q is cut into %q, want %q", split, test.text, s, want)
			}
		}
	}
}

func TestRepairMaximalParts(t *testing.T) {
	for in, want := range map[string]string{
		"ok":                               "ok",
		"a\x80b":                           "a\ufffdb",
		"\xe2\x82":                         "\ufffd",
		"\xe2\x82a":                        "\ufffda",
		"\xf0\x9f\x98":                     "\ufffd",
		"\xf0\x80\x80":                     "\ufffd\ufffd\ufffd",
		"\xed\xa0\x80":                     "\ufffd\ufffd\ufffd",
		"\xc0\xaf":                         "\ufffd\ufffd",
		"\xf4\x91\x92\x93\xff\x41\x80\xbf": "\ufffd\ufffd\ufffd\ufffd\ufffdA\ufffd\ufffd",
		"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf": "\ufffd\ufffd\ufffd\ufffd",
		"\ufffd\xe2":                       "\ufffd\ufffd",
	} {
		if got := repair([]byte(in)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func small(t testing.TB, name string) *Tokenizer {
	t.Helper()
	tok, err := Open(goldens.Case(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// plainMerge is the definition: join the leftmost pair of lowest rank until none is left.
func plainMerge(t *Tokenizer, piece string) []int32 {
	var ids []int32
	for i := range len(piece) {
		ids = append(ids, t.single[piece[i]])
	}
	for {
		best, at := merge{rank: 1 << 30}, -1
		for i := 1; i < len(ids); i++ {
			if m, ok := t.merges[pair{ids[i-1], ids[i]}]; ok && m.rank < best.rank {
				best, at = m, i-1
			}
		}
		if at < 0 {
			return ids
		}
		ids = slices.Replace(ids, at, at+2, best.id)
	}
}

func TestMergeMatchesDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"tokenizer-qwen2-small", "tokenizer-codegen-small"} {
		tok := small(t, name)
		for range 3000 {
			piece := make([]byte, 1+rng.IntN(60))
			for i := range piece {
				piece[i] = "  aeinorstthe.,\n"[rng.IntN(16)]
			}
			if got, want := tok.merge(string(piece)), plainMerge(tok, string(piece)); !slices.Equal(got, want) {
				t.Fatalf("%s: %q gives %v, want %v", name, piece, got, want)
			}
		}
	}
}

func TestLongPieceIsNotQuadratic(t *testing.T) {
	tok := small(t, "tokenizer-qwen2-small")
	start := time.Now()
	text := strings.Repeat("the", 200_000)
	if got := tok.Decode(tok.Encode(text), false); got != text {
		t.Fatal("text does not come back")
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Fatalf("600,000 letters took %s", d)
	}
}

func TestAddedTokens(t *testing.T) {
	tok := small(t, "tokenizer-codegen-small")
	size := tok.VocabSize()
	ids, err := tok.Add(true, "<|new|>", "[PAD]", "<|newer|>")
	if err != nil {
		t.Fatal(err)
	}
	pad, _ := tok.TokenID("[PAD]")
	if want := []int32{int32(size), pad, int32(size) + 1}; !slices.Equal(ids, want) {
		t.Fatalf("ids %v, want %v", ids, want)
	}
	got := tok.Encode("a<|new|>b<|newer|>")
	if !slices.Contains(got, ids[0]) || got[len(got)-1] != ids[2] {
		t.Fatalf("ids %v do not hold the added tokens %v", got, ids)
	}
	if s := tok.Decode(got, true); s != "ab" {
		t.Fatalf("without special tokens %q, want ab", s)
	}
	if got := tok.Decode([]int32{-1, 1 << 20, ids[0]}, false); got != "<|new|>" {
		t.Fatalf("unknown ids gave %q", got)
	}
	if _, err := tok.Add(true, ""); err == nil {
		t.Error("an empty added token was accepted")
	}
}

func TestTrainClosedVocabulary(t *testing.T) {
	corpus := []string{"a photo of a red circle", "a photo of two blue squares", "<|im_start|>user\nIs this a photo of a red circle?<|im_end|>", "Yes", "No", " yes no"}
	added := []Added{{Content: "<|im_start|>", Special: true}, {Content: "<|im_end|>", Special: true}, {Content: "<image>", Special: true}}
	file, err := Train(corpus, TrainOptions{Split: Qwen2, NFC: true, Added: added})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode("a photo of two red squares"); len(got) != 6 {
		t.Fatalf("six known words gave %d tokens", len(got))
	}
	for _, word := range []string{"Yes", "No", " yes", " no", "<image>", " circle"} {
		if id, ok := tok.TokenID(word); !ok || len(tok.Encode(word)) != 1 || tok.Encode(word)[0] != id {
			t.Errorf("%q is %v, want the single token %d", word, tok.Encode(word), id)
		}
	}
	if got := tok.Decode(tok.Encode("ünseen ☃ words"), false); got != "ünseen ☃ words" {
		t.Errorf("unseen words came back as %q", got)
	}
	slices.Reverse(corpus)
	again, err := Train(corpus, TrainOptions{Split: Qwen2, NFC: true, Added: added})
	if err != nil || string(again) != string(file) {
		t.Errorf("the order of the texts changes the tokenizer (%v)", err)
	}
	few, err := Train(corpus, TrainOptions{Split: GPT2, Merges: 5})
	if err != nil {
		t.Fatal(err)
	}
	if tok, err = Load(few); err != nil || tok.VocabSize() != 261 {
		t.Errorf("5 merges gave %d tokens, want 261 (%v)", tok.VocabSize(), err)
	}
	for _, o := range []TrainOptions{{}, {Split: GPT2, Merges: -1}, {Split: GPT2, Added: []Added{{}}}} {
		if _, err := Train(corpus, o); err == nil {
			t.Errorf("trained with %+v", o)
		}
	}
}

// TestOldLayout loads the same tokenizer from vocab.json and merges.txt.
func TestOldLayout(t *testing.T) {
	dir := goldens.Case(t, "tokenizer-qwen2-small")
	text, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Added []Added `json:"added_tokens"`
		Model struct {
			Vocab  json.RawMessage
			Merges [][2]string
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	merges := "#version: 0.2\n"
	for _, m := range file.Model.Merges {
		merges += m[0] + " " + m[1] + "\n"
	}
	extra, decoder := map[string]int32{}, map[int32]Added{}
	for i, a := range file.Added {
		if i == 0 {
			extra[a.Content] = a.ID
		} else {
			decoder[a.ID] = a
		}
	}
	added, err := json.Marshal(extra)
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"tokenizer_class": "Qwen2TokenizerFast", "added_tokens_decoder": decoder})
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{
		"vocab.json": {Data: file.Model.Vocab}, "merges.txt": {Data: []byte(merges)},
		"added_tokens.json": {Data: added}, "tokenizer_config.json": {Data: config},
	}
	old, err := OpenFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	current, err := Load(text)
	if err != nil {
		t.Fatal(err)
	}
	const sample = "<|im_start|>user\n<image> Is it clear? It's 12 \u212b<|im_end|>\n<|endoftext|>"
	if got, want := old.Encode(sample), current.Encode(sample); !slices.Equal(got, want) {
		t.Errorf("old layout %v, tokenizer.json %v", got, want)
	}
	for name, bad := range map[string]string{"class": `{"tokenizer_class":"LlamaTokenizer"}`, "id": `{"tokenizer_class":"Qwen2Tokenizer","added_tokens_decoder":{"x":{"content":"a"}}}`} {
		fsys["tokenizer_config.json"].Data = []byte(bad)
		if _, err := OpenFS(fsys); err == nil {
			t.Errorf("accepted a wrong %s", name)
		}
	}
}

func TestBadTokenizerFiles(t *testing.T) {
	good, err := Train([]string{"ab ab"}, TrainOptions{Split: GPT2})
	if err != nil {
		t.Fatal(err)
	}
	change := func(edit func(map[string]any)) []byte {
		var file map[string]any
		if err := json.Unmarshal(good, &file); err != nil {
			t.Fatal(err)
		}
		edit(file)
		out, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	model := func(key string, value any) []byte {
		return change(func(f map[string]any) { f["model"].(map[string]any)[key] = value })
	}
	vocab := func(edit func(map[string]any)) []byte {
		return change(func(f map[string]any) { edit(f["model"].(map[string]any)["vocab"].(map[string]any)) })
	}
	for name, file := range map[string][]byte{
		"no JSON":              []byte("{"),
		"empty object":         []byte("{}"),
		"other pre-tokenizer":  change(func(f map[string]any) { f["pre_tokenizer"] = map[string]any{"type": "Whitespace"} }),
		"prefix space":         change(func(f map[string]any) { f["pre_tokenizer"].(map[string]any)["add_prefix_space"] = true }),
		"other normaliser":     change(func(f map[string]any) { f["normalizer"] = map[string]any{"type": "NFKC"} }),
		"unigram model":        model("type", "Unigram"),
		"byte fallback":        model("byte_fallback", true),
		"word suffix":          model("end_of_word_suffix", "</w>"),
		"merge of three":       model("merges", []any{[]string{"a", "b", "c"}}),
		"merge without space":  model("merges", []any{"ab"}),
		"merge not in vocab":   model("merges", []any{"a c"}),
		"merge twice":          model("merges", []any{"a b", "a b"}),
		"byte missing":         vocab(func(v map[string]any) { delete(v, "a") }),
		"id twice":             vocab(func(v map[string]any) { v["zzz"] = 65 }),
		"negative id":          vocab(func(v map[string]any) { v["zzz"] = -1 }),
		"id of a billion":      vocab(func(v map[string]any) { v["zzz"] = 1_000_000_000 }),
		"added token on an id": change(func(f map[string]any) { f["added_tokens"] = []any{map[string]any{"id": 65, "content": "<x>"}} }),
		"added token negative": change(func(f map[string]any) { f["added_tokens"] = []any{map[string]any{"id": -1, "content": "<x>"}} }),
		"added token is empty": change(func(f map[string]any) { f["added_tokens"] = []any{map[string]any{"id": 999, "content": ""}} }),
		"added token with trim": change(func(f map[string]any) {
			f["added_tokens"] = []any{map[string]any{"id": 999, "content": "<x>", "lstrip": true}}
		}),
	} {
		if _, err := Load(file); err == nil || !strings.HasPrefix(err.Error(), "bpe: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Load(model("merges", []any{"a b"})); err != nil {
		t.Errorf("merges as text: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	tok := small(t, "tokenizer-qwen2-small")
	want := tok.Encode("a photo of a red circle")
	done := make(chan []int32)
	for range 4 {
		go func() {
			var got []int32
			for range 200 {
				got = tok.Encode("a photo of a red circle")
			}
			done <- got
		}()
	}
	for range 4 {
		if got := <-done; !reflect.DeepEqual(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

// FuzzEncode holds every text to the round trip (after NFC, where the tokenizer normalises).
func FuzzEncode(f *testing.F) {
	qwen2, codegen := small(f, "tokenizer-qwen2-small"), small(f, "tokenizer-codegen-small")
	for _, s := range []string{"", "a  b", "It's <image>\n\n<|im_end|>", "\u212b\u0958", "\xff\xe2\x82", "\t\t\t  \r\n x", "'ſ'RE", "e\u0301<|im_end|>\u0301"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want := norm.NFC.String(text)
		if got := qwen2.Decode(qwen2.Encode(text), false); utf8.ValidString(text) && !strings.Contains(text, "<") && got != want {
			t.Errorf("qwen2: %q came back as %q", want, got)
		}
		if got := codegen.Decode(codegen.Encode(text), false); got != repair([]byte(text)) {
			t.Errorf("codegen: %q came back as %q", text, got)
		}
		for _, tok := range []*Tokenizer{qwen2, codegen} {
			for _, id := range tok.Encode(text) {
				if id < 0 || int(id) >= tok.VocabSize() {
					t.Errorf("id %d of %d", id, tok.VocabSize())
				}
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	tok := small(b, "tokenizer-qwen2-small")
	text := "This image is generated by a prompt: a photo of a red circle left of a blue square. Does it represent the prompt?"
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Encode(text)
	}
}
