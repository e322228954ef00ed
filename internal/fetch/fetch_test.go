package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// content is long enough for several segments.
func content() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 100_000)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func getter() *Getter {
	g := New(&http.Client{CheckRedirect: CheckRedirect})
	g.FirstWait, g.Connections, g.Segment = time.Millisecond, 4, 8_000
	return g
}

// serve answers requests for content through spoil, which is told the number of the request, and counts them.
func serve(t *testing.T, spoil func(w http.ResponseWriter, r *http.Request, n int32) bool) (*url.URL, *atomic.Int32) {
	t.Helper()
	data, n := content(), new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i := n.Add(1); spoil != nil && spoil(w, r, i) {
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL + "/file")
	if err != nil {
		t.Fatal(err)
	}
	return u, n
}

func wanted(u *url.URL) File {
	return File{Name: "file", URL: u, Hash: sum(content()), Size: int64(len(content()))}
}

func checkWhole(t *testing.T, part string) {
	t.Helper()
	if got, err := os.ReadFile(part); err != nil || !bytes.Equal(got, content()) {
		t.Errorf("%d bytes arrived, not the file (%v)", len(got), err)
	}
	if _, err := os.Stat(doneFile(part)); err == nil {
		t.Error("the list of segments is left")
	}
}

func TestParallelThroughFaults(t *testing.T) {
	var lock sync.Mutex
	cut := map[string]bool{}
	for _, test := range []struct {
		name  string
		spoil func(w http.ResponseWriter, r *http.Request, n int32) bool
		want  string // part of the error, empty for success
	}{
		{"all is well", nil, ""},
		{"every second answer is cut", func(w http.ResponseWriter, r *http.Request, n int32) bool {
			if n%2 == 0 {
				return false
			}
			var from, to int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(content())))
			w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content()[from : from+(to-from)/2+1])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, ""},
		{"busy at first", func(w http.ResponseWriter, r *http.Request, n int32) bool {
			if n < 5 {
				http.Error(w, "busy", http.StatusServiceUnavailable)
			}
			return n < 5
		}, ""},
		{"no ranges", func(w http.ResponseWriter, r *http.Request, n int32) bool { w.Write(content()); return true }, ""},
		{"one byte is wrong", func(w http.ResponseWriter, r *http.Request, n int32) bool {
			bad := content()
			bad[50_000] ^= 1
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bad))
			return true
		}, "wrong hash"},
		{"another part than was asked for", func(w http.ResponseWriter, r *http.Request, n int32) bool {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 1-2/%d", len(content())))
			w.WriteHeader(http.StatusPartialContent)
			return true
		}, "asked for bytes"},
		{"another size", func(w http.ResponseWriter, r *http.Request, n int32) bool {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content()[:90_000]))
			return true
		}, "of 100000"},
		{"redirected", func(w http.ResponseWriter, r *http.Request, n int32) bool {
			if r.URL.Path == "/file" {
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
			}
			return r.URL.Path == "/file"
		}, ""},
		{"closed", func(w http.ResponseWriter, r *http.Request, n int32) bool {
			http.Error(w, "no", http.StatusForbidden)
			return true
		}, "403"},
		{"each range silent once", func(w http.ResponseWriter, r *http.Request, n int32) bool {
			lock.Lock()
			again := cut[r.Header.Get("Range")]
			cut[r.Header.Get("Range")] = true
			lock.Unlock()
			if !again {
				<-r.Context().Done()
			}
			return !again
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			u, _ := serve(t, test.spoil)
			part := filepath.Join(t.TempDir(), "part")
			g := getter()
			if strings.Contains(test.name, "silent") {
				g.Silence = 50 * time.Millisecond
			}
			var most atomic.Int64
			err := g.Get(t.Context(), wanted(u), part, func(done, total int64) {
				for old := most.Load(); done > old && !most.CompareAndSwap(old, done); old = most.Load() {
				}
			})
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), u.Host) {
					t.Fatalf("error %v, want one with %q and without the address", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkWhole(t, part)
			if most.Load() != int64(len(content())) {
				t.Errorf("progress went to %d", most.Load())
			}
		})
	}
}

// A transfer that is stopped leaves its segments, and the next one asks for the others only.
func TestParallelGoesOn(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	u, n := serve(t, func(w http.ResponseWriter, r *http.Request, n int32) bool {
		if n == 7 {
			stop()
		}
		return false
	})
	part := filepath.Join(t.TempDir(), "part")
	g := getter()
	if err := g.Get(ctx, wanted(u), part, nil); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "run it again") {
		t.Fatalf("stopped: %v", err)
	}
	text, err := os.ReadFile(doneFile(part))
	if err != nil {
		t.Fatal(err)
	}
	kept := strings.Count(string(text), "\n") - 1
	if kept < 1 {
		t.Skip("stopped before the first segment was complete")
	}
	if err := os.WriteFile(doneFile(part), append(text, "1"...), 0o600); err != nil { // a line that was cut counts for nothing
		t.Fatal(err)
	}
	before := n.Load()
	if err := g.Get(t.Context(), wanted(u), part, nil); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, part)
	if got, want := int(n.Load()-before), 13-kept; got != want {
		t.Errorf("%d requests for %d missing segments", got, want)
	}
}

// What an earlier call left may be damaged: then all of it comes again, once.
func TestParallelDamagedParts(t *testing.T) {
	u, n := serve(t, nil)
	part := filepath.Join(t.TempDir(), "part")
	f := wanted(u)
	bad := content()
	bad[0] ^= 1
	lines := fmt.Sprintf("%d %d\n0\n", 8_000, f.Size)
	if err := errors.Join(os.WriteFile(part, bad, 0o600), os.WriteFile(doneFile(part), []byte(lines), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := getter().Get(t.Context(), f, part, nil); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, part)
	if n.Load() != 12+13 {
		t.Errorf("%d requests, want 12 and then 13", n.Load())
	}
}

func TestHashFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for digits, want := range map[int]string{ // as sha256sum and git hash-object print them
		64: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", 40: "ce013625030ba8dba906f756967f9e9ca394464a",
	} {
		if got, err := HashFile(path, digits); err != nil || got != want || !KnownHash(got) {
			t.Errorf("%d digits: %s (%v), want %s", digits, got, err, want)
		}
	}
	if KnownHash("xyz") || KnownHash(strings.Repeat("A", 64)) {
		t.Error("what is no hash is known")
	}
}

// The token goes to the host that it is for, and to no other that this one redirects to.
func TestTokenStaysWithItsHost(t *testing.T) {
	seen := make(chan string, 1)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("Authorization")
		w.Write([]byte("hello"))
	}))
	defer other.Close()
	elsewhere := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	u, _ := serve(t, func(w http.ResponseWriter, r *http.Request, _ int32) bool {
		if r.Header.Get("Authorization") != "Bearer secret" {
			t.Error("the first host got no token")
		}
		http.Redirect(w, r, elsewhere, http.StatusFound)
		return true
	})
	f := File{Name: "file", URL: u, Header: http.Header{"Authorization": {"Bearer secret"}}}
	if err := getter().Get(t.Context(), f, filepath.Join(t.TempDir(), "part"), nil); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "" {
		t.Errorf("the other host got %q", got)
	}
}
