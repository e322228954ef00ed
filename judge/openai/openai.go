// Package openai asks the paper's yes/no questions (Sec. 2.2, 3.1; Appendix B) at any chat endpoint that speaks
// OpenAI's protocol, takes images and tells log-probabilities: vLLM, SGLang, llama.cpp's server, OpenAI itself.
//
// One question is one request: earlier turns of the conversation, the step image as a PNG data URL in the first turn,
// one token to be answered. The verdict is read from the 20 likeliest first tokens, summed over the spellings of yes and
// of no; the token that the server happened to sample is not looked at. The package knows no strategies and no models.
package openai

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"image/png"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"golang.org/x/sync/errgroup"

	"imagecot/cot"
)

// Options say whom to ask and how patiently.
type Options struct {
	BaseURL string        // such as http://localhost:8000/v1, without "/chat/completions"
	Model   string        // the model's name at the endpoint
	Key     string        // sent as bearer token; none if empty (see KeyFromEnv)
	Timeout time.Duration // of one attempt; 60 s if 0
	Retries int           // further attempts after a time-out, a broken connection, status 408, 429 or 5xx; 4 if 0, none if < 0
	Backoff time.Duration // before the first retry, doubled for each further one up to 8 times; 500 ms if 0
	Workers int           // questions under way at the same time; 4 if 0
}

// Names of the environment variables that hold the key; the first that is set is used.
const (
	KeyEnv       = "IMAGECOT_JUDGE_API_KEY"
	OpenAIKeyEnv = "OPENAI_API_KEY"
)

// ParseSpec reads MODEL@URL, the part of a judge's name after "openai:", and takes the key from the environment.
func ParseSpec(spec string) (Options, error) {
	at := strings.LastIndex(spec, "@http")
	if at < 0 {
		return Options{}, fmt.Errorf("openai: judge %q: want MODEL@URL, such as qwen2-vl@http://localhost:8000/v1", spec)
	}
	o := Options{Model: spec[:at], BaseURL: spec[at+1:]}
	if _, err := o.endpoint(); err != nil {
		return Options{}, err
	}
	o.Key = KeyFromEnv()
	return o, nil
}

// KeyFromEnv is the key in IMAGECOT_JUDGE_API_KEY, else the one in OPENAI_API_KEY, else "".
func KeyFromEnv() string {
	if key := os.Getenv(KeyEnv); key != "" {
		return key
	}
	return os.Getenv(OpenAIKeyEnv)
}

// endpoint checks the address. Keys do not belong into addresses (recipes and traces record them), and do not travel
// unencrypted to another machine.
func (o Options) endpoint() (*url.URL, error) {
	u, err := url.Parse(o.BaseURL)
	switch {
	case o.Model == "":
		return nil, errors.New("openai: no model named: want MODEL@URL")
	case err != nil:
		return nil, errors.New("openai: the endpoint is no valid URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("openai: endpoint %q: want http://HOST/v1 or https://HOST/v1", u.Redacted())
	case u.User != nil || u.RawQuery != "":
		return nil, fmt.Errorf("openai: the endpoint at %s must not hold a name, a key or a query: set %s instead", u.Host, KeyEnv)
	case o.Key != "" && u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("openai: not sending a key to %s over unencrypted http: use https, or unset %s and %s",
			u.Host, KeyEnv, OpenAIKeyEnv)
	}
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Judge is a remote judge. It is safe for concurrent use.
type Judge struct {
	options Options
	name    string // for errors: model and host
	client  sdk.Client
	retry   retrypolicy.RetryPolicy[cot.Verdict]
	again   retrypolicy.RetryPolicy[string] // the same for answers in words
}

// New checks the options and makes a judge of them. It does not connect.
func New(o Options) (*Judge, error) {
	u, err := o.endpoint()
	if err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = 60 * time.Second
	}
	if o.Retries == 0 {
		o.Retries = 4
	}
	if o.Backoff == 0 {
		o.Backoff = 500 * time.Millisecond
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	settings := []option.RequestOption{
		option.WithBaseURL(strings.TrimSuffix(u.String(), "/") + "/"),
		option.WithMaxRetries(0), // retries are ours: they cover time-outs too
		option.WithMiddleware(middleware),
		option.WithAPIKey(o.Key),
	}
	if o.Key == "" {
		settings = append(settings, option.WithHeaderDel("Authorization"))
	}
	return &Judge{
		options: o, name: o.Model + " at " + u.Host,
		client: sdk.Client{Chat: sdk.NewChatService(settings...)}, retry: retryPolicy[cot.Verdict](o), again: retryPolicy[string](o),
	}, nil
}

// Ask implements cot.Judge: one request a question, Workers at a time, verdicts in the order of the questions. The first
// failure ends the others.
func (j *Judge) Ask(ctx context.Context, qs []cot.Question) ([]cot.Verdict, error) {
	verdicts := make([]cot.Verdict, len(qs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(j.options.Workers)
	for i, q := range qs {
		group.Go(func() error {
			messages, err := conversation(q)
			if err != nil {
				return err
			}
			verdicts[i], err = failsafe.With(j.retry).WithContext(ctx).GetWithExecution(
				func(e failsafe.Execution[cot.Verdict]) (cot.Verdict, error) { return j.ask(e.Context(), messages) })
			if err != nil {
				return fmt.Errorf("openai: %s: %s question about path %d, step %d: %w", j.name, q.Kind, q.Path, q.Step, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return verdicts, nil
}

// ask is one attempt.
func (j *Judge) ask(ctx context.Context, messages []sdk.ChatCompletionMessageParamUnion) (cot.Verdict, error) {
	answer, err := j.send(ctx, sdk.ChatCompletionNewParams{
		Model:       j.options.Model,
		Messages:    messages,
		MaxTokens:   sdk.Int(1),
		Temperature: sdk.Float(1), // so that servers which report processed probabilities report the model's own
		Logprobs:    sdk.Bool(true),
		TopLogprobs: sdk.Int(topLogprobs),
	})
	if err != nil {
		return cot.Verdict{}, err
	}
	return verdict(answer)
}

// send is one request, given up after the time-out.
func (j *Judge) send(ctx context.Context, params sdk.ChatCompletionNewParams) (*sdk.ChatCompletion, error) {
	attempt, cancel := context.WithTimeout(ctx, j.options.Timeout)
	defer cancel()
	answer, err := j.client.Chat.Completions.New(attempt, params)
	switch {
	case err == nil:
		return answer, nil
	case attempt.Err() != nil && ctx.Err() == nil:
		return nil, oneLine(fmt.Errorf("%w of %v", errTimeout, j.options.Timeout))
	}
	return nil, oneLine(err)
}

// conversation is the question with its earlier turns; the image stands before the text of the first turn.
func conversation(q cot.Question) ([]sdk.ChatCompletionMessageParamUnion, error) {
	if q.Image == nil {
		return nil, fmt.Errorf("openai: %s question about path %d, step %d has no image", q.Kind, q.Path, q.Step)
	}
	var file bytes.Buffer
	if err := png.Encode(&file, q.Image); err != nil {
		return nil, fmt.Errorf("openai: step image of path %d, step %d: %w", q.Path, q.Step, err)
	}
	picture := sdk.ImageContentPart(sdk.ChatCompletionContentPartImageImageURLParam{
		URL: "data:image/png;base64," + base64.StdEncoding.EncodeToString(file.Bytes()),
	})
	first := func(text string) sdk.ChatCompletionMessageParamUnion {
		return sdk.UserMessage([]sdk.ChatCompletionContentPartUnionParam{picture, sdk.TextContentPart(text)})
	}
	if len(q.After) == 0 {
		return []sdk.ChatCompletionMessageParamUnion{first(q.Text)}, nil
	}
	var messages []sdk.ChatCompletionMessageParamUnion
	for i, turn := range q.After {
		if i == 0 {
			messages = append(messages, first(turn.Text))
		} else {
			messages = append(messages, sdk.UserMessage(turn.Text))
		}
		messages = append(messages, sdk.AssistantMessage(turn.Answer))
	}
	return append(messages, sdk.UserMessage(q.Text)), nil
}

// middleware turns refusals into errors of ours, with what the server said, and bounds what is read of an answer.
func middleware(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	res, err := next(r)
	if err != nil {
		return nil, err
	}
	res.Body = http.MaxBytesReader(nil, res.Body, maxAnswer)
	if res.StatusCode != http.StatusOK {
		err := refusal(res)
		_ = res.Body.Close()
		return nil, err
	}
	res.Header.Set("Content-Type", "application/json") // an answer that is no JSON shall be reported as such
	return res, nil
}
