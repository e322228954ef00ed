package fetch

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// errNoRanges says that the server sends whole files only.
var errNoRanges = errors.New("the server sends no parts of files")

// doneFile lists, beside a part that several connections write, the segments that are complete: one number a line, after
// the size of a segment.
func doneFile(part string) string { return part + ".segments" }

// parallel completes part over several connections. Each takes one segment at a time; what a cut leaves of a segment
// is asked for again.
func (g *Getter) parallel(ctx context.Context, f File, part string, progress Progress) (resumed bool, err error) {
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	done, log, err := g.openSegments(f, part, out)
	if err != nil {
		return false, err
	}
	defer log.Close()
	resumed = len(done) > 0
	var received atomic.Int64
	for i := range done {
		from, to := g.bounds(f, i)
		received.Add(to - from)
	}
	progress(received.Load(), f.Size)
	var lock sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(g.Connections)
	for i := int64(0); i*g.Segment < f.Size; i++ {
		if done[i] {
			continue
		}
		group.Go(func() error {
			from, to := g.bounds(f, i)
			if err := g.segment(ctx, f, out, from, to, func(n int64) { progress(received.Add(n), f.Size) }); err != nil {
				return err
			}
			if err := out.Sync(); err != nil { // before the line that says so
				return err
			}
			lock.Lock()
			defer lock.Unlock()
			_, err := fmt.Fprintln(log, i)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		if errors.Is(err, errNoRanges) {
			return false, errors.Join(err, os.Remove(doneFile(part)), out.Truncate(0))
		}
		return resumed, err
	}
	return resumed, os.Remove(doneFile(part))
}

func (g *Getter) bounds(f File, i int64) (from, to int64) {
	return i * g.Segment, min((i+1)*g.Segment, f.Size)
}

// openSegments reads which segments are there and opens the list to go on. A list that does not suit starts anew.
func (g *Getter) openSegments(f File, part string, out *os.File) (done map[int64]bool, log *os.File, err error) {
	done = map[int64]bool{}
	head := fmt.Sprintf("%d %d\n", g.Segment, f.Size)
	text, err := os.ReadFile(doneFile(part))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	info, err := out.Stat()
	if err != nil {
		return nil, nil, err
	}
	mode := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if rest, ok := bytes.CutPrefix(text, []byte(head)); ok && info.Size() == f.Size {
		mode = os.O_WRONLY | os.O_APPEND
		for line := range strings.Lines(string(rest)) { // a last line that was cut has no end
			if i, err := strconv.ParseInt(strings.TrimSuffix(line, "\n"), 10, 64); err == nil && strings.HasSuffix(line, "\n") && i >= 0 && i*g.Segment < f.Size {
				done[i] = true
			}
		}
	}
	if log, err = os.OpenFile(doneFile(part), mode, 0o644); err != nil {
		return nil, nil, err
	}
	if mode&os.O_TRUNC != 0 {
		if _, err := log.WriteString(head); err != nil {
			return nil, nil, errors.Join(err, log.Close())
		}
		err = errors.Join(out.Truncate(0), out.Truncate(f.Size))
	} else if len(text) > 0 && text[len(text)-1] != '\n' {
		_, err = log.WriteString("\n")
	}
	return done, log, err
}

// segment brings the bytes from from to to.
func (g *Getter) segment(ctx context.Context, f File, out *os.File, from, to int64, received func(n int64)) error {
	return g.persist(ctx, func() (bool, error) {
		resp, watch, err := g.request(ctx, f, from, to)
		defer watch.Stop()
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return false, final{errNoRanges}
		}
		start, all, err := contentRange(resp)
		if err != nil || start != from || all != 0 && all != f.Size {
			return false, final{fmt.Errorf("asked for bytes %d to %d of %d, got %q", from, to, f.Size, resp.Header.Get("Content-Range"))}
		}
		seen := int64(0)
		n, err := copyAt(ctx, out, from, io.LimitReader(resp.Body, to-from), func(n int64) {
			watch.Reset(g.Silence)
			received(n - seen)
			seen = n
		})
		from += n
		if err == nil && from < to {
			err = io.ErrUnexpectedEOF
		}
		return n > 0, err
	}, func() int64 { return from })
}

// HashFile is the hash of a file's content in hexadecimal: SHA-256 for 64 digits, for 40 the SHA-1 that git gives a blob.
func HashFile(path string, digits int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if digits == 40 {
		info, err := f.Stat()
		if err != nil {
			return "", err
		}
		h = sha1.New()
		fmt.Fprintf(h, "blob %d\x00", info.Size())
	}
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("hash %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
