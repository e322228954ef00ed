package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imagecot/cot"
)

// said is a server's answer in words.
func said(text, finish string) string {
	content, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"id":"1","object":"chat.completion","choices":[{"index":0,"finish_reason":%q,"message":{"role":"assistant","content":%s}}]}`, finish, content)
}

func why() cot.Question {
	return cot.Question{
		Kind: cot.Reason, Text: "what is wrong?", After: []cot.Turn{{Text: "does it show a dog?", Answer: "no"}},
		Image: image.NewGray(image.Rect(0, 0, 2, 2)), Path: 3, Step: 18,
	}
}

func TestExplainAsksInWords(t *testing.T) {
	j := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		var got request
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		if got.Logprobs || got.MaxTokens != reasonTokens || got.Temperature != 0 || len(got.Messages) != 3 || got.Messages[1].Role != "assistant" {
			t.Errorf("request %+v", got)
		}
		fmt.Fprint(w, said("  The dog\nis a cat. ", "stop"))
	})
	reason, err := j.Explain(t.Context(), why())
	if err != nil || reason != "The dog is a cat." {
		t.Errorf("%q, %v", reason, err)
	}
	q := why()
	q.Image = nil
	if _, err := j.Explain(t.Context(), q); err == nil || !strings.Contains(err.Error(), "no image") {
		t.Errorf("error %v", err)
	}
}

// Nonsense and rate limits are asked for again; what stays nonsense is an error that tells so.
func TestExplainRepeats(t *testing.T) {
	var n atomic.Int32
	j := serve(t, Options{Retries: 5, Backoff: time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) {
		case 1:
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			fmt.Fprint(w, said("", "stop"))
		case 3:
			fmt.Fprint(w, said("No.", "stop"))
		case 4:
			fmt.Fprint(w, said("the dog is", "length"))
		default:
			fmt.Fprint(w, said("the dog is missing", "stop"))
		}
	})
	if reason, err := j.Explain(t.Context(), why()); err != nil || reason != "the dog is missing" || n.Load() != 5 {
		t.Errorf("%q after %d requests, %v", reason, n.Load(), err)
	}
	n.Store(0)
	j = serve(t, Options{Retries: 2, Backoff: time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		fmt.Fprint(w, said("?!?", "stop"))
	})
	if _, err := j.Explain(t.Context(), why()); !errors.Is(err, errNonsense) || !Transient(err) || n.Load() != 3 {
		t.Errorf("after %d requests: %v", n.Load(), err)
	}
	n.Store(0)
	j = serve(t, Options{Retries: 2, Backoff: time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
	})
	if _, err := j.Explain(t.Context(), why()); err == nil || Transient(err) || n.Load() != 1 {
		t.Errorf("after %d requests: %v", n.Load(), err)
	}
}
