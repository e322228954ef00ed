package guide

import (
	"cmp"
	"context"
	"fmt"
	"math"

	"imagecot/align/policy"
	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/verify/questions"

	"github.com/gomlx/compute"
)

// Reward scores finished images, each against its prompt: 0 to 1.
type Reward interface {
	Score(ctx context.Context, prompts []geneval.Metadata, tokens [][]int32) ([]float64, error)
}

// judged asks a judge the outcome question: ORM, and PARM's last question.
type judged struct {
	judge  cot.Judge
	words  questions.Set
	images *magvit.Tokenizer
}

// openJudge opens a local judge by name; role and name of the parent are the caller's to change.
func openJudge(be compute.Backend, from policy.Sources, images *magvit.Tokenizer, name string) (Reward, ckpt.Parent, error) {
	dir, err := from.Folders(name, "judge")
	if err != nil {
		return nil, ckpt.Parent{}, fmt.Errorf("guide: judge: %w", err)
	}
	parent, err := policy.Parent(dir, "judge", name)
	if err != nil {
		return nil, parent, err
	}
	text, err := policy.Words(dir)
	if err != nil {
		return nil, parent, fmt.Errorf("guide: judge %s: %w", name, err)
	}
	j, err := llavaov.OpenFS(be, dir, ".", text, llavaov.Options{})
	if err != nil {
		return nil, parent, fmt.Errorf("guide: judge %s: %w", name, err)
	}
	set := ""
	if from.Wording != nil {
		set = from.Wording(name)
	}
	words, err := questions.Get(cmp.Or(set, questions.Usual(j.Model().Config().Vision.ImageSize)))
	return judged{j, words, images}, parent, err
}

// Score implements Reward: P(yes) out of yes and no.
func (j judged) Score(ctx context.Context, prompts []geneval.Metadata, tokens [][]int32) ([]float64, error) {
	pictures, err := j.images.Decode(ctx, tokens)
	if err != nil {
		return nil, err
	}
	asked := make([]cot.Question, len(pictures))
	for i, picture := range pictures {
		p := cot.Prompt{Text: prompts[i].Prompt}
		asked[i] = cot.Question{Kind: cot.Outcome, Prompt: p, Text: j.words.Text(cot.Outcome, p), Image: picture, Tokens: tokens[i]}
	}
	verdicts, err := j.judge.Ask(ctx, asked)
	if err != nil {
		return nil, err
	}
	rewards := make([]float64, len(verdicts))
	for i, v := range verdicts {
		rewards[i] = 1 / (1 + math.Exp(v.LogPNo-v.LogPYes))
	}
	return rewards, nil
}

// verdicts scores by the benchmark's rules: 1 or 0. It is watched, never trained on.
type verdicts struct {
	images   *magvit.Tokenizer
	evaluate curate.Evaluate
}

// Score implements Reward.
func (v verdicts) Score(ctx context.Context, prompts []geneval.Metadata, tokens [][]int32) ([]float64, error) {
	pictures, err := v.images.Decode(ctx, tokens)
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(pictures))
	for i, picture := range pictures {
		r, err := v.evaluate(ctx, picture, prompts[i])
		if err != nil {
			return nil, err
		}
		if r.Correct {
			out[i] = 1
		}
	}
	return out, nil
}
