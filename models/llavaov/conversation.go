package llavaov

import (
	"fmt"
	"strings"

	"imagecot/internal/graphx"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Labels says which tokens of a conversation are learnt.
type Labels string

const (
	// AnswerLabels are the words of the answers and the <|im_end|> that closes each.
	AnswerLabels Labels = "answer"
	// OfficialLabels are those of LLaVA's training code: answers with their headers and the line end behind them, and in all
	// turns every <|im_start|>, <|im_end|> and line end that is a token of its own.
	OfficialLabels Labels = "official"
)

const (
	// Ignore is the label of a token that is not learnt.
	Ignore int32 = -100
	// ImageRow stands for a row of the image among the ids of a conversation.
	ImageRow int32 = -200
)

// Conversation returns a whole conversation as LLaVA's training code lays it out, the image's rows included, and the label
// of each id: itself where it is learnt, else Ignore.
func (c *Chat) Conversation(e Example, rows int, which Labels) (ids, labels []int32, err error) {
	if len(e) == 0 || which != AnswerLabels && which != OfficialLabels {
		return nil, nil, fmt.Errorf("llavaov: conversation of %d turns with labels %q, want answer or official", len(e), which)
	}
	always := map[int32]bool{} // learnt wherever they stand
	if which == OfficialLabels {
		for _, mark := range []string{startOfTurn, endOfTurn, "\n"} {
			for _, id := range c.single([]string{mark}) {
				always[id] = true
			}
		}
	}
	add := func(more []int32, learnt bool) {
		for _, id := range more {
			label := Ignore
			if learnt || always[id] {
				label = id
			}
			ids, labels = append(ids, id), append(labels, label)
		}
	}
	add(c.before, false)
	for range rows {
		ids, labels = append(ids, ImageRow), append(labels, Ignore)
	}
	head := " "
	for _, t := range e {
		if err := c.plain(t.Answer); err != nil {
			return nil, nil, err
		}
		question, err := c.turn(head, t.Text)
		if err != nil {
			return nil, nil, err
		}
		n := len(question) - len(c.tok.Encode(headerOfAnswer))
		add(question[:n], false)
		add(question[n:], which == OfficialLabels)
		add(c.tok.Encode(strings.TrimSpace(t.Answer)), true)
		add([]int32{c.end}, true)
		add(c.tok.Encode("\n"), which == OfficialLabels)
		head = startOfTurn + "user\n"
	}
	return ids, labels, nil
}

// ConversationLosses is the cross-entropy of conversations.
type ConversationLosses struct {
	NLL   *Node // [B, L-1]: -log p of the label that follows, 0 where it is ignored
	Loss  *Node // mean over the labels that count
	Count *Node // how many count, float32
}

// ConversationLoss is the next-token cross-entropy of conversations as rows x [B, L, D], words and image rows, padded on the
// right, with labels int32 [B, L]. The scope is the whole model's.
func ConversationLoss(s graphx.Scope, t TextConfig, x, labels *Node) ConversationLosses {
	d := x.Shape().Dimensions
	positions := Iota(x.Graph(), shapes.Make(dtypes.Int32, 1, d[1]), 1)
	hidden := Decode(s.In("model"), t, x, positions, nil, nil)
	logits := Logits(s, Slice(hidden, AxisRange(), AxisRange(0, d[1]-1)), 0)
	next := Slice(labels, AxisRange(), AxisRange(1))
	counts := ConvertDType(GreaterOrEqual(next, ScalarZero(x.Graph(), dtypes.Int32)), dtypes.Float32)
	nll := NLL(Reshape(logits, d[0]*(d[1]-1), -1), Reshape(next, -1)) // an ignored label has no hot column
	out := ConversationLosses{NLL: Mul(Reshape(nll, d[0], d[1]-1), counts), Count: ReduceAllSum(counts)}
	out.Loss = Div(ReduceAllSum(out.NLL), MaxScalar(out.Count, 1))
	return out
}

// EmbedConversation puts words and image rows [B, R, D] together: ids int32 [B, L] hold R times ImageRow from column at on.
// The scope is the decoder's ("model.").
func EmbedConversation(s graphx.Scope, ids, rows *Node, at int) *Node {
	r := rows.Shape().Dimensions[1]
	words := func(from, to int) *Node { return embedLearned(s, Slice(ids, AxisRange(), AxisRange(from, to))) }
	return Concatenate([]*Node{words(0, at), rows, words(at+r, ids.Shape().Dimensions[1])}, 1)
}
