package openai

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/failsafe-go/failsafe-go"
	sdk "github.com/openai/openai-go/v3"

	"imagecot/cot"
)

// Limits of a reason. Whatever is longer is no concise annotation of what is wrong with an image.
const (
	reasonTokens = 128
	reasonWords  = 60
)

var errNonsense = errors.New("the answer is no reason")

var _ cot.Explainer = (*Judge)(nil)

// Explain implements cot.Explainer: one request, the likeliest words. An empty answer, one without words, one that is cut off
// or a bare yes or no is asked for again like a refusal.
func (j *Judge) Explain(ctx context.Context, q cot.Question) (string, error) {
	messages, err := conversation(q)
	if err != nil {
		return "", err
	}
	reason, err := failsafe.With(j.again).WithContext(ctx).GetWithExecution(func(e failsafe.Execution[string]) (string, error) {
		answer, err := j.send(e.Context(), sdk.ChatCompletionNewParams{
			Model: j.options.Model, Messages: messages, MaxTokens: sdk.Int(reasonTokens), Temperature: sdk.Float(0),
		})
		if err != nil {
			return "", err
		}
		return reasonOf(answer)
	})
	if err != nil {
		return "", fmt.Errorf("openai: %s: %s question about path %d, step %d: %w", j.name, q.Kind, q.Path, q.Step, err)
	}
	return reason, nil
}

// reasonOf reads a reason on one line.
func reasonOf(answer *sdk.ChatCompletion) (string, error) {
	if len(answer.Choices) == 0 {
		return "", fmt.Errorf("%w: it holds no choice", errNonsense)
	}
	c := answer.Choices[0]
	words := strings.Fields(strings.ToValidUTF8(c.Message.Content, "?"))
	text := strings.Join(words, " ")
	bare := strings.ToLower(strings.Trim(text, " .!,\"'"))
	switch {
	case c.FinishReason == "length" || len(words) > reasonWords:
		return "", fmt.Errorf("%w: it does not end after %d words", errNonsense, len(words))
	case !strings.ContainsFunc(text, unicode.IsLetter) || bare == "yes" || bare == "no":
		return "", fmt.Errorf("%w: %q", errNonsense, shorten(text))
	}
	return text, nil
}
