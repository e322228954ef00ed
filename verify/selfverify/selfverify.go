// Package selfverify is an extension beyond the paper: best of N by the generator's own judgement. Show-o reads
// images as well as drawing them, so it is asked the ORM's question about its own final images, and no second model is
// needed. It reads the tokens that it has just written: no image is decoded to be judged. The package knows no models.
package selfverify

import (
	"context"

	"imagecot/cot"
	"imagecot/verify"
	"imagecot/verify/orm"
	"imagecot/verify/questions"
)

// Strategy is best of N by the outcome question, asked about tokens.
type Strategy struct {
	Judge     cot.Judge // reads Question.Tokens; Question.Image is nil
	Questions questions.Set
}

// Select implements cot.Strategy.
func (s Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g, Judge: s.Judge, Questions: s.Questions, Tokens: true}
	if err := run.Start(ctx, p, seeds); err != nil {
		return cot.Selection{}, err
	}
	if err := run.Finish(ctx, run.Paths); err != nil {
		return cot.Selection{}, err
	}
	best, reason, err := orm.Best(ctx, &run, run.Paths)
	if err != nil {
		return cot.Selection{}, err
	}
	return run.Select("self", best, len(run.Paths), reason), nil
}
