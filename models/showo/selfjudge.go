package showo

import (
	"context"
	"fmt"

	"imagecot/cot"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
)

// SelfJudge is Show-o asked about images by their tokens: its understanding as a cot.Judge (an extension beyond the paper,
// see verify/selfverify). What its answers are worth depends on the weights: Show-o was trained to answer questions, a model
// that was trained to draw only answers at random. It is safe for concurrent use.
type SelfJudge struct {
	understander *Understander
	text         TextEncoder
	yes, no      []int32 // ids that spell the answers
}

var _ cot.Judge = (*SelfJudge)(nil)

// NewSelfJudge makes a judge of the generator's own weights. text must have one id for a spelling of yes and one of no.
func NewSelfJudge(be compute.Backend, cfg Config, w *graphx.Weights, text TextEncoder) (*SelfJudge, error) {
	u, err := NewUnderstander(be, cfg, w)
	if err != nil {
		return nil, err
	}
	j := &SelfJudge{understander: u, text: text, yes: single(text, " yes", " Yes", "yes", "Yes"), no: single(text, " no", " No", "no", "No")}
	if len(j.yes) == 0 || len(j.no) == 0 {
		return nil, fmt.Errorf("showo: self judge: the text tokenizer has %d ids for yes and %d for no", len(j.yes), len(j.no))
	}
	return j, nil
}

// single returns the ids of the spellings that are one id.
func single(text TextEncoder, spellings ...string) []int32 {
	var ids []int32
	for _, s := range spellings {
		if e := text.Encode(s); len(e) == 1 {
			ids = append(ids, e[0])
		}
	}
	return ids
}

// Ask implements cot.Judge: two forwards a question, one for the image and one for the words, in Show-o's own wording
// (USER, ASSISTANT). A question must have all tokens of its image, and no earlier turns.
func (j *SelfJudge) Ask(ctx context.Context, qs []cot.Question) ([]cot.Verdict, error) {
	verdicts := make([]cot.Verdict, len(qs))
	for i, q := range qs {
		if len(q.After) > 0 {
			return nil, fmt.Errorf("showo: self judge: the %s question follows %d others, but one question a time is understood", q.Kind, len(q.After))
		}
		logits, err := j.answer(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("showo: self judge: path %d, step %d: %w", q.Path, q.Step, err)
		}
		verdicts[i] = VerdictOf(logits, j.yes, j.no)
	}
	return verdicts, nil
}

// answer returns the logits [V] of the first answer token.
func (j *SelfJudge) answer(ctx context.Context, q cot.Question) ([]float32, error) {
	image, err := j.understander.See(ctx, q.Tokens)
	if err != nil {
		return nil, err
	}
	defer graphx.Free(image.kv)
	ids := append([]int32{j.understander.cfg.EOT()}, j.text.Encode("USER: \n"+q.Text+" ASSISTANT:")...)
	return j.understander.Next(ctx, image, ids)
}
