package experiment

import (
	"context"

	"imagecot/cot"
	"imagecot/geneval"
)

// oracle is a judge that knows the benchmark's own verdict. Best of N with it is the most that any choice among the N
// paths could reach; it is an upper bound, never a method.
type oracle struct {
	evaluate Evaluate
	metadata func(prompt string) (geneval.Metadata, error)
}

// sure is the logarithm of the probability that the oracle gives to a wrong answer; JSON has no infinity.
const sure = -100

// Ask evaluates each image by the metadata of its prompt, whatever the question.
func (o oracle) Ask(ctx context.Context, qs []cot.Question) ([]cot.Verdict, error) {
	out := make([]cot.Verdict, len(qs))
	for i, q := range qs {
		m, err := o.metadata(q.Prompt.Text)
		if err != nil {
			return nil, err
		}
		r, err := o.evaluate(ctx, q.Image, m)
		if err != nil {
			return nil, err
		}
		if out[i] = (cot.Verdict{LogPYes: sure}); r.Correct {
			out[i] = cot.Verdict{LogPNo: sure}
		}
	}
	return out, nil
}
