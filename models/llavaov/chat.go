package llavaov

import (
	"fmt"
	"strings"

	"imagecot/bpe"
	"imagecot/cot"
)

// The chat template qwen_1_5. The image stands at the start of the first question, followed by a space; the tokens
// before it are the same for every question.
const (
	beforeImage    = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
	headerOfAnswer = "<|im_start|>assistant\n"
	afterQuery     = "<|im_end|>\n" + headerOfAnswer
	betweenTurns   = "<|im_end|>\n<|im_start|>user\n"
	startOfTurn    = "<|im_start|>"
	endOfTurn      = "<|im_end|>"
	endOfText      = "<|endoftext|>"
)

// yesWords and noWords are the spellings whose probabilities a verdict sums, as far as they are one token each. The
// first ones are what the released selector counts alone.
var (
	yesWords = []string{"yes", "Yes", " yes", " Yes"}
	noWords  = []string{"no", "No", " no", " No"}
)

// Chat turns conversations into ids.
type Chat struct {
	tok    *bpe.Tokenizer
	before []int32
	end    int32 // <|im_end|>
	stops  []int32
}

// NewChat checks that the tokenizer has the template's tokens.
func NewChat(tok *bpe.Tokenizer) (*Chat, error) {
	c := &Chat{tok: tok, before: tok.Encode(beforeImage)}
	for _, name := range []string{startOfTurn, endOfTurn} {
		if _, ok := tok.TokenID(name); !ok {
			return nil, fmt.Errorf("llavaov: chat: the tokenizer has no %s", name)
		}
	}
	c.end, _ = tok.TokenID(endOfTurn)
	c.stops = []int32{c.end}
	if id, ok := tok.TokenID(endOfText); ok {
		c.stops = append(c.stops, id)
	}
	return c, nil
}

// Before returns the ids before the image rows.
func (c *Chat) Before() []int32 { return c.before }

// Turns returns the ids of a conversation after the image rows, cut where an answer begins: element i ends with the
// header of the answer to question i, and element i+1 starts with that answer. after are the earlier turns, text is
// the last question.
func (c *Chat) Turns(after []cot.Turn, text string) ([][]int32, error) {
	var turns [][]int32
	head := " "
	for _, t := range after {
		ids, err := c.turn(head, t.Text)
		if err != nil {
			return nil, err
		}
		if err := c.plain(t.Answer); err != nil {
			return nil, err
		}
		turns = append(turns, ids)
		head = strings.TrimSpace(t.Answer) + betweenTurns
	}
	ids, err := c.turn(head, text)
	if err != nil {
		return nil, err
	}
	return append(turns, ids), nil
}

func (c *Chat) turn(head, text string) ([]int32, error) {
	if strings.TrimSpace(text) == "" {
		return nil, fmt.Errorf("llavaov: chat: the question is empty")
	}
	if err := c.plain(text); err != nil {
		return nil, err
	}
	return c.tok.Encode(head + text + afterQuery), nil
}

// plain refuses texts that would end their turn or open another one.
func (c *Chat) plain(text string) error {
	for _, a := range c.tok.AddedTokens() {
		if a.Special && strings.Contains(text, a.Content) {
			return fmt.Errorf("llavaov: chat: a text holds the token %s", a.Content)
		}
	}
	return nil
}

// single returns the ids of the spellings that are one token.
func (c *Chat) single(words []string) []int32 {
	var ids []int32
	for _, w := range words {
		if e := c.tok.Encode(w); len(e) == 1 {
			ids = append(ids, e[0])
		}
	}
	return ids
}

// Verdicts returns the ids of the answers yes and no, all spellings or, when official, the released selector's one.
func (c *Chat) Verdicts(official bool) (yes, no []int32, err error) {
	n := len(yesWords)
	if official {
		n = 1
	}
	yes, no = c.single(yesWords[:n]), c.single(noWords[:n])
	if len(yes) == 0 || len(no) == 0 {
		return nil, nil, fmt.Errorf("llavaov: chat: the tokenizer splits yes or no into several tokens")
	}
	return yes, no, nil
}
