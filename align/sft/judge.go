package sft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"imagecot/align/policy"
	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/curate"
	"imagecot/internal/graphx"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/train"
	"imagecot/train/objective"
	"imagecot/verify/questions"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// Judge fine-tunes a LLaVA-OneVision of any size into a reward model (App. B): the ORM on final images, the PRM on steps, PARM
// on clarity, potential and outcome, PARM++ on reflections and reasons besides.
//
//  1. a row is one conversation about one image, in the words that `imagecot curate export` writes
//  2. the image's tokens are decoded, and the picture is one tile of the tower's size, as "pad" makes it: the way judges are
//     asked (Deviation D12)
//  3. loss = mean cross-entropy of the labels of the batch, which are LLaVA's own (or those of the answers alone)
//
// What a yes weighs beside a no is what the data have (Deviation D13 is of the tiny world's). With one row a pass and gradient
// accumulation every conversation weighs the same; the authors' mean is over the labels of 8.
//
// All is computed in float32. Weights and AdamW's state take 12 bytes a weight, gradients another 4, or 8 where they are
// accumulated: 160 GB for 7B. A LoRA adapter on frozen weights takes 8 in all, the weights and the changed ones. With
// gradient_checkpointing a row takes the inputs of layers, the inside of one layer, and the logits: of 900 positions of 7B 0.5 GB,
// 0.5 GB and several times 0.5 GB.
type Judge struct {
	recipe train.Recipe
	data   JudgeData
	start  *checkpoint
	chat   *llavaov.Chat
	loss   llavaov.PackedOptions // yes, no, and the ids before the image
	decode *magvit.Tokenizer
	talks  []curate.Conversation
	length int // positions of a row
	order  order
	from   []ckpt.Parent
	hash   string // of the data
}

// JudgeData is the data part of the recipe of such a reward model.
type JudgeData struct {
	Reward     string         `json:"reward"` // orm, prm, parm or parmpp
	Sources    []Source       `json:"sources"`
	Questions  string         `json:"questions"`  // the wording; "" is the paper's, or of the tiny world's judge its own
	Labels     llavaov.Labels `json:"labels"`     // official or answer
	Tokenizer  string         `json:"tokenizer"`  // image tokenizer of the data
	Validation float64        `json:"validation"` // share of the scenes that is left out
	Length     int            `json:"length"`     // positions of a row, 0 for as many as the longest conversation has
}

var (
	_ objective.Trainable = (*Judge)(nil)
	_ objective.Derived   = (*Judge)(nil)
	_ objective.Worded    = (*Judge)(nil)
	_ objective.Prepared  = (*Judge)(nil)
)

// JudgeDefaults are the authors' settings.
func JudgeDefaults() JudgeData { return JudgeData{Labels: llavaov.OfficialLabels} }

// NewJudge reads conversations and checkpoint, and looks at every conversation once: nothing ends a run in its middle.
func NewJudge(be compute.Backend, from policy.Sources, r train.Recipe) (*Judge, error) {
	j := &Judge{recipe: r, data: JudgeDefaults()}
	if err := objective.DecodeStrict(r.Data, &j.data); err != nil {
		return nil, err
	}
	if err := train.RecipeError(j.data.Validate()); err != nil {
		return nil, err
	}
	var err error
	if j.start, err = openCheckpoint(from.Folders, r.InitFrom); err != nil {
		return nil, err
	}
	if j.chat, err = llavaov.NewChat(j.start.text); err != nil {
		return nil, err
	}
	if j.loss, err = j.chat.Options(0); err != nil {
		return nil, err
	}
	if err := j.openTokenizer(be, from.Folders); err != nil {
		return nil, err
	}
	if err := j.wording(from.Wording); err != nil {
		return nil, err
	}
	return j, j.openData()
}

// wording finds the words of the questions. Others than what nobody needs to be told must stand in the recipe, which the
// manifest keeps: whoever asks the trained judge reads it there.
func (j *Judge) wording(known func(judge string) string) error {
	if j.data.Questions != "" {
		return nil
	}
	j.data.Questions = questions.Usual(j.start.config.Vision.ImageSize)
	if known == nil {
		return nil
	}
	if set := known(j.recipe.InitFrom); set != "" && set != j.data.Questions {
		return fmt.Errorf("sft: data.questions is missing: %s knows the questions in the words %q, without a word about it they are %q",
			j.recipe.InitFrom, set, j.data.Questions)
	}
	return nil
}

// Validate reports settings that cannot be trained with.
func (d JudgeData) Validate() error {
	if err := d.validateSources(); err != nil {
		return err
	}
	switch {
	case d.Tokenizer == "":
		return errors.New("sft: data.tokenizer is missing: whose tokens are the images?")
	case d.Labels != llavaov.OfficialLabels && d.Labels != llavaov.AnswerLabels:
		return fmt.Errorf("sft: data.labels is %q, want %s or %s", d.Labels, llavaov.OfficialLabels, llavaov.AnswerLabels)
	case d.Questions != "" && !slices.Contains(questions.Names(), d.Questions):
		return fmt.Errorf("sft: data.questions is %q; there are %s", d.Questions, strings.Join(questions.Names(), ", "))
	case !(d.Validation >= 0 && d.Validation < 1) || d.Length < 0:
		return fmt.Errorf("sft: validation %v or length %d is out of range", d.Validation, d.Length)
	}
	return nil
}

func (j *Judge) openTokenizer(be compute.Backend, open policy.Folders) error {
	dir, err := open(j.data.Tokenizer, "tokenizer")
	if err != nil {
		return fmt.Errorf("sft: tokenizer: %w", err)
	}
	tokenizer, err := policy.Parent(dir, "tokenizer", j.data.Tokenizer)
	if err != nil {
		return err
	}
	j.from = []ckpt.Parent{j.start.parent, tokenizer}
	j.decode, err = magvit.OpenFS(be, dir, ".", magvit.Options{Batch: j.recipe.Batch})
	return err
}

// openData reads the sources and finds out how long the rows are.
func (j *Judge) openData() error {
	set, err := questions.Get(j.data.Questions)
	if err != nil {
		return err
	}
	if j.talks, j.hash, err = j.data.read(set, j.recipe.Seed); err != nil {
		return err
	}
	if err := checkAnswers(j.talks); err != nil {
		return err
	}
	longest := 0
	for _, c := range j.talks {
		n, err := j.check(c)
		if err != nil {
			return fmt.Errorf("sft: %s conversation about %q: %w", kind(c), c.Prompt, err)
		}
		longest = max(longest, n)
	}
	if j.length = j.data.Length; j.length == 0 {
		j.length = longest
	}
	j.order = order{seed: j.recipe.Seed, n: len(j.talks), epoch: -1}
	return nil
}

// check counts the positions of a conversation, and refuses one that cannot be trained on.
func (j *Judge) check(c curate.Conversation) (int, error) {
	if n := len(j.talks[0].Tokens); len(c.Tokens) != n || n == 0 {
		return 0, fmt.Errorf("%d image tokens, the first image has %d", len(c.Tokens), n)
	}
	for i, t := range c.Tokens {
		if codes := j.decode.Config().Codes(); t < 0 || int(t) >= codes {
			return 0, fmt.Errorf("image token %d is %d, want 0 to %d", i, t, codes-1)
		}
	}
	row, err := j.chat.Conversation(example(c), j.start.rows(), j.data.Labels)
	if err != nil {
		return 0, err
	}
	if most := j.start.config.Text.MaxPositionEmbeddings; len(row.IDs) > most {
		return 0, fmt.Errorf("%d positions, the judge has %d", len(row.IDs), most)
	}
	if j.data.Length > 0 && len(row.IDs) > j.data.Length {
		return 0, fmt.Errorf("%d positions, data.length is %d", len(row.IDs), j.data.Length)
	}
	return len(row.IDs), nil
}

// example is the conversation as a chat takes it.
func example(c curate.Conversation) llavaov.Example {
	e := make(llavaov.Example, len(c.Turns))
	for i, t := range c.Turns {
		e[i] = llavaov.ExampleTurn{Text: t.Text, Answer: t.Answer}
	}
	return e
}

// kind is what a conversation is about: its last question.
func kind(c curate.Conversation) cot.QuestionKind { return c.Turns[len(c.Turns)-1].Kind }

// Prepare implements objective.Prepared: it says how far the run goes through the data.
func (j *Judge) Prepare(_ context.Context, show io.Writer) error {
	count := map[cot.QuestionKind]int{}
	for _, c := range j.talks {
		count[kind(c)]++
	}
	visits := j.recipe.MaxSteps * j.recipe.Accum * j.recipe.Batch
	fmt.Fprintf(show, "%d conversations (%s) of %d positions; %d steps of %d go through them %.3g times\n",
		len(j.talks), counts(count), j.length, j.recipe.MaxSteps, j.recipe.Accum*j.recipe.Batch, float64(visits)/float64(len(j.talks)))
	return nil
}

// Batch implements train.Objective: pixels [B, image, image, 3], ids, labels and verdicts [B, L].
func (j *Judge) Batch(i int) ([]*tensors.Tensor, error) {
	b := j.recipe.Batch
	var tokens [][]int32
	var ids, labels, verdicts []int32
	for k := range b {
		c := j.talks[j.order.at(i*b+k)]
		tokens = append(tokens, c.Tokens)
		row, err := j.chat.Conversation(example(c), j.start.rows(), j.data.Labels)
		if err != nil {
			return nil, err
		}
		pads := j.length - len(row.IDs)
		ids = append(append(ids, row.IDs...), make([]int32, pads)...) // nobody sees what is behind a row
		labels = append(append(labels, row.Labels...), slices.Repeat([]int32{llavaov.Ignore}, pads)...)
		verdicts = append(append(verdicts, row.Verdicts...), make([]int32, pads)...)
	}
	pixels, err := j.pixels(tokens)
	if err != nil {
		return nil, err
	}
	side := j.start.config.Vision.ImageSize
	return []*tensors.Tensor{
		graphx.Tensor(pixels, b, side, side, 3),
		graphx.Tensor(ids, b, j.length), graphx.Tensor(labels, b, j.length), graphx.Tensor(verdicts, b, j.length),
	}, nil
}

// pixels decodes images and makes the judge's tile of each.
func (j *Judge) pixels(tokens [][]int32) ([]float32, error) {
	images, err := j.decode.Decode(context.Background(), tokens)
	if err != nil {
		return nil, err
	}
	var out []float32
	for _, img := range images {
		tiles, _, err := j.start.config.Tiles(img, "pad")
		if err != nil {
			return nil, err
		}
		out = llavaov.AppendPixels(out, tiles[0])
	}
	return out, nil
}

// Loss implements train.Objective.
func (j *Judge) Loss(s graphx.Scope, in []*Node) (*Node, []*Node) {
	l, answer, accuracy := llavaov.ImageConversationLoss(s, j.start.config, j.loss, llavaov.ConversationInputs{
		Pixels: in[0], IDs: in[1], Labels: in[2], Verdicts: in[3],
	})
	return l.Loss, []*Node{answer, accuracy}
}

// Metrics implements train.Objective: of the verdicts alone, as in objective.Reward.
func (j *Judge) Metrics() []string { return []string{"answer_loss", "answer_accuracy"} }

// Init implements train.Objective.
func (j *Judge) Init() (map[string]*tensors.Tensor, error) { return j.start.weights() }

// Config implements objective.Trainable: config.json as the checkpoint has it.
func (j *Judge) Config() ([]byte, error) { return j.start.json, nil }

// TextTokenizer implements objective.Worded.
func (j *Judge) TextTokenizer() map[string][]byte { return j.start.words }

// Final implements objective.Trainable: the weights under the names that the checkpoint has.
func (j *Judge) Final(w map[string]*tensors.Tensor) map[string]*tensors.Tensor {
	return j.start.named(w)
}

// Origin implements objective.Derived.
func (j *Judge) Origin() ([]ckpt.Parent, string) { return j.from, j.hash }
