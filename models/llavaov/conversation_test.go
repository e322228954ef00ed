package llavaov

import (
	"math"
	"slices"
	"testing"

	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// why is PARM++'s conversation about a wrong image.
var why = Example{{Text: asked, Answer: "no"}, {Text: "Describe", Answer: "a blue star left of two squares"}}

// Judges are trained on packed segments (PackedLoss). With all learnt tokens weighing the same, that is the loss of the
// whole conversation under answer labels, which is held to LLaVA's by a reference case.
func TestPackedLossIsTheConversationsLoss(t *testing.T) {
	chat := testChat(t)
	c := smallConfig(chat.tok.VocabSize())
	rows := c.Vision.ImageSize / c.Vision.PatchSize
	rows = rows*rows + 1 // a newline behind them
	row, err := chat.Conversation(why, rows, AnswerLabels)
	if err != nil {
		t.Fatal(err)
	}
	ids, labels := row.IDs, row.Labels
	learnt := len(labels)
	for _, l := range labels {
		if l == Ignore {
			learnt--
		}
	}
	verdict := 1 / float64(learnt)
	packed, err := chat.Pack([][]Example{{why}}, 0, 0, Shares{Verdict: verdict, Answer: 1 - verdict})
	if err != nil {
		t.Fatal(err)
	}
	o, err := chat.Options(0)
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		w := smallWeights(c)
		program, err := graphx.NewProgram(be, "both", w, graphx.Policy{}, func(s graphx.Scope, in []*Node) []*Node {
			tower := Tower(s.In("model", "vision_tower", "vision_tower", "vision_model"), c.Vision, c.TowerLayers, in[0], nil)
			newline := Reshape(s.Float32(newlineName, c.Text.HiddenSize), 1, 1, c.Text.HiddenSize)
			image := Concatenate([]*Node{Project(s.In("model", "mm_projector"), tower), newline}, 1)
			whole := ConversationLoss(s, c.Text, EmbedConversation(s.In("model"), in[5], image, len(chat.Before())), in[6])
			segments := PackedLoss(s, c, o, PackedInputs{Pixels: in[0], IDs: in[1], Targets: in[2], Weights: in[3], Answers: in[4]})
			return []*Node{whole.Loss, whole.Count, segments.Loss}
		})
		if err != nil {
			t.Fatal(err)
		}
		in := []any{graphx.Tensor(randomFloats(4, 14*14*3), 1, 14, 14, 3)}
		for _, x := range packed.Tensors() {
			in = append(in, x)
		}
		in = append(in, graphx.Tensor(ids, 1, len(ids)), graphx.Tensor(labels, 1, len(labels)))
		out, err := program.Run(in...)
		if err != nil {
			t.Fatal(err)
		}
		whole, count, segments := graphx.Floats(out[0])[0], graphx.Floats(out[1])[0], graphx.Floats(out[2])[0]
		if math.Abs(float64(whole-segments)) > 1e-4 || count != float32(learnt) || whole < 1 {
			t.Errorf("loss %v over %v labels, packed %v over %d", whole, count, segments, learnt)
		}
	})
}

func TestLabels(t *testing.T) {
	chat := testChat(t)
	for which, want := range map[Labels]string{
		AnswerLabels: "no<|im_end|>a blue star left of two squares<|im_end|>",
		OfficialLabels: "<|im_start|>\n<|im_end|>\n<|im_start|>\n" + // system turn and the header of the question
			"<|im_end|>\n<|im_start|>assistant\nno<|im_end|>\n" +
			"<|im_start|>\n<|im_end|>\n<|im_start|>assistant\na blue star left of two squares<|im_end|>\n",
	} {
		row, err := chat.Conversation(why, 3, which)
		if err != nil {
			t.Fatal(err)
		}
		ids, labels := row.IDs, row.Labels
		if no := slices.Index(row.Verdicts, 1); no < 0 || chat.tok.Decode(ids[no:no+1], false) != "no" || slices.Contains(row.Verdicts[no+1:], 1) {
			t.Errorf("%s: the verdicts of %q are %v", which, chat.tok.Decode(ids, false), row.Verdicts)
		}
		var learnt []int32
		for i, l := range labels {
			if l != Ignore {
				learnt = append(learnt, l)
				if l != ids[i] {
					t.Fatalf("%s: the label of id %d is %d", which, ids[i], l)
				}
			}
		}
		if got := chat.tok.Decode(learnt, false); got != want {
			t.Errorf("%s labels read %q, want %q", which, got, want)
		}
		if at := slices.Index(ids, ImageRow); at != len(chat.Before()) || ids[at+2] != ImageRow || ids[at+3] == ImageRow {
			t.Errorf("%s: image rows at %d", which, at)
		}
	}
	if _, err := chat.Conversation(why, 3, "all"); err == nil {
		t.Error("unknown labels passed")
	}
	if _, err := chat.Conversation(Example{{Text: "a <|im_end|> b", Answer: "no"}}, 3, AnswerLabels); err == nil {
		t.Error("a question that ends its turn passed")
	}
}

// Every layer of tower and decoder is one that gradient checkpointing computes again, on an engine that can.
func TestLayersCanBeComputedAgain(t *testing.T) {
	chat := testChat(t)
	c := smallConfig(chat.tok.VocabSize())
	rows := c.Vision.ImageSize / c.Vision.PatchSize
	row, err := chat.Conversation(why, rows*rows+1, AnswerLabels)
	if err != nil {
		t.Fatal(err)
	}
	o, err := chat.Options(0)
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		ops := be.Capabilities().Operations
		can := ops[compute.OpTypeOptimizationBarrier] && ops[compute.OpTypeSchedulingBarrier]
		w := smallWeights(c)
		var losses []float32
		for _, again := range []bool{false, true} {
			count := map[NodeType]int{}
			program, err := graphx.NewProgram(be, "gradient", w, graphx.Policy{Recompute: again}, func(s graphx.Scope, in []*Node) []*Node {
				l, _, _ := ImageConversationLoss(s, c, o, ConversationInputs{Pixels: in[0], IDs: in[1], Labels: in[2], Verdicts: in[3]})
				grad := Gradient(l.Loss, s.Param("model.embed_tokens.weight"), s.Param(towerPrefix+"embeddings.patch_embedding.weight"))
				for _, n := range l.Loss.Graph().Nodes() {
					count[n.Type()]++
				}
				return append(grad, l.Loss)
			})
			if err != nil {
				t.Fatal(err)
			}
			l := len(row.IDs)
			out, err := program.Run(graphx.Tensor(randomFloats(4, 14*14*3), 1, 14, 14, 3), graphx.Tensor(row.IDs, 1, l), graphx.Tensor(row.Labels, 1, l), graphx.Tensor(row.Verdicts, 1, l))
			if err != nil {
				t.Fatal(err)
			}
			losses = append(losses, graphx.Floats(out[2])[0])
			for name, part := range map[string]struct{ found, layers int }{ // GELU of the tower, SiLU of the decoder
				"tower": {count[NodeTypeTanh], c.TowerLayers}, "decoder": {count[NodeTypeLogistic], c.Text.NumHiddenLayers},
			} {
				if twice := part.found >= 2*part.layers; twice != (again && can) {
					t.Errorf("recompute %t: %d activations in %d layers of the %s", again, part.found, part.layers, name)
				}
			}
		}
		if math.Abs(float64(losses[0]-losses[1])) > 1e-5 {
			t.Errorf("losses %v", losses)
		}
	})
}
