package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

const (
	maxAnswer  = 1 << 20          // bytes read of one answer
	maxMessage = 300              // characters quoted of a server's message
	maxWait    = 60 * time.Second // longest Retry-After that is waited for
)

// ErrEndpoint marks an error of the endpoint or of the way there: nothing answers, it refuses, or its answer is none of the protocol.
var ErrEndpoint = errors.New("endpoint")

var errTimeout = errors.New("no answer within the time-out")

// StatusError is a server's refusal.
type StatusError struct {
	Code    int           // HTTP status
	Message string        // what the server said, shortened to one line
	Wait    time.Duration // what its Retry-After asks for, 0 if it has none
}

// Error implements error and says what helps where that is clear.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("status %d %s", e.Code, http.StatusText(e.Code))
	if e.Message != "" {
		text += ": " + e.Message
	}
	switch {
	case e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden:
		text += " (set " + KeyEnv + ")"
	case e.Wait > maxWait:
		text += fmt.Sprintf(" (asks to wait %v)", e.Wait)
	}
	return text
}

// refusal reads a response whose status is not 200.
func refusal(res *http.Response) error {
	e := &StatusError{Code: res.StatusCode, Wait: retryAfter(res.Header.Get("Retry-After"), time.Now())}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return e // the status says enough
	}
	var told struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	e.Message = string(body)
	if json.Unmarshal(body, &told) == nil && told.Error.Message != "" {
		e.Message = told.Error.Message
	}
	e.Message = shorten(e.Message)
	return e
}

// retryAfter reads a Retry-After header: seconds or a date.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseFloat(header, 64); err == nil && seconds > 0 && seconds < 1e6 {
		return time.Duration(seconds * float64(time.Second))
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// retryPolicy waits as long as the server asks, else with doubling pauses.
func retryPolicy[R any](o Options) retrypolicy.RetryPolicy[R] {
	return retrypolicy.NewBuilder[R]().
		HandleIf(func(_ R, err error) bool { return retryable(err) }).
		WithMaxRetries(max(0, o.Retries)).
		WithBackoff(o.Backoff, 8*o.Backoff).
		WithDelayFunc(func(e failsafe.ExecutionAttempt[R]) time.Duration {
			var status *StatusError
			if errors.As(e.LastError(), &status) && status.Wait > 0 {
				return status.Wait
			}
			return -1 // the back-off's pause
		}).
		ReturnLastFailure().
		Build()
}

// retryable reports whether asking again at once may help.
func retryable(err error) bool {
	var status *StatusError
	return Transient(err) && !(errors.As(err, &status) && status.Wait > maxWait)
}

// Transient reports whether the same question may be answered another time: the endpoint was busy or silent, or what it said
// was no answer. Everything else is wrong with the question, the key or the address.
func Transient(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code == http.StatusRequestTimeout || status.Code == http.StatusTooManyRequests || status.Code >= 500
	}
	var network net.Error
	return errors.Is(err, errTimeout) || errors.Is(err, errNonsense) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF)
}

// oneLine keeps an error's identity, drops line breaks from its text and marks it as an ErrEndpoint.
func oneLine(err error) error { return &lineError{err} }

type lineError struct{ err error }

func (e *lineError) Error() string        { return shorten(e.err.Error()) }
func (e *lineError) Unwrap() error        { return e.err }
func (e *lineError) Is(target error) bool { return target == ErrEndpoint }

// shorten puts text on one line of at most maxMessage characters.
func shorten(text string) string {
	line := []rune(strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " "))
	if len(line) > maxMessage {
		return string(line[:maxMessage]) + "..."
	}
	return string(line)
}
