// Package fetch brings one file over HTTP to disk. A transfer that is cut goes on where it stopped, in this call or a later
// one; large files come over several connections; size and hash are checked, and a file of the wrong hash is removed. It
// knows no package index and no model hub.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// File is what is wanted.
type File struct {
	Name   string // for messages
	URL    *url.URL
	Header http.Header // for the URL's own host; net/http keeps credentials from other hosts that it redirects to
	Hash   string      // hexadecimal: SHA-256, or the SHA-1 of a git blob; "" if unknown
	Size   int64       // bytes; 0 if unknown
}

// Getter says how files are brought. Its zero value is no use: see New.
type Getter struct {
	Client      *http.Client
	Attempts    int           // in a row that bring nothing
	FirstWait   time.Duration // after the first of them; it doubles
	Silence     time.Duration // the longest that a connection may bring nothing
	Most        int64         // bytes of a file
	Connections int           // of one file
	Segment     int64         // bytes that one connection takes at a time; files up to twice that take one connection
}

// New is a getter with one connection a file and the usual patience.
func New(client *http.Client) *Getter {
	return &Getter{Client: client, Attempts: 5, FirstWait: 500 * time.Millisecond, Silence: time.Minute, Most: 1 << 40, Connections: 1, Segment: 64 << 20}
}

// Progress is told how much of a file is there; total is 0 if unknown. It may be called from several goroutines.
type Progress func(done, total int64)

var errSilent = errors.New("the server has gone silent")

// final marks a failure that another attempt cannot mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// StatusError is an answer other than the file.
type StatusError struct {
	Code   int
	Status string
}

func (e *StatusError) Error() string { return e.Status }

// ErrHash says that a file arrived whole and is not what it should be.
var ErrHash = errors.New("wrong hash")

// Get brings a file to part, going on where an earlier call stopped, and checks its hash. A file of the wrong hash is
// removed; if some of it came from an earlier call, it is fetched once more from the start. part belongs to this call:
// the caller sees to it that there is no other, and moves it to its place.
func (g *Getter) Get(ctx context.Context, f File, part string, progress Progress) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	for fresh := false; ; fresh = true {
		resumed, err := g.download(ctx, f, part, progress)
		if err != nil {
			return fmt.Errorf("download %s: %w", f.Name, err)
		}
		if f.Hash == "" {
			return nil
		}
		got, err := HashFile(part, len(f.Hash))
		if err != nil {
			return err
		}
		if got == f.Hash {
			return nil
		}
		if err := os.Remove(part); err != nil {
			return err
		}
		if fresh || !resumed {
			return fmt.Errorf("%w: %s has %s, want %s: refused and removed", ErrHash, f.Name, got, f.Hash)
		}
	}
}

// download completes part. resumed says whether bytes of an earlier call are in it.
func (g *Getter) download(ctx context.Context, f File, part string, progress Progress) (resumed bool, err error) {
	if g.Connections > 1 && f.Size > 2*g.Segment {
		resumed, err = g.parallel(ctx, f, part, progress)
		if !errors.Is(err, errNoRanges) {
			return resumed, err
		}
	}
	return g.stream(ctx, f, part, progress)
}

// stream fetches over one connection at a time and appends.
func (g *Getter) stream(ctx context.Context, f File, part string, progress Progress) (resumed bool, err error) {
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	resumed = size > 0
	err = g.persist(ctx, func() (bool, error) {
		before := size
		var err error
		size, err = g.tail(ctx, f, out, size, progress)
		return size > before, err
	}, func() int64 { return size })
	if err != nil {
		return resumed, err
	}
	return resumed, out.Sync()
}

// persist calls try until it succeeds, fails for good, or fails too often without moving on.
func (g *Getter) persist(ctx context.Context, try func() (moved bool, err error), at func() int64) error {
	wait := g.FirstWait
	for failures := 0; ; {
		moved, err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stopped at byte %d: %w (run it again to go on)", at(), ctx.Err())
		}
		if f := (final{}); errors.As(err, &f) {
			return f.error
		}
		if moved {
			failures, wait = 0, g.FirstWait
		}
		if failures++; failures >= g.Attempts {
			return fmt.Errorf("stopped at byte %d, %d attempts in a row brought nothing: %w (run it again to go on)", at(), failures, Plain(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// request asks for the bytes from from on, up to to if that is not 0. watch must be reset whenever something comes.
func (g *Getter) request(ctx context.Context, f File, from, to int64) (resp *http.Response, watch *time.Timer, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watch = time.AfterFunc(g.Silence, func() { cancel(errSilent) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, watch, final{err}
	}
	for key, values := range f.Header {
		req.Header[key] = values
	}
	req.Header.Set("Accept-Encoding", "identity") // sizes and ranges are those of the file
	switch {
	case to > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	case from > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err = g.Client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, watch, err
	}
	resp.Body = &body{resp.Body, ctx, cancel}
	switch code := resp.StatusCode; {
	case code == http.StatusOK, code == http.StatusPartialContent, code == http.StatusRequestedRangeNotSatisfiable:
		return resp, watch, nil
	case code >= 500, code == http.StatusRequestTimeout, code == http.StatusTooManyRequests:
		err = &StatusError{code, resp.Status}
	default:
		err = final{&StatusError{code, resp.Status}}
	}
	resp.Body.Close()
	return nil, watch, err
}

// body tells a read error by its cause, and frees the context when it is closed.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *body) Close() error {
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// tail asks for what is missing after byte from and appends it. It returns the size of what is there.
func (g *Getter) tail(ctx context.Context, f File, out *os.File, from int64, progress Progress) (size int64, err error) {
	resp, watch, err := g.request(ctx, f, from, 0)
	defer watch.Stop()
	if err != nil {
		return from, err
	}
	defer resp.Body.Close()
	total := f.Size
	switch resp.StatusCode {
	case http.StatusOK:
		from = 0 // the server sends all of it again
		if resp.ContentLength >= 0 {
			total = resp.ContentLength
		}
	case http.StatusPartialContent:
		start, all, err := contentRange(resp)
		if err != nil || start != from {
			return from, final{fmt.Errorf("asked for bytes from %d, got %q: %v", from, resp.Header.Get("Content-Range"), err)}
		}
		if all > 0 {
			total = all
		}
	default:
		return from, nil // nothing is missing, or the hash will tell
	}
	if f.Size > 0 && total != f.Size || total > g.Most {
		return from, final{fmt.Errorf("the server announces %d bytes, want %d", total, f.Size)}
	}
	if err := out.Truncate(from); err != nil {
		return from, final{err}
	}
	limit := g.Most
	if total > 0 {
		limit = total
	}
	n, err := copyAt(ctx, out, from, io.LimitReader(resp.Body, limit-from+1), func(n int64) {
		watch.Reset(g.Silence)
		progress(from+n, total)
	})
	size = from + n
	switch {
	case err != nil:
		return size, err
	case size > limit:
		return size, final{fmt.Errorf("more than the %d bytes that were announced", limit)}
	case size < total:
		return size, io.ErrUnexpectedEOF
	}
	return size, nil
}

// contentRange reads "bytes START-END/TOTAL"; total is 0 for "*".
func contentRange(resp *http.Response) (start, total int64, err error) {
	var end int64
	if n, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &start, &end, &total); n < 2 {
		return 0, 0, err
	}
	return start, total, nil
}

// copyAt writes what r brings to out from byte at on. An error of the disk is final.
func copyAt(ctx context.Context, out io.WriterAt, at int64, r io.Reader, report func(done int64)) (done int64, err error) {
	buffer := make([]byte, 256<<10)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			if _, failed := out.WriteAt(buffer[:n], at+done); failed != nil {
				return done, final{failed}
			}
			done += int64(n)
			report(done)
		}
		switch {
		case errors.Is(err, io.EOF):
			return done, nil
		case err != nil:
			return done, err
		case ctx.Err() != nil:
			return done, ctx.Err()
		}
	}
}

// CheckRedirect follows at most 10 redirects, and none from https to http.
func CheckRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("more than 10 redirects")
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("redirect from https to " + req.URL.Scheme)
	}
	return nil
}

// Plain strips the address from an error of package http: it may hold a password or a signature.
func Plain(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// isHex says whether text is a hexadecimal number of that many digits.
func isHex(text string, digits int) bool {
	return len(text) == digits && strings.Trim(text, "0123456789abcdef") == ""
}

// KnownHash says whether Get can check a hash: SHA-256, or the SHA-1 of a git blob, in lower-case hexadecimal.
func KnownHash(text string) bool { return isHex(text, 64) || isHex(text, 40) }
