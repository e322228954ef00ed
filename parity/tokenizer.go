package parity

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/gomlx/compute"

	"imagecot/bpe"
)

func init() { register("tokenizer", runTokenizer) }

// ErrNoVocabulary says that a tokenizer case comes without its vocabulary and none was given.
var ErrNoVocabulary = errors.New("no vocabulary")

// tokenizerParams tell which vocabulary a case is about.
type tokenizerParams struct {
	PreTokenizer string           `json:"pre_tokenizer"`
	Added        json.RawMessage  `json:"added"` // {content: id}, or a text for people
	YesNo        map[string]int32 `json:"yes_no"`
}

// runTokenizer encodes and decodes the texts of cases.jsonl and decode.jsonl.
func runTokenizer(_ context.Context, _ compute.Backend, c *Case) error {
	var params tokenizerParams
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	t, err := openTokenizer(c, params)
	if err != nil {
		return err
	}
	for token, id := range params.YesNo {
		text := strings.ReplaceAll(token, "Ġ", " ")
		got, ok := t.TokenID(text)
		c.Check("yes_no", ok && got == id, "%q is %d, want %d", text, got, id)
	}
	err = c.EachLine("cases.jsonl", func(n int, line []byte) error {
		var item struct {
			Text    string
			IDs     []int32
			Decoded *string
		}
		if err := json.Unmarshal(line, &item); err != nil {
			return err
		}
		label := fmt.Sprintf("line %d", n)
		c.CompareExact("ids", label, append([]int32{}, t.Encode(item.Text)...), append([]int32{}, item.IDs...))
		want := item.Text
		if item.Decoded != nil {
			want = *item.Decoded
		}
		c.CompareExact("decoded", label, t.Decode(item.IDs, false), want)
		return nil
	})
	if err != nil {
		return err
	}
	err = c.EachLine("decode.jsonl", func(n int, line []byte) error {
		var item struct {
			IDs             []int32
			Text            string
			TextSkipSpecial string `json:"text_skip_special"`
		}
		if err := json.Unmarshal(line, &item); err != nil {
			return err
		}
		label := fmt.Sprintf("decode line %d", n)
		c.CompareExact("text", label, t.Decode(item.IDs, false), item.Text)
		c.CompareExact("text_skip_special", label, t.Decode(item.IDs, true), item.TextSkipSpecial)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// openTokenizer loads the vocabulary of the folder, else the one that the environment names (a tokenizer.json or a
// model folder): IMAGECOT_QWEN2_TOKENIZER, IMAGECOT_CODEGEN_TOKENIZER or IMAGECOT_GPT2_TOKENIZER.
func openTokenizer(c *Case, params tokenizerParams) (*bpe.Tokenizer, error) {
	if _, err := os.Stat(c.Path("tokenizer.json")); err == nil {
		return bpe.Open(c.Dir)
	}
	if _, err := os.Stat(c.Path("vocab.json")); err == nil {
		return bpe.Open(c.Dir)
	}
	name := "GPT2"
	if params.PreTokenizer == "qwen2" {
		name = "QWEN2"
	} else if len(params.Added) > 0 {
		name = "CODEGEN"
	}
	env := "IMAGECOT_" + name + "_TOKENIZER"
	path := os.Getenv(env)
	if path == "" {
		return nil, fmt.Errorf("%w in the folder (set %s to a tokenizer.json)", ErrNoVocabulary, env)
	}
	t, err := openAny(path)
	if err != nil {
		return nil, err
	}
	if name == "CODEGEN" {
		_, err = t.Add(false, bpe.CodeGenSpaces()...)
		return t, err
	}
	var added map[string]int32
	if json.Unmarshal(params.Added, &added) == nil {
		for content, id := range added {
			if got, ok := t.TokenID(content); ok && got != id {
				return nil, fmt.Errorf("%s=%s: %q is %d, the case wants %d", env, path, content, got, id)
			}
		}
	}
	return t, nil
}

func openAny(path string) (*bpe.Tokenizer, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return bpe.Open(path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return bpe.Load(text)
}

// EachLine hands every line of a file of the folder that is not empty to f, with its number from 1.
func (c *Case) EachLine(name string, f func(n int, line []byte) error) error {
	file, err := os.Open(c.Path(name))
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 64<<20)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if err := f(n, lines.Bytes()); err != nil {
			return fmt.Errorf("%s: line %d: %w", name, n, err)
		}
	}
	return lines.Err()
}
