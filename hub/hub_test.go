package hub

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// repository is what the test's hub serves for org/model@main.
var repository = map[string][]byte{
	"config.json":           []byte(`{"a": 1}`),
	"dpo/config.json":       []byte(`{"a": 2}`),
	"dpo/model.safetensors": bytes.Repeat([]byte("weights "), 20_000),
	"README.md":             []byte("# model"),
	"empty.txt":             nil,
}

func blob(content []byte) string {
	h := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(content)), content...))
	return hex.EncodeToString(h[:])
}

func sum(content []byte) string {
	h := sha256.Sum256(content)
	return hex.EncodeToString(h[:])
}

// server is a hub. spoil may answer in its place.
func server(t *testing.T, spoil func(w http.ResponseWriter, r *http.Request) bool) *Hub {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if spoil != nil && spoil(w, r) {
			return
		}
		switch path := r.URL.Path; {
		case path == "/api/models/org/model/revision/main", path == "/api/models/org/model/revision/refs/pr/1":
			if r.URL.Query().Get("blobs") != "true" {
				http.Error(w, "no sizes asked for", http.StatusBadRequest)
				return
			}
			var siblings []map[string]any
			for name, content := range repository {
				f := map[string]any{"rfilename": name, "size": len(content), "blobId": blob(content)}
				if strings.HasSuffix(name, ".safetensors") {
					f["lfs"] = map[string]any{"sha256": sum(content), "size": len(content), "pointerSize": 130}
				}
				siblings = append(siblings, f)
			}
			if err := json.NewEncoder(w).Encode(map[string]any{"id": "org/model", "sha": commit, "siblings": siblings}); err != nil {
				t.Error(err)
			}
		case strings.HasPrefix(path, "/org/model/resolve/"+commit+"/"):
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(repository[strings.TrimPrefix(path, "/org/model/resolve/"+commit+"/")]))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_ENDPOINT", s.URL+"/")
	h, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	h.get.FirstWait, h.get.Segment = time.Millisecond, 20_000
	return h
}

var repo = Repo{"org/model", "main"}

func pull(ctx context.Context, h *Hub, folder string, patterns ...string) (string, error) {
	l, err := h.List(ctx, repo)
	if err != nil {
		return "", err
	}
	files, err := l.Select(folder, patterns)
	if err != nil {
		return "", err
	}
	return h.Pull(ctx, repo, l, files, false, nil)
}

func TestPullFillsTheCache(t *testing.T) {
	h := server(t, nil)
	if _, err := h.Snapshot(repo); !errors.Is(err, ErrAbsent) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	dir, err := pull(t.Context(), h, "")
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(os.Getenv("HF_HOME"), "hub", "models--org--model")
	if want := filepath.Join(base, "snapshots", commit); dir != want {
		t.Fatalf("snapshot %s, want %s", dir, want)
	}
	for name, content := range repository {
		hash := blob(content)
		if strings.HasSuffix(name, ".safetensors") {
			hash = sum(content)
		}
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes (%v)", name, len(got), err)
		}
		to, err := os.Readlink(filepath.Join(dir, name))
		if want := strings.Repeat("../", 2+strings.Count(name, "/")) + "blobs/" + hash; err != nil || filepath.ToSlash(to) != want {
			t.Errorf("%s points to %s (%v), want %s", name, to, err, want)
		}
	}
	if ref, err := os.ReadFile(filepath.Join(base, "refs", "main")); err != nil || string(ref) != commit {
		t.Errorf("ref %q (%v)", ref, err)
	}
	entries, err := os.ReadDir(filepath.Join(base, "blobs"))
	if err != nil || len(entries) != len(repository) {
		t.Errorf("%d blobs (%v), want %d", len(entries), err, len(repository))
	}
	if got, err := h.Snapshot(repo); err != nil || got != dir {
		t.Errorf("found %s (%v)", got, err)
	}
	if got, err := h.Snapshot(Repo{"org/model", commit}); err != nil || got != dir {
		t.Errorf("by commit: %s (%v)", got, err)
	}
}

func TestPullAgainFetchesNothing(t *testing.T) {
	var lock sync.Mutex
	asked := map[string]int{}
	h := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		lock.Lock()
		defer lock.Unlock()
		asked[filepath.Base(r.URL.Path)]++
		return false
	})
	dir, err := pull(t.Context(), h, "dpo", "config.json", "*.safetensors", "tokenizer.json?")
	if err != nil {
		t.Fatal(err)
	}
	if asked["README.md"] != 0 || asked["config.json"] != 1 || asked["model.safetensors"] != 8 {
		t.Errorf("asked for %v", asked)
	}
	clear(asked)
	if _, err := pull(t.Context(), h, "dpo", "config.json", "*.safetensors"); err != nil || len(asked) != 1 {
		t.Errorf("again: %v (%v)", asked, err)
	}
	// A bit that the disk has turned is found by its hash.
	weights := filepath.Join(dir, "dpo", "model.safetensors")
	bad := bytes.Clone(repository["dpo/model.safetensors"])
	bad[7] ^= 1
	target, err := filepath.EvalSymlinks(weights)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := h.List(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	if _, err := h.Pull(t.Context(), repo, l, l.Files, true, func(done, total int64) {
		if done < last || done > total || total != Bytes(l.Files) {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(weights); err != nil || !bytes.Equal(got, repository["dpo/model.safetensors"]) || last != Bytes(l.Files) {
		t.Errorf("after the repair %d bytes (%v), progress %d", len(got), err, last)
	}
}

func TestPullThroughFaults(t *testing.T) {
	weights := "/org/model/resolve/" + commit + "/dpo/model.safetensors"
	content := repository["dpo/model.safetensors"]
	var lock sync.Mutex
	for _, test := range []struct {
		name  string
		spoil func(w http.ResponseWriter, r *http.Request, n int) bool
		want  string // part of the error, empty for success
		is    error
	}{
		{"redirected to where the files lie", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if r.URL.Path == weights {
				http.Redirect(w, r, "/store"+weights, http.StatusFound)
				return true
			}
			if strings.HasPrefix(r.URL.Path, "/store/") {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
				return true
			}
			return false
		}, "", nil},
		{"cut again and again", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if r.URL.Path == weights && n%2 == 1 {
				panic(http.ErrAbortHandler)
			}
			return false
		}, "", nil},
		{"truncated", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if r.URL.Path == weights {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content[:len(content)-5000]))
			}
			return r.URL.Path == weights
		}, "model.safetensors", nil},
		{"corrupted", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if r.URL.Path == weights {
				bad := bytes.Clone(content)
				bad[len(bad)-1] ^= 1
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bad))
			}
			return r.URL.Path == weights
		}, "refused and removed", ErrHash},
		{"a page in place of the file", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if strings.HasSuffix(r.URL.Path, "/config.json") {
				w.Write([]byte("<html>log in</html>"))
			}
			return strings.HasSuffix(r.URL.Path, "/config.json")
		}, "config.json", nil},
		{"gated", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if r.URL.Path == weights {
				http.Error(w, "ask first", http.StatusForbidden)
			}
			return r.URL.Path == weights
		}, "set HF_TOKEN", ErrAccess},
		{"closed", func(w http.ResponseWriter, r *http.Request, n int) bool {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return true
		}, "set HF_TOKEN", ErrAccess},
		{"not there", func(w http.ResponseWriter, r *http.Request, n int) bool { http.NotFound(w, r); return true }, "404", ErrNoRepo},
		{"out of order", func(w http.ResponseWriter, r *http.Request, n int) bool {
			http.Error(w, "", http.StatusInternalServerError)
			return true
		}, "500", nil},
		{"no JSON", func(w http.ResponseWriter, r *http.Request, n int) bool { w.Write([]byte("{")); return true }, "list org/model@main", nil},
		{"a path that leads out", func(w http.ResponseWriter, r *http.Request, n int) bool {
			fmt.Fprintf(w, `{"sha":%q,"siblings":[{"rfilename":"../../x","size":1,"blobId":%q}]}`, commit, blob(nil))
			return true
		}, "is no path", nil},
		{"a hash that is none", func(w http.ResponseWriter, r *http.Request, n int) bool {
			fmt.Fprintf(w, `{"sha":%q,"siblings":[{"rfilename":"x","size":1,"blobId":"../../x"}]}`, commit)
			return true
		}, "hash", nil},
		{"a commit that is none", func(w http.ResponseWriter, r *http.Request, n int) bool {
			fmt.Fprint(w, `{"sha":"../x","siblings":[]}`)
			return true
		}, "is no commit", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := 0
			h := server(t, func(w http.ResponseWriter, r *http.Request) bool {
				lock.Lock()
				n++
				i := n
				lock.Unlock()
				return test.spoil(w, r, i)
			})
			dir, err := pull(t.Context(), h, "")
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(filepath.Join(dir, "dpo/model.safetensors")); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%d bytes (%v)", len(got), err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
				t.Fatalf("error %v, want %v with %q", err, test.is, test.want)
			}
			if _, err := h.Snapshot(repo); err == nil {
				t.Error("what did not arrive can be found")
			}
		})
	}
}

// Two pulls at once fetch every file once.
func TestPullsShareTheWork(t *testing.T) {
	var lock sync.Mutex
	asked := 0
	h := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/resolve/") {
			lock.Lock()
			asked++
			lock.Unlock()
			time.Sleep(20 * time.Millisecond)
		}
		return false
	})
	h.get.Connections = 1
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if _, err := pull(t.Context(), h, ""); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if asked != len(repository) {
		t.Errorf("%d files fetched, want %d", asked, len(repository))
	}
}

func TestEnvironment(t *testing.T) {
	h := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "Bearer from-file" {
			http.Error(w, "no", http.StatusUnauthorized)
			return true
		}
		return false
	})
	if _, err := h.List(t.Context(), repo); !errors.Is(err, ErrAccess) {
		t.Errorf("without a token: %v", err)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("HF_HOME"), "token"), []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(pairs ...string) *Hub {
		t.Helper()
		for i := 0; i < len(pairs); i += 2 {
			t.Setenv(pairs[i], pairs[i+1])
		}
		h, err := FromEnv()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if _, err := with().List(t.Context(), repo); err != nil {
		t.Errorf("token from a file: %v", err)
	}
	if _, err := with().List(t.Context(), Repo{"org/model", "refs/pr/1"}); err != nil {
		t.Errorf("revision with slashes: %v", err)
	}
	if h := with("HF_TOKEN", "from-env"); h.Token != "from-env" {
		t.Errorf("HF_TOKEN: %q", h.Token)
	}
	if h := with("HF_HUB_CACHE", "/a/b"); h.Cache != "/a/b" {
		t.Errorf("HF_HUB_CACHE: %s", h.Cache)
	}
	if h := with("HF_HUB_CACHE", "", "HF_HOME", "", "XDG_CACHE_HOME", "/x"); h.Cache != filepath.Join("/x", "huggingface", "hub") {
		t.Errorf("XDG_CACHE_HOME: %s", h.Cache)
	}
	if h := with("HF_ENDPOINT", ""); h.Endpoint.String() != DefaultEndpoint {
		t.Errorf("endpoint %s", h.Endpoint)
	}
	h = with("HF_HUB_OFFLINE", "yes")
	if _, err := h.List(t.Context(), repo); !errors.Is(err, ErrOffline) {
		t.Errorf("offline list: %v", err)
	}
	if _, err := h.Pull(t.Context(), repo, Listing{}, nil, false, nil); !errors.Is(err, ErrOffline) {
		t.Errorf("offline pull: %v", err)
	}
	for name, value := range map[string]string{"HF_ENDPOINT": "ftp://x", "HF_TOKEN": "two words"} {
		t.Setenv(name, value)
		if _, err := FromEnv(); err == nil {
			t.Errorf("%s=%s is accepted", name, value)
		}
		t.Setenv(name, "")
	}
}

func TestParseRepo(t *testing.T) {
	for text, want := range map[string]Repo{
		"showlab/show-o": {"showlab/show-o", "main"}, "a/b@v1.0": {"a/b", "v1.0"}, "a/b@refs/pr/3": {"a/b", "refs/pr/3"},
	} {
		if got, err := ParseRepo(text); err != nil || got != want {
			t.Errorf("%s: %v (%v)", text, got, err)
		}
	}
	for _, text := range []string{"", "a", "a/b/c", "../b", "a/..", "a/b@", "a/b@../x", "a/b@x/../y", "a/b@/x", `a\b`, "a/b--c", "-a/b", "a/b@x y", "/a/b", "a/b.git", "a/b@x//y"} {
		if got, err := ParseRepo(text); err == nil {
			t.Errorf("%q is accepted as %v", text, got)
		}
	}
}

func FuzzParseListing(f *testing.F) {
	f.Add([]byte(`{"sha":"` + commit + `","siblings":[{"rfilename":"a/b","size":1,"blobId":"` + blob(nil) + `"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		l, err := parseListing(body)
		if err != nil {
			return
		}
		for _, file := range l.Files {
			if !filepath.IsLocal(filepath.FromSlash(file.Path)) || strings.ContainsAny(file.Hash, `/\.`) {
				t.Errorf("%+v leads out of the cache", file)
			}
		}
	})
}
