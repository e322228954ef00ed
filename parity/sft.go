package parity

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"imagecot/bpe"
	"imagecot/internal/graphx"
	"imagecot/models/llavaov"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

func init() { register("sft-loss", sftLoss) }

// sftParams are the parameters of the kind.
type sftParams struct {
	Tokenizer     string `json:"tokenizer"`
	ImageToken    int32  `json:"image_token_id"`
	Pad           int32  `json:"pad_id"`
	Rows          int    `json:"image_tokens"`
	Conversations [][]struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"conversations"`
	EmbedRows []int32 `json:"embed_rows"`
}

// sftLoss lays conversations out from their texts, checks ids and labels against the case's, and computes loss and gradients
// under both ways of labelling.
func sftLoss(_ context.Context, be compute.Backend, c *Case) error {
	var params sftParams
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	text, err := os.ReadFile(c.Path(params.Tokenizer))
	if err != nil {
		return err
	}
	tok, err := bpe.Load(text)
	if err != nil {
		return err
	}
	chat, err := llavaov.NewChat(tok)
	if err != nil {
		return err
	}
	for name, which := range map[string]llavaov.Labels{"authors": llavaov.OfficialLabels, "answer": llavaov.AnswerLabels} {
		if err := params.run(be, c, chat, name, which); err != nil {
			return fmt.Errorf("labels %s: %w", name, err)
		}
	}
	return nil
}

// layOut returns ids and labels [B, L] of the case's conversations, padded on the right.
func (p sftParams) layOut(chat *llavaov.Chat, which llavaov.Labels) (ids, labels []int32, length int, err error) {
	var all, marked [][]int32
	for _, turns := range p.Conversations {
		var e llavaov.Example
		for i := 0; i+1 < len(turns); i += 2 {
			question := strings.TrimSpace(strings.TrimPrefix(turns[i].Content, "<image>"))
			e = append(e, llavaov.ExampleTurn{Text: question, Answer: turns[i+1].Content})
		}
		row, err := chat.Conversation(e, p.Rows, which)
		if err != nil {
			return nil, nil, 0, err
		}
		all, marked, length = append(all, row.IDs), append(marked, row.Labels), max(length, len(row.IDs))
	}
	for i := range all {
		pads := length - len(all[i])
		ids = append(append(ids, all[i]...), slices.Repeat([]int32{p.Pad}, pads)...)
		labels = append(append(labels, marked[i]...), slices.Repeat([]int32{llavaov.Ignore}, pads)...)
	}
	return ids, labels, length, nil
}

// sameIDs holds our ids against the case's, where one placeholder stands for all rows of an image.
func (p sftParams) sameIDs(c *Case, ids []int32, length int) error {
	want, err := c.Int32("in.input_ids")
	if err != nil {
		return err
	}
	width := c.Shape("in.input_ids")[1]
	for b := range p.Conversations {
		row := slices.Clone(want[b*width : (b+1)*width])
		at := slices.Index(row, p.ImageToken)
		if at < 0 {
			return fmt.Errorf("row %d has no image", b)
		}
		row = slices.Concat(row[:at], slices.Repeat([]int32{llavaov.ImageRow}, p.Rows), row[at+1:])
		if got := ids[b*length : (b+1)*length]; !slices.Equal(got, row) {
			return fmt.Errorf("row %d is laid out as %v, the reference has %v", b, got, row)
		}
	}
	return nil
}

func (p sftParams) run(be compute.Backend, c *Case, chat *llavaov.Chat, name string, which llavaov.Labels) error {
	ids, labels, length, err := p.layOut(chat, which)
	if err != nil {
		return err
	}
	if err := p.sameIDs(c, ids, length); err != nil {
		return err
	}
	out := "out." + name + "."
	b := len(p.Conversations)
	c.Compare(out+"labels_expanded", graphx.Tensor(labels, b, length))
	t, err := llavaov.LoadTextConfig(c.Config)
	if err != nil {
		return err
	}
	w, err := caseWeights(c)
	if err != nil {
		return err
	}
	rows, err := c.IO.Tensor("in.image_features")
	if err != nil {
		return err
	}
	in := []any{graphx.Tensor(ids, b, length), graphx.Tensor(labels, b, length), rows}
	return runNamed(be, c, w, in, func(s graphx.Scope, in []*graph.Node, show func(string, *graph.Node)) {
		x := llavaov.EmbedConversation(s.In("model"), in[0], in[2], len(chat.Before()))
		l := llavaov.ConversationLoss(s, t, x, in[1])
		show(out+"nll", l.NLL)
		show(out+"loss", graph.Reshape(l.Loss, 1))
		show(out+"count", graph.Reshape(graph.ConvertDType(l.Count, in[1].DType()), 1))
		wrt := []*graph.Node{in[2]}
		for _, name := range w.Names() {
			wrt = append(wrt, s.Param(name))
		}
		grads := graph.Gradient(l.Loss, wrt...)
		show(out+"grad.image_features", grads[0])
		square := graph.ScalarZero(in[2].Graph(), in[2].DType())
		for i, name := range w.Names() {
			g := grads[i+1]
			square = graph.Add(square, graph.ReduceAllSum(graph.Square(g)))
			show(out+"grad."+name, g)
			if name == "model.embed_tokens.weight" {
				show(out+"grad.embed_rows", graph.Gather(g, graph.Reshape(graph.Const(g.Graph(), p.EmbedRows), -1, 1)))
			}
		}
		show(out+"grad_norm", graph.Reshape(graph.Sqrt(square), 1))
	})
}
