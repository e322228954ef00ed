package openai

import (
	"errors"
	"fmt"
	"math"
	"strings"

	sdk "github.com/openai/openai-go/v3"

	"imagecot/cot"
)

// topLogprobs is how many of the likeliest first tokens are asked for: the most that the protocol allows.
const topLogprobs = 20

// ErrNoLogprobs is returned where an endpoint answers without log-probabilities: nothing can be read from a sampled word.
var ErrNoLogprobs = errors.New("the endpoint sends no log-probabilities; use a server that supports logprobs and top_logprobs")

// verdict sums the probabilities of the spellings yes, Yes, " yes" and " Yes" among the likeliest first tokens, and the same
// for no. Where only one of the two is listed, the other gets the most that it can have: no more than the least likely
// listed token and no more than what all listed ones leave (Deviation D9).
func verdict(answer *sdk.ChatCompletion) (cot.Verdict, error) {
	if len(answer.Choices) == 0 {
		return cot.Verdict{}, errors.New("the answer holds no choice")
	}
	tokens := answer.Choices[0].Logprobs.Content
	if len(tokens) == 0 || len(tokens[0].TopLogprobs) == 0 {
		return cot.Verdict{}, ErrNoLogprobs
	}
	var yes, no, all float64
	least := 0.0
	var listed []string
	for _, t := range tokens[0].TopLogprobs {
		if math.IsNaN(t.Logprob) || t.Logprob > 1e-3 {
			return cot.Verdict{}, fmt.Errorf("token %q has the log-probability %v", t.Token, t.Logprob)
		}
		p := math.Exp(t.Logprob)
		switch t.Token {
		case "yes", "Yes", " yes", " Yes":
			yes += p
		case "no", "No", " no", " No":
			no += p
		}
		all += p
		least = min(least, t.Logprob)
		listed = append(listed, fmt.Sprintf("%q", t.Token))
	}
	if yes == 0 && no == 0 {
		return cot.Verdict{}, fmt.Errorf("neither yes nor no is among the likeliest first tokens %s",
			shorten(strings.Join(listed, " ")))
	}
	bound := least
	if rest := 1 - all; rest > 0 {
		bound = min(bound, math.Log(rest))
	}
	log := func(p float64) float64 {
		if p == 0 {
			return bound
		}
		return min(math.Log(p), 0)
	}
	return cot.Verdict{LogPYes: log(yes), LogPNo: log(no)}, nil
}
