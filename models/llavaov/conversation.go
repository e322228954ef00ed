package llavaov

import (
	"fmt"
	"slices"
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

// Transcript is a conversation as ids, the image's rows included. The three are equally long.
type Transcript struct {
	IDs      []int32
	Labels   []int32 // of each id: itself where it is learnt, else Ignore
	Verdicts []int32 // 1 where the id begins an answer that is yes or no, else 0
}

func (t *Transcript) add(ids []int32, learnt bool, always map[int32]bool) {
	for _, id := range ids {
		label := Ignore
		if learnt || always[id] {
			label = id
		}
		t.IDs, t.Labels, t.Verdicts = append(t.IDs, id), append(t.Labels, label), append(t.Verdicts, 0)
	}
}

// Conversation returns a whole conversation as LLaVA's training code lays it out, with rows rows of the image.
func (c *Chat) Conversation(e Example, rows int, which Labels) (Transcript, error) {
	var t Transcript
	if len(e) == 0 || which != AnswerLabels && which != OfficialLabels {
		return t, fmt.Errorf("llavaov: conversation of %d turns with labels %q, want answer or official", len(e), which)
	}
	always := map[int32]bool{} // learnt wherever they stand
	if which == OfficialLabels {
		for _, mark := range []string{startOfTurn, endOfTurn, "\n"} {
			for _, id := range c.single([]string{mark}) {
				always[id] = true
			}
		}
	}
	t.add(c.before, false, always)
	t.add(slices.Repeat([]int32{ImageRow}, rows), false, always)
	head := " "
	for _, turn := range e {
		if err := c.plain(turn.Answer); err != nil {
			return t, err
		}
		question, err := c.turn(head, turn.Text)
		if err != nil {
			return t, err
		}
		n := len(question) - len(c.tok.Encode(headerOfAnswer))
		t.add(question[:n], false, always)
		t.add(question[n:], which == OfficialLabels, always)
		at, answer := len(t.IDs), strings.TrimSpace(turn.Answer)
		t.add(c.tok.Encode(answer), true, always)
		if answer == yesWords[0] || answer == noWords[0] {
			t.Verdicts[at] = 1
		}
		t.add([]int32{c.end}, true, always)
		t.add(c.tok.Encode("\n"), which == OfficialLabels, always)
		head = startOfTurn + "user\n"
	}
	return t, nil
}

// ConversationLosses is the cross-entropy of conversations.
type ConversationLosses struct {
	NLL    *Node // [B, L-1]: -log p of the label that follows, 0 where it is ignored
	Loss   *Node // mean over the labels that count
	Count  *Node // how many count, float32
	Logits *Node // [B, L-1, V]
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
	out := ConversationLosses{NLL: Mul(Reshape(nll, d[0], d[1]-1), counts), Count: ReduceAllSum(counts), Logits: logits}
	out.Loss = Div(ReduceAllSum(out.NLL), MaxScalar(out.Count, 1))
	return out
}

// ConversationInputs is a batch of conversations about one image each, padded on the right.
type ConversationInputs struct {
	Pixels   *Node // [B, image, image, 3] in [-1, 1]: one tile an image, as "pad" makes it
	IDs      *Node // int32 [B, L], the image's rows from the same column on
	Labels   *Node // int32 [B, L]
	Verdicts *Node // int32 [B, L]
}

// ImageConversationLoss is ConversationLoss through tower and projector. With it come, as in PackedLosses, the mean of -log p
// over the verdicts, and the share of them whose logit lies above the other verdict's. The scope is the whole model's.
func ImageConversationLoss(s graphx.Scope, c Config, o PackedOptions, in ConversationInputs) (l ConversationLosses, answer, accuracy *Node) {
	h := Tower(s.In(towerPrefix[:len(towerPrefix)-1]), c.Vision, c.TowerLayers, in.Pixels, nil)
	rows := Project(s.In("model", "mm_projector"), h)
	d := rows.Shape().Dimensions
	newline := Reshape(s.Float32(newlineName, d[2]), 1, 1, d[2])
	rows = Concatenate([]*Node{rows, BroadcastToDims(newline, d[0], 1, d[2])}, 1)
	l = ConversationLoss(s, c.Text, EmbedConversation(s.In("model"), in.IDs, rows, len(o.Prefix)), in.Labels)
	next := func(x *Node) *Node { return Reshape(Slice(x, AxisRange(), AxisRange(1)), -1) }
	logits := Reshape(l.Logits, -1, l.Logits.Shape().Dimensions[2])
	verdicts := ConvertDType(next(in.Verdicts), dtypes.Float32)
	answer, accuracy = verdictFigures(logits, Reshape(l.NLL, -1), next(in.IDs), verdicts, o)
	return l, answer, accuracy
}

// EmbedConversation puts words and image rows [B, R, D] together: ids int32 [B, L] hold R times ImageRow from column at on.
// The scope is the decoder's ("model.").
func EmbedConversation(s graphx.Scope, ids, rows *Node, at int) *Node {
	r := rows.Shape().Dimensions[1]
	words := func(from, to int) *Node { return embedLearned(s, Slice(ids, AxisRange(), AxisRange(from, to))) }
	return Concatenate([]*Node{words(0, at), rows, words(at+r, ids.Shape().Dimensions[1])}, 1)
}
