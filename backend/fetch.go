package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"
)

// suits reports whether a wheel's platform tag (for example manylinux_2_27_x86_64) names this machine.
func suits(tag string) bool {
	cpu := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	return runtime.GOOS == "linux" && cpu != "" && strings.Contains(tag, "manylinux") && strings.HasSuffix(tag, cpu)
}

// attempts of one download that is cut again and again without a byte of progress, the pause after the first, and how
// long a connection may be silent.
var (
	attempts  = 5
	firstWait = 500 * time.Millisecond
	silence   = 60 * time.Second
)

var errSilent = errors.New("the server has gone silent")

// errFinal marks a failure that another attempt cannot mend.
type errFinal struct{ error }

// fetch brings the wheel to the file part, going on where an earlier call stopped, and checks its hash. A file of the
// wrong hash is removed; if some of it came from an earlier call, it is fetched once more from the start.
func (x *index) fetch(ctx context.Context, w wheel, part string, progress Progress) error {
	for fresh := false; ; fresh = true {
		resumed, err := x.download(ctx, w, part, progress)
		if err != nil {
			return err
		}
		got, err := hashFile(part)
		if err != nil {
			return err
		}
		if got == w.sha256 {
			return nil
		}
		if err := os.Remove(part); err != nil {
			return fmt.Errorf("backend: %w", err)
		}
		if fresh || !resumed {
			return fmt.Errorf("backend: %s has sha256 %s, want %s: refused and removed", w.name, got, w.sha256)
		}
	}
}

// download completes part. resumed says whether bytes of an earlier call are in it.
func (x *index) download(ctx context.Context, w wheel, part string, progress Progress) (resumed bool, err error) {
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return false, fmt.Errorf("backend: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, fmt.Errorf("backend: %w", err)
	}
	resumed = size > 0
	wait := firstWait
	for failures := 0; ; {
		before := size
		var done bool
		done, size, err = x.piece(ctx, w, f, size, progress)
		if err == nil && done {
			return resumed, f.Sync()
		}
		if ctx.Err() != nil {
			return resumed, fmt.Errorf("backend: download %s: stopped at byte %d: %w (run it again to go on)", w.name, size, ctx.Err())
		}
		if final := (errFinal{}); errors.As(err, &final) {
			return resumed, fmt.Errorf("backend: download %s: %w", w.name, final.error)
		}
		if size > before {
			failures, wait = 0, firstWait
		}
		if failures++; failures >= attempts {
			return resumed, fmt.Errorf("backend: download %s: stopped at byte %d, %d attempts in a row brought nothing: %w (run it again to go on)", w.name, size, failures, plain(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// piece asks for what is missing after byte from and appends it. It returns whether the file is complete, and its size.
func (x *index) piece(ctx context.Context, w wheel, f *os.File, from int64, progress Progress) (done bool, size int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url.String(), nil)
	if err != nil {
		return false, from, errFinal{err}
	}
	if w.url.Host == x.base.Host && w.url.User == nil {
		req.URL.User = x.base.User
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := x.client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return false, from, err
	}
	defer resp.Body.Close()
	total := w.size
	switch resp.StatusCode {
	case http.StatusOK:
		from = 0 // the server sends all of it again
		if resp.ContentLength >= 0 {
			total = resp.ContentLength
		}
	case http.StatusPartialContent:
		var start, end, all int64
		if n, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &start, &end, &all); n < 2 || start != from {
			return false, from, errFinal{fmt.Errorf("asked for bytes from %d, got %q: %v", from, resp.Header.Get("Content-Range"), err)}
		}
		if all > 0 {
			total = all
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return true, from, nil // nothing is missing, or the hash will tell
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false, from, errors.New(resp.Status)
	default:
		err := errors.New(resp.Status)
		if resp.StatusCode < 500 {
			err = errFinal{err}
		}
		return false, from, err
	}
	if w.size > 0 && total != w.size || total > maxLibrary {
		return false, from, errFinal{fmt.Errorf("the server announces %d bytes, the index %d", total, w.size)}
	}
	return receive(ctx, f, from, total, resp.Body, func(done int64) {
		watch.Reset(silence)
		progress("download", done, total)
	})
}

// receive writes the body from byte from on. total is 0 if unknown: then the body's end is the file's.
func receive(ctx context.Context, f *os.File, from, total int64, body io.Reader, report func(done int64)) (bool, int64, error) {
	if err := f.Truncate(from); err != nil {
		return false, from, errFinal{err}
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return false, from, errFinal{err}
	}
	limit := int64(maxLibrary)
	if total > 0 {
		limit = total
	}
	m := &meter{ctx: ctx, r: io.LimitReader(body, limit-from+1), report: func(n int64) { report(from + n) }}
	n, err := io.Copy(f, m)
	size := from + n
	var disk *os.PathError
	switch {
	case errors.As(err, &disk):
		return false, size, errFinal{err}
	case err != nil:
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return false, size, err
	case size > limit:
		return false, size, errFinal{fmt.Errorf("more than the %d bytes that were announced", limit)}
	case total > 0 && size < total:
		return false, size, io.ErrUnexpectedEOF
	}
	return true, size, nil
}
