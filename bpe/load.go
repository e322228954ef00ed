package bpe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxVocab bounds ids, so that a hostile file cannot ask for a table of any size.
const maxVocab = 1 << 22

// alphabet maps a byte to the character that stands for it in files: printable characters of Latin-1 to themselves, the
// other 68 in ascending order to U+0100 and on.
var alphabet, byteOf = func() (a [256]rune, of map[rune]byte) {
	of = map[rune]byte{}
	moved := rune(0x100)
	for b := range a {
		r := rune(b)
		if !('!' <= r && r <= '~' || 0xa1 <= r && r <= 0xac || 0xae <= r && r <= 0xff) {
			r = moved
			moved++
		}
		a[b], of[r] = r, byte(b)
	}
	return a, of
}()

// unspell turns a file's spelling of a token into its bytes. ok is false if it is not spelled in the alphabet.
func unspell(s string) (b string, ok bool) {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		c, ok := byteOf[r]
		if !ok {
			return s, false
		}
		out = append(out, c)
	}
	return string(out), true
}

func spell(b string) string {
	var out strings.Builder
	for i := range len(b) {
		out.WriteRune(alphabet[b[i]])
	}
	return out.String()
}

// addedJSON is an added token as files describe it.
type addedJSON struct {
	Added
	LStrip     bool `json:"lstrip"`
	RStrip     bool `json:"rstrip"`
	SingleWord bool `json:"single_word"`
}

func (a addedJSON) check() (Added, error) {
	if a.LStrip || a.RStrip || a.SingleWord {
		return a.Added, fmt.Errorf("bpe: added token %q has lstrip, rstrip or single_word, which is not supported", a.Content)
	}
	return a.Added, nil
}

type preTokenizer struct {
	Type           string         `json:"type"`
	AddPrefixSpace bool           `json:"add_prefix_space"`
	UseRegex       *bool          `json:"use_regex"`
	Pattern        *pattern       `json:"pattern"`
	Behavior       string         `json:"behavior"`
	Invert         bool           `json:"invert"`
	Pretokenizers  []preTokenizer `json:"pretokenizers"`
}

type pattern struct {
	Regex string `json:"Regex"`
}

// split recognises the two known pre-tokenizers and refuses every other.
func (p *preTokenizer) split() (Split, error) {
	byteLevel := func(p preTokenizer, regex bool) bool {
		return p.Type == "ByteLevel" && !p.AddPrefixSpace && (p.UseRegex == nil && regex || p.UseRegex != nil && *p.UseRegex == regex)
	}
	switch {
	case p == nil:
		return "", errors.New("bpe: no pre-tokenizer; GPT-2's and Qwen2's are known")
	case byteLevel(*p, true):
		return GPT2, nil
	case p.Type == "Sequence" && len(p.Pretokenizers) == 2 && byteLevel(p.Pretokenizers[1], false):
		s := p.Pretokenizers[0]
		if s.Type == "Split" && s.Behavior == "Isolated" && !s.Invert && s.Pattern != nil && s.Pattern.Regex == qwen2Regex {
			return Qwen2, nil
		}
	}
	return "", fmt.Errorf("bpe: pre-tokenizer %q is not one of GPT-2's and Qwen2's", p.Type)
}

type modelJSON struct {
	Type         string            `json:"type"`
	Dropout      *float64          `json:"dropout"`
	UnkToken     *string           `json:"unk_token"`
	Prefix       *string           `json:"continuing_subword_prefix"`
	Suffix       *string           `json:"end_of_word_suffix"`
	ByteFallback bool              `json:"byte_fallback"`
	IgnoreMerges bool              `json:"ignore_merges"`
	Vocab        map[string]int32  `json:"vocab"`
	Merges       []json.RawMessage `json:"merges"`
}

// Load reads a tokenizer.json.
func Load(tokenizerJSON []byte) (*Tokenizer, error) {
	var file struct {
		AddedTokens  []addedJSON `json:"added_tokens"`
		Normalizer   *struct{ Type string }
		PreTokenizer *preTokenizer `json:"pre_tokenizer"`
		Model        modelJSON
	}
	if err := json.Unmarshal(tokenizerJSON, &file); err != nil {
		return nil, fmt.Errorf("bpe: tokenizer.json: %w", err)
	}
	m := file.Model
	set := func(s *string) bool { return s != nil && *s != "" }
	if m.Type != "" && m.Type != "BPE" || m.Dropout != nil && *m.Dropout != 0 || set(m.Prefix) || set(m.Suffix) || m.ByteFallback {
		return nil, fmt.Errorf("bpe: tokenizer.json: model %q with dropout, affixes or byte fallback is not supported", m.Type)
	}
	split, err := file.PreTokenizer.split()
	if err != nil {
		return nil, err
	}
	nfc := file.Normalizer != nil
	if nfc && file.Normalizer.Type != "NFC" {
		return nil, fmt.Errorf("bpe: tokenizer.json: normaliser %q, only NFC is known", file.Normalizer.Type)
	}
	merges := make([][2]string, len(m.Merges))
	for i, raw := range m.Merges {
		if merges[i], err = parseMerge(raw); err != nil {
			return nil, fmt.Errorf("bpe: tokenizer.json: merge %d: %w", i, err)
		}
	}
	added := make([]Added, len(file.AddedTokens))
	for i, a := range file.AddedTokens {
		if added[i], err = a.check(); err != nil {
			return nil, err
		}
	}
	t, err := build(split, nfc, m.Vocab, merges, added)
	if err != nil {
		return nil, err
	}
	t.ignoreMerges = m.IgnoreMerges
	return t, nil
}

// parseMerge reads "a b" or ["a","b"].
func parseMerge(raw json.RawMessage) (m [2]string, err error) {
	if len(raw) > 0 && raw[0] == '[' {
		var list []string
		if err = json.Unmarshal(raw, &list); err == nil && len(list) != 2 {
			err = fmt.Errorf("%d parts, want 2", len(list))
		}
		if err == nil {
			m = [2]string(list)
		}
		return m, err
	}
	var line string
	if err = json.Unmarshal(raw, &line); err != nil {
		return m, err
	}
	return cutMerge(line)
}

func cutMerge(line string) ([2]string, error) {
	left, right, ok := strings.Cut(line, " ")
	if !ok || left == "" || right == "" || strings.Contains(right, " ") {
		return [2]string{}, fmt.Errorf("%q is not two tokens with a space between", line)
	}
	return [2]string{left, right}, nil
}

// Files is the older layout of a tokenizer. Vocab and Merges must be there.
type Files struct {
	Vocab  []byte // vocab.json: {token: id}
	Merges []byte // merges.txt: one merge a line after a #version line
	Added  []byte // added_tokens.json: {token: id}; may be nil
	Config []byte // tokenizer_config.json, of which added_tokens_decoder counts; may be nil
}

// LoadFiles reads the older layout, which does not say how text is split. Qwen2's split comes with NFC.
func LoadFiles(f Files, split Split) (*Tokenizer, error) {
	if split != GPT2 && split != Qwen2 {
		return nil, fmt.Errorf("bpe: unknown split %q", split)
	}
	var vocab map[string]int32
	if err := json.Unmarshal(f.Vocab, &vocab); err != nil {
		return nil, fmt.Errorf("bpe: vocab.json: %w", err)
	}
	var merges [][2]string
	for i, line := range strings.Split(string(f.Merges), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || i == 0 && strings.HasPrefix(line, "#version") {
			continue
		}
		m, err := cutMerge(line)
		if err != nil {
			return nil, fmt.Errorf("bpe: merges.txt: line %d: %w", i+1, err)
		}
		merges = append(merges, m)
	}
	added, err := f.added()
	if err != nil {
		return nil, err
	}
	return build(split, split == Qwen2, vocab, merges, added)
}

// added unites the two files that name added tokens; tokenizer_config.json knows more and wins.
func (f Files) added() ([]Added, error) {
	byID := map[int32]Added{}
	if f.Added != nil {
		var ids map[string]int32
		if err := json.Unmarshal(f.Added, &ids); err != nil {
			return nil, fmt.Errorf("bpe: added_tokens.json: %w", err)
		}
		for content, id := range ids {
			byID[id] = Added{ID: id, Content: content}
		}
	}
	if f.Config != nil {
		var config struct {
			Decoder map[string]addedJSON `json:"added_tokens_decoder"`
		}
		if err := json.Unmarshal(f.Config, &config); err != nil {
			return nil, fmt.Errorf("bpe: tokenizer_config.json: %w", err)
		}
		for key, entry := range config.Decoder {
			id, err := strconv.ParseInt(key, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("bpe: tokenizer_config.json: id %q: %w", key, err)
			}
			entry.ID = int32(id)
			if byID[entry.ID], err = entry.check(); err != nil {
				return nil, err
			}
		}
	}
	added := make([]Added, 0, len(byID))
	for _, a := range byID {
		added = append(added, a)
	}
	return added, nil
}

// FileNames are the files in which a model folder may keep its tokenizer, of either layout.
func FileNames() []string {
	return []string{"tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json"}
}

// OpenFS loads the tokenizer in a model folder: tokenizer.json, else the older layout, whose split follows from
// tokenizer_class in tokenizer_config.json.
func OpenFS(fsys fs.FS) (*Tokenizer, error) {
	text, err := fs.ReadFile(fsys, "tokenizer.json")
	if err == nil {
		return Load(text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("bpe: %w", err)
	}
	var f Files
	for _, part := range []struct {
		name string
		to   *[]byte
		must bool
	}{{"vocab.json", &f.Vocab, true}, {"merges.txt", &f.Merges, true}, {"added_tokens.json", &f.Added, false}, {"tokenizer_config.json", &f.Config, true}} {
		*part.to, err = fs.ReadFile(fsys, part.name)
		if err != nil && (part.must || !errors.Is(err, fs.ErrNotExist)) {
			return nil, fmt.Errorf("bpe: no tokenizer.json, and of the older layout: %w", err)
		}
	}
	var config struct {
		Class string `json:"tokenizer_class"`
	}
	if err := json.Unmarshal(f.Config, &config); err != nil {
		return nil, fmt.Errorf("bpe: tokenizer_config.json: %w", err)
	}
	split := map[string]Split{"GPT2Tokenizer": GPT2, "CodeGenTokenizer": GPT2, "Qwen2Tokenizer": Qwen2}[strings.TrimSuffix(config.Class, "Fast")]
	if split == "" {
		return nil, fmt.Errorf("bpe: tokenizer_config.json: tokenizer_class %q is neither GPT-2's, CodeGen's nor Qwen2's", config.Class)
	}
	return LoadFiles(f, split)
}

// Open is OpenFS for a folder on disk.
func Open(dir string) (*Tokenizer, error) { return OpenFS(os.DirFS(dir)) }

// build checks vocabulary and merges against each other.
func build(split Split, nfc bool, vocab map[string]int32, merges [][2]string, added []Added) (*Tokenizer, error) {
	t := &Tokenizer{split: split, nfc: nfc, ids: make(map[string]int32, len(vocab)), merges: make(map[pair]merge, len(merges))}
	size := int32(0)
	for spelled, id := range vocab {
		if id < 0 || id >= maxVocab {
			return nil, fmt.Errorf("bpe: token %q has id %d, want 0 to %d", spelled, id, maxVocab-1)
		}
		size = max(size, id+1)
	}
	t.bytes, t.special = make([][]byte, size), make([]bool, size)
	for spelled, id := range vocab {
		if t.bytes[id] != nil {
			return nil, fmt.Errorf("bpe: id %d has two tokens, %q and %q", id, spell(string(t.bytes[id])), spelled)
		}
		b, ok := unspell(spelled)
		t.bytes[id] = []byte(b)
		if ok {
			t.ids[b] = id
		}
	}
	for b := range t.single {
		id, ok := t.ids[string([]byte{byte(b)})]
		if !ok {
			return nil, fmt.Errorf("bpe: the vocabulary lacks byte %d (%q)", b, alphabet[b])
		}
		t.single[b] = id
	}
	for rank, m := range merges {
		left, ok1 := unspell(m[0])
		right, ok2 := unspell(m[1])
		l, ok3 := t.ids[left]
		r, ok4 := t.ids[right]
		id, ok5 := t.ids[left+right]
		if !(ok1 && ok2 && ok3 && ok4 && ok5) {
			return nil, fmt.Errorf("bpe: merge %d (%q, %q): a part or the result is not in the vocabulary", rank, m[0], m[1])
		}
		if _, twice := t.merges[pair{l, r}]; twice {
			return nil, fmt.Errorf("bpe: merge %d (%q, %q) comes twice", rank, m[0], m[1])
		}
		t.merges[pair{l, r}] = merge{int32(rank), id}
	}
	for _, a := range added {
		if !utf8.ValidString(a.Content) {
			return nil, fmt.Errorf("bpe: added token %q is not UTF-8", a.Content)
		}
		if err := t.add(a); err != nil {
			return nil, err
		}
	}
	t.index()
	return t, nil
}

// encodeJSON is json.Marshal without the escapes for HTML, indented.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// CodeGenSpaces are the white-space tokens that CodeGen and Phi add to GPT-2's vocabulary, in the order of their ids:
// runs of 31 down to 2 spaces, then of 9 down to 2 tabs.
func CodeGenSpaces() []string {
	var runs []string
	for n := 31; n >= 2; n-- {
		runs = append(runs, strings.Repeat(" ", n))
	}
	for n := 9; n >= 2; n-- {
		runs = append(runs, strings.Repeat("\t", n))
	}
	return runs
}
