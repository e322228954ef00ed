package openai

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imagecot/cot"
)

// request is what the fake server understands of a request.
type request struct {
	Model       string  `json:"model"`
	MaxTokens   int     `json:"max_tokens"`
	Logprobs    bool    `json:"logprobs"`
	TopLogprobs int     `json:"top_logprobs"`
	Temperature float64 `json:"temperature"`
	Messages    []struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
}

// answer makes a server's answer from pairs of token and log-probability.
func answer(pairs ...any) string {
	var top []map[string]any
	for i := 0; i < len(pairs); i += 2 {
		top = append(top, map[string]any{"token": pairs[i], "logprob": pairs[i+1], "bytes": nil})
	}
	text, err := json.Marshal(map[string]any{
		"id": "1", "object": "chat.completion",
		"choices": []any{map[string]any{"index": 0, "message": map[string]any{"role": "assistant", "content": "maybe"}, "logprobs": map[string]any{
			"content": []any{map[string]any{"token": "maybe", "logprob": -9, "top_logprobs": top}},
		}}},
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// serve starts a fake server and opens a judge for it that does not dawdle.
func serve(t *testing.T, o Options, handle http.HandlerFunc) *Judge {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	o.BaseURL, o.Model = server.URL+"/v1", "fake"
	if o.Backoff == 0 {
		o.Backoff = time.Millisecond
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	j, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func question(path int) cot.Question {
	picture := image.NewRGBA(image.Rect(0, 0, 3, 2))
	picture.Set(1, 1, color.RGBA{200, 10, 30, 255})
	return cot.Question{Kind: cot.Outcome, Text: fmt.Sprintf("good %d?", path), Image: picture, Path: path, Step: 18}
}

func TestOneQuestionIsOneRequestWithImageAndTurns(t *testing.T) {
	var got request
	var path, auth string
	j := serve(t, Options{Key: "secret"}, func(w http.ResponseWriter, r *http.Request) {
		path, auth = r.URL.Path, r.Header.Get("Authorization")
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, answer("yes", math.Log(.4), " Yes", math.Log(.2), "no", math.Log(.1), " No", math.Log(.05), "perhaps", -3.))
	})
	q := question(0)
	q.After = []cot.Turn{{Text: "clear?", Answer: "yes"}}
	verdicts, err := j.Ask(context.Background(), []cot.Question{q})
	if err != nil {
		t.Fatal(err)
	}
	if v := verdicts[0]; math.Abs(v.LogPYes-math.Log(.6)) > 1e-9 || math.Abs(v.LogPNo-math.Log(.15)) > 1e-9 {
		t.Errorf("verdict %+v: spellings are not summed", v)
	}
	if path != "/v1/chat/completions" || auth != "Bearer secret" {
		t.Errorf("path %s, authorization %q", path, auth)
	}
	if got.Model != "fake" || got.MaxTokens != 1 || !got.Logprobs || got.TopLogprobs != 20 || got.Temperature != 1 {
		t.Errorf("request %+v", got)
	}
	if len(got.Messages) != 3 || got.Messages[1].Role != "assistant" || string(got.Messages[1].Content) != `"yes"` || string(got.Messages[2].Content) != `"good 0?"` {
		t.Fatalf("turns: %+v", got.Messages)
	}
	var parts []struct {
		Type     string `json:"type"`
		Text     string `json:"text"`
		ImageURL struct {
			URL string `json:"url"`
		} `json:"image_url"`
	}
	if err := json.Unmarshal(got.Messages[0].Content, &parts); err != nil || len(parts) != 2 || parts[1].Text != "clear?" {
		t.Fatalf("first turn %s: %v", got.Messages[0].Content, err)
	}
	data, ok := strings.CutPrefix(parts[0].ImageURL.URL, "data:image/png;base64,")
	picture, err := png.Decode(base64.NewDecoder(base64.StdEncoding, strings.NewReader(data)))
	if !ok || err != nil || picture.Bounds().Dx() != 3 || color.RGBAModel.Convert(picture.At(1, 1)) != (color.RGBA{200, 10, 30, 255}) {
		t.Errorf("the image did not arrive: %v", err)
	}
}

func TestNoKeyNoHeader(t *testing.T) {
	t.Setenv(OpenAIKeyEnv, "from the environment")
	j := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if h, ok := r.Header["Authorization"]; ok {
			t.Errorf("sent %v", h)
		}
		fmt.Fprint(w, answer("yes", -1., "no", -1.))
	})
	if _, err := j.Ask(context.Background(), []cot.Question{question(0)}); err != nil {
		t.Fatal(err)
	}
}

func TestVerdictWithOneWordMissing(t *testing.T) {
	for name, c := range map[string]struct {
		answer  string
		yes, no float64
	}{
		"least listed bounds": {answer("yes", math.Log(.5), "the", math.Log(.1)), math.Log(.5), math.Log(.1)},
		"rest bounds":         {answer("no", math.Log(.6), "the", math.Log(.39)), math.Log(.01), math.Log(.6)},
		"nothing left":        {answer("yes", 0., "the", -50.), 0, -50},
		"very unlikely":       {answer("yes", 0., "no", -9999.), 0, -9999},
	} {
		j := serve(t, Options{}, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.answer) })
		v, err := j.Ask(context.Background(), []cot.Question{question(0)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if math.Abs(v[0].LogPYes-c.yes) > 1e-6 || math.Abs(v[0].LogPNo-c.no) > 1e-6 {
			t.Errorf("%s: %+v, want %v, %v", name, v[0], c.yes, c.no)
		}
	}
}

// Each fault gives one line that names the cause, after as many requests as make sense.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		status   int
		body     string
		want     string
		requests int32
	}{
		"bad JSON":      {200, `{"choices": [}`, "JSON", 1},
		"not JSON":      {200, "<html>hello</html>", "json", 1},
		"cut":           {200, `{"choices": [`, "unexpected EOF", 3},
		"no choice":     {200, `{"choices": []}`, "no choice", 1},
		"no logprobs":   {200, `{"choices": [{"message": {"content": "yes"}}]}`, "logprobs", 1},
		"null logprobs": {200, `{"choices": [{"message": {"content": "yes"}, "logprobs": null}]}`, "logprobs", 1},
		"no top":        {200, `{"choices": [{"logprobs": {"content": [{"token": "yes", "logprob": -0.1}]}}]}`, "logprobs", 1},
		"nonsense":      {200, answer("The", -0.1, "I", -3.), `"The"`, 1},
		"impossible":    {200, answer("yes", 7.), "log-probability 7", 1},
		"huge":          {200, `{"x": "` + strings.Repeat("y", maxAnswer) + `"}`, "too large", 1},
		"key":           {401, `{"error": {"message": "bad\nkey"}}`, "status 401 Unauthorized: bad key (set IMAGECOT_JUDGE_API_KEY)", 1},
		"model":         {404, `{"error": {"message": "no model fake"}}`, "no model fake", 1},
		"always 500":    {500, "<html>\n oops </html>", "status 500 Internal Server Error: <html> oops </html>", 3},
	} {
		var requests atomic.Int32
		j := serve(t, Options{Retries: 2}, func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		_, err := j.Ask(context.Background(), []cot.Question{question(7)})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		text := err.Error()
		if !strings.Contains(strings.ToLower(text), strings.ToLower(c.want)) || strings.Contains(text, "\n") || len(text) > 600 {
			t.Errorf("%s: %q, want one line that says %q", name, text, c.want)
		}
		if !strings.HasPrefix(text, "openai: fake at 127.0.0.1:") || !strings.Contains(text, "outcome question about path 7, step 18") {
			t.Errorf("%s: %q does not say who was asked what", name, text)
		}
		if got := requests.Load(); got != c.requests {
			t.Errorf("%s: %d requests, want %d", name, got, c.requests)
		}
	}
	j := serve(t, Options{}, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"choices": [{}]}`) })
	if _, err := j.Ask(context.Background(), []cot.Question{question(0)}); !errors.Is(err, ErrNoLogprobs) {
		t.Errorf("%v is not ErrNoLogprobs", err)
	}
}

func TestBusyServerIsAskedAgainWhenItSaysSo(t *testing.T) {
	var times []time.Time
	j := serve(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		times = append(times, time.Now())
		switch len(times) {
		case 1:
			w.Header().Set("Retry-After", "0.3")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			fmt.Fprint(w, answer("yes", -1., "no", -1.))
		}
	})
	if _, err := j.Ask(context.Background(), []cot.Question{question(0)}); err != nil {
		t.Fatal(err)
	}
	if len(times) != 3 {
		t.Fatalf("%d requests, want 3", len(times))
	}
	if wait := times[1].Sub(times[0]); wait < 300*time.Millisecond {
		t.Errorf("asked again after %v, Retry-After was 0.3 s", wait)
	}
	if wait := times[2].Sub(times[1]); wait > 250*time.Millisecond {
		t.Errorf("a back-off of %v without Retry-After", wait)
	}
}

func TestLongRetryAfterIsNotWaitedFor(t *testing.T) {
	j := serve(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	_, err := j.Ask(context.Background(), []cot.Question{question(0)})
	var status *StatusError
	if !errors.As(err, &status) || status.Code != 429 || !strings.Contains(err.Error(), "1h0m0s") {
		t.Errorf("%v", err)
	}
}

func TestTimeOutIsTriedAgain(t *testing.T) {
	var requests atomic.Int32
	j := serve(t, Options{Timeout: 100 * time.Millisecond, Retries: 1}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if requests.Add(1)%2 == 1 {
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, answer("yes", -1., "no", -1.))
	})
	if _, err := j.Ask(context.Background(), []cot.Question{question(0)}); err != nil {
		t.Fatal(err)
	}
	j = serve(t, Options{Timeout: 30 * time.Millisecond, Retries: -1}, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	if _, err := j.Ask(context.Background(), []cot.Question{question(0)}); err == nil || !strings.Contains(err.Error(), "30ms") {
		t.Errorf("%v, want the time-out of 30ms", err)
	}
}

func TestCancelledContextEndsAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	j := serve(t, Options{Backoff: time.Minute}, func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	begun := time.Now()
	_, err := j.Ask(ctx, []cot.Question{question(0)})
	if !errors.Is(err, context.Canceled) || time.Since(begun) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

func TestQuestionsRunTogetherWithinTheLimitAndKeepTheirOrder(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	j := serve(t, Options{Workers: 3}, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		var got request
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &got); err != nil {
			t.Error(err)
		}
		number := 0
		text := string(got.Messages[0].Content)
		if _, err := fmt.Sscanf(text[strings.Index(text, "good "):], "good %d?", &number); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Duration(20-number) * time.Millisecond)
		mu.Lock()
		running--
		mu.Unlock()
		fmt.Fprint(w, answer("yes", -float64(number+1), "no", -1.))
	})
	var qs []cot.Question
	for i := range 12 {
		qs = append(qs, question(i))
	}
	verdicts, err := j.Ask(context.Background(), qs)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range verdicts {
		if math.Abs(v.LogPYes+float64(i+1)) > 1e-9 {
			t.Errorf("verdict %d belongs to question %v", i, -v.LogPYes-1)
		}
	}
	if most != 3 {
		t.Errorf("%d questions under way at the same time, want 3", most)
	}
}

func TestEndpoints(t *testing.T) {
	t.Setenv(KeyEnv, "")
	t.Setenv(OpenAIKeyEnv, "")
	o, err := ParseSpec("org/model@v2@https://host.example/v1")
	if err != nil || o.Model != "org/model@v2" || o.BaseURL != "https://host.example/v1" || o.Key != "" {
		t.Errorf("%+v, %v", o, err)
	}
	t.Setenv(OpenAIKeyEnv, "second")
	if o, err = ParseSpec("m@http://localhost:1/v1"); err != nil || o.Key != "second" {
		t.Errorf("%+v, %v", o, err)
	}
	t.Setenv(KeyEnv, "first")
	if o, err = ParseSpec("m@http://localhost:1/v1"); err != nil || o.Key != "first" {
		t.Errorf("%+v, %v", o, err)
	}
	for spec, want := range map[string]string{
		"model":                        "MODEL@URL",
		"@http://localhost/v1":         "no model",
		"m@http://":                    "http://HOST/v1",
		"m@https://user:hush@host/v1":  "must not hold",
		"m@https://host/v1?key=hush":   "must not hold",
		"m@http://[::1":                "no valid URL",
		"m@httpx://user:hush@h.de/hus": "http://HOST/v1",
	} {
		if _, err := ParseSpec(spec); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("ParseSpec(%q): %v, want %s", spec, err, want)
		}
	}
	if _, err := New(Options{BaseURL: "http://10.0.0.7:8000/v1", Model: "m", Key: "hush"}); err == nil || !strings.Contains(err.Error(), "unencrypted") {
		t.Errorf("a key over http to another machine: %v", err)
	}
	if _, err := New(Options{BaseURL: "http://10.0.0.7:8000/v1", Model: "m"}); err != nil {
		t.Errorf("no key over http: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	j, err := New(Options{BaseURL: server.URL + "/v1", Model: "m", Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Ask(context.Background(), []cot.Question{question(0)}); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v", err)
	}
	q := question(0)
	q.Image = nil
	if _, err := j.Ask(context.Background(), []cot.Question{q}); err == nil || !strings.Contains(err.Error(), "no image") {
		t.Errorf("%v", err)
	}
}

// Errors of the endpoint can be told from errors of the question.
func TestErrorsOfTheEndpoint(t *testing.T) {
	once := Options{Retries: -1}
	for name, handle := range map[string]http.HandlerFunc{
		"busy": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"page": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html><body>welcome</body></html>") },
		"away": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		if _, err := serve(t, once, handle).Ask(t.Context(), []cot.Question{question(0)}); !errors.Is(err, ErrEndpoint) {
			t.Errorf("%s: %v", name, err)
		}
	}
	q := question(0)
	q.Image = nil
	j := serve(t, once, func(http.ResponseWriter, *http.Request) {})
	if _, err := j.Ask(t.Context(), []cot.Question{q}); err == nil || errors.Is(err, ErrEndpoint) {
		t.Errorf("no image: %v", err)
	}
}
