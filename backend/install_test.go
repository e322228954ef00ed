package backend

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const library = "demo_plugin.so"

// makeWheel builds a wheel with a library of some size and its licence files.
func makeWheel(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range files {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte(name+"\n"), 4000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func goodWheel(t *testing.T) []byte {
	return makeWheel(t, "demo/"+library, "demo/__init__.py", "demo-1.0.dist-info/licenses/LICENSE", "demo-1.0.dist-info/THIRD_PARTY_NOTICES")
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// server is a package index whose file handler each test writes.
type server struct {
	*httptest.Server
	downloads atomic.Int32
}

func newServer(t *testing.T, page, kind string, file func(w http.ResponseWriter, r *http.Request, n int)) *server {
	t.Helper()
	s := &server{}
	mux := http.NewServeMux()
	mux.HandleFunc("/simple/demo/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		fmt.Fprint(w, page)
	})
	mux.HandleFunc("/files/", func(w http.ResponseWriter, r *http.Request) { file(w, r, int(s.downloads.Add(1))) })
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	t.Setenv("PIP_INDEX_URL", s.URL+"/simple")
	t.Setenv("PIP_CERT", "")
	return s
}

func jsonPage(t *testing.T, names []string, hash string, size int) string {
	t.Helper()
	var files []map[string]any
	for _, name := range names {
		files = append(files, map[string]any{"filename": name, "url": "../../files/" + name, "hashes": map[string]string{"sha256": hash}, "size": size})
	}
	text, err := json.Marshal(map[string]any{"files": files})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const jsonKind = "application/vnd.pypi.simple.v1+json"

func wheelName(version string) string {
	cpu := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	return "demo-" + version + "-py3-none-manylinux_2_27_" + cpu + ".whl"
}

func skipElsewhere(t *testing.T) {
	t.Helper()
	if !suits(strings.TrimSuffix(strings.Split(wheelName("1.0"), "-")[4], ".whl")) {
		t.Skip("no wheels for this platform")
	}
	oldWait, oldSilence := firstWait, silence
	firstWait = time.Millisecond
	t.Cleanup(func() { firstWait, silence = oldWait, oldSilence })
}

func TestInstallAndList(t *testing.T) {
	skipElsewhere(t)
	bare(t)
	file := goodWheel(t)
	s := newServer(t, jsonPage(t, []string{"demo-1.0.tar.gz", wheelName("0.9"), wheelName("1.0"), "demo-1.0-py3-none-win_amd64.whl"}, sum(file), len(file)), jsonKind,
		func(w http.ResponseWriter, r *http.Request, _ int) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
		})
	src := source{device: "cpu", project: "demo", version: "1.0", sha256: sum(file), library: library}
	stages := map[string]int64{}
	p, err := src.install(t.Context(), func(stage string, done, total int64) { stages[stage] = total })
	if err != nil {
		t.Fatal(err)
	}
	if stages["download"] != int64(len(file)) || stages["unpack"] != p.Size {
		t.Errorf("progress %v for a wheel of %d and a library of %d bytes", stages, len(file), p.Size)
	}
	if _, err := src.install(t.Context(), func(string, int64, int64) {}); err != nil || s.downloads.Load() != 1 {
		t.Errorf("installed again: %d downloads, %v", s.downloads.Load(), err)
	}
	all, err := List()
	if err != nil || len(all) == 0 || all[0].Path != p.Path || !all[0].Installed || all[0].Name != "demo 1.0" {
		t.Fatalf("list %+v (%v), want %+v first", all, err, p)
	}
	entries, err := os.ReadDir(filepath.Dir(p.Path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), ".lock LICENSE THIRD_PARTY_NOTICES "+filepath.Base(p.Path)+" plugin.json"; got != want {
		t.Errorf("folder holds %s, want %s", got, want)
	}

	if err := os.WriteFile(p.Path, make([]byte, p.Size), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open("xla"); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("a plugin that was changed: %v", err)
	}
	be, info, err := Open("auto")
	if err != nil || info.Engine != "go" || cgo && !strings.Contains(info.Note, "sha256") {
		t.Fatalf("auto with a changed plugin: %+v, %v", info, err)
	}
	be.Finalize()
	if _, err := src.install(t.Context(), func(string, int64, int64) {}); err != nil || s.downloads.Load() != 2 {
		t.Errorf("repair: %d downloads, %v", s.downloads.Load(), err)
	}
}

// fault is a way in which a server or an earlier call lets an installation down.
type fault struct {
	name      string
	file      func(w http.ResponseWriter, r *http.Request, n int)
	before    []byte // content of a download that was cut earlier
	downloads int32  // requests for the file, 0 if they do not matter
	want      string // part of the error, empty for success
}

func faults(file []byte) []fault {
	serve := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
	}
	abort := func() { panic(http.ErrAbortHandler) }
	partly := func(w http.ResponseWriter, r *http.Request, n int) { // honours Range, sends n bytes and cuts
		from := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(file)-1, len(file)))
			w.Header().Set("Content-Length", fmt.Sprint(len(file)-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(len(file)))
		}
		w.Write(file[from:min(from+n, len(file))])
		w.(http.Flusher).Flush()
		abort()
	}
	return []fault{
		{"cut again and again with progress", func(w http.ResponseWriter, r *http.Request, n int) {
			if n <= 8 {
				partly(w, r, len(file)/10)
			}
			serve(w, r)
		}, nil, 9, ""},
		{"cut before the first byte", func(w http.ResponseWriter, r *http.Request, n int) { abort() }, nil, 0, "5 attempts"},
		{"server errors, then well", func(w http.ResponseWriter, r *http.Request, n int) {
			if n < 3 {
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			serve(w, r)
		}, nil, 3, ""},
		{"not found", func(w http.ResponseWriter, r *http.Request, n int) { http.NotFound(w, r) }, nil, 1, "404"},
		{"goes on where it stopped", func(w http.ResponseWriter, r *http.Request, n int) {
			if r.Header.Get("Range") != "bytes=1000-" {
				http.Error(w, "want a range", http.StatusBadRequest)
				return
			}
			serve(w, r)
		}, file[:1000], 1, ""},
		{"was complete already", func(w http.ResponseWriter, r *http.Request, n int) { serve(w, r) }, file, 1, ""},
		{"earlier part is of another file", func(w http.ResponseWriter, r *http.Request, n int) { serve(w, r) }, []byte("something else"), 2, ""},
		{"earlier part is too long", func(w http.ResponseWriter, r *http.Request, n int) { serve(w, r) }, append(bytes.Clone(file), "more"...), 2, ""},
		{"server knows no ranges", func(w http.ResponseWriter, r *http.Request, n int) { w.Write(file) }, file[:1000], 1, ""},
		{"wrong range", func(w http.ResponseWriter, r *http.Request, n int) {
			w.Header().Set("Content-Range", "bytes 0-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}, file[:1000], 1, "bytes from 1000"},
		{"corrupt", func(w http.ResponseWriter, r *http.Request, n int) {
			bad := bytes.Clone(file)
			bad[500] ^= 1
			w.Write(bad)
		}, nil, 1, "refused"},
		{"truncated without notice", func(w http.ResponseWriter, r *http.Request, n int) {
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Write(file[:len(file)/2])
			w.(http.Flusher).Flush()
		}, nil, 5, "unexpected EOF"},
		{"longer than announced", func(w http.ResponseWriter, r *http.Request, n int) {
			w.Write(append(bytes.Clone(file), 0))
		}, nil, 1, "more than"},
		{"redirected", func(w http.ResponseWriter, r *http.Request, n int) {
			if n < 4 {
				http.Redirect(w, r, fmt.Sprintf("/files/%d", n), http.StatusFound)
				return
			}
			serve(w, r)
		}, nil, 4, ""},
		{"redirected in a circle", func(w http.ResponseWriter, r *http.Request, n int) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, nil, 0, "redirects"},
		{"silent", func(w http.ResponseWriter, r *http.Request, n int) { <-r.Context().Done() }, nil, 5, "silent"},
	}
}

func TestInstallThroughFaults(t *testing.T) {
	skipElsewhere(t)
	file := goodWheel(t)
	for _, test := range faults(file) {
		t.Run(test.name, func(t *testing.T) {
			home := bare(t)
			if test.name == "silent" {
				silence = 50 * time.Millisecond
				defer func() { silence = time.Minute }()
			}
			s := newServer(t, jsonPage(t, []string{wheelName("1.0")}, sum(file), len(file)), jsonKind, test.file)
			dir := pluginDir(home, "cpu")
			part := filepath.Join(dir, sum(file)[:16]+".part")
			if test.before != nil {
				if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(part, test.before, 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			p, err := source{device: "cpu", project: "demo", library: library}.install(t.Context(), func(string, int64, int64) {})
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Verify(); err != nil {
					t.Fatal(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("error %v, want one line with %q", err, test.want)
			}
			if n := s.downloads.Load(); test.downloads > 0 && n != test.downloads {
				t.Errorf("%d requests for the file, want %d", n, test.downloads)
			}
			if _, err := readRecord(dir); (test.want == "") != (err == nil) {
				t.Errorf("record: %v", err)
			}
		})
	}
}

func TestHTMLIndex(t *testing.T) {
	skipElsewhere(t)
	bare(t)
	file := goodWheel(t)
	page := "<!DOCTYPE html><html><body><h1>Links</h1>\n"
	for _, v := range []string{"1.9", "1.10", "1.11rc1"} {
		page += fmt.Sprintf("<a href=\"/files/x?a=1&amp;b=2#sha256=%s\" data-requires-python=\"&gt;=3\">%s</a><br/>\n", sum(file), wheelName(v))
	}
	page += fmt.Sprintf("<a data-yanked='' href='/files/y#sha256=%s'>%s</a><a href='/files/z'>%s</a>", sum(file), wheelName("2.0"), wheelName("3.0"))
	newServer(t, page, "text/html; charset=utf-8", func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.URL.Query().Get("b") != "2" {
			http.NotFound(w, r)
			return
		}
		w.Write(file)
	})
	p, err := source{device: "cuda", project: "demo", library: library}.install(t.Context(), func(string, int64, int64) {})
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "demo 1.10" || p.Device != "cuda" {
		t.Errorf("installed %+v, want the newest final release with a hash, 1.10", p)
	}
}

func TestInstallRefusals(t *testing.T) {
	skipElsewhere(t)
	two := makeWheel(t, "a/"+library, "b/"+library)
	none := makeWheel(t, "a/other.so")
	for _, test := range []struct {
		name, kind, page, pin, want string
		file                        []byte
	}{
		{"pin not in the index", jsonKind, jsonPage(t, []string{wheelName("1.0")}, strings.Repeat("0", 64), 0), strings.Repeat("1", 64), "no wheel", nil},
		{"no wheel for this platform", jsonKind, jsonPage(t, []string{"demo-1.0-py3-none-win_amd64.whl"}, strings.Repeat("0", 64), 0), "", "no wheel", nil},
		{"page is no JSON", jsonKind, "{", "", "index page", nil},
		{"page is empty", "text/html", "", "", "no wheel", nil},
		{"two libraries", jsonKind, jsonPage(t, []string{wheelName("1.0")}, sum(two), 0), "", "two files", two},
		{"no library", jsonKind, jsonPage(t, []string{wheelName("1.0")}, sum(none), 0), "", "holds no", none},
		{"no zip", jsonKind, jsonPage(t, []string{wheelName("1.0")}, sum([]byte("x")), 0), "", "not a valid zip", []byte("x")},
	} {
		t.Run(test.name, func(t *testing.T) {
			home := bare(t)
			newServer(t, test.page, test.kind, func(w http.ResponseWriter, r *http.Request, _ int) { w.Write(test.file) })
			s := source{device: "cpu", project: "demo", library: library, sha256: test.pin}
			if test.pin != "" {
				s.version = "1.0"
			}
			_, err := s.install(t.Context(), func(string, int64, int64) {})
			if err == nil || !strings.HasPrefix(err.Error(), "backend: ") || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			if _, err := readRecord(pluginDir(home, "cpu")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a record was written: %v", err)
			}
		})
	}
	t.Run("unknown device", func(t *testing.T) {
		bare(t)
		if _, err := Install(t.Context(), "tpu", nil); err == nil || !strings.Contains(err.Error(), "unknown device") {
			t.Error(err)
		}
	})
	t.Run("index address", func(t *testing.T) {
		bare(t)
		t.Setenv("PIP_INDEX_URL", "file:///etc/secret@x")
		if _, err := (source{device: "cpu", project: "demo"}).install(t.Context(), nil); err == nil || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	})
	t.Run("password in the address", func(t *testing.T) {
		bare(t)
		t.Setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:1/simple")
		if _, err := (source{device: "cpu", project: "demo"}).install(t.Context(), nil); err == nil || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	})
}

func TestInstallStopsWithItsContext(t *testing.T) {
	skipElsewhere(t)
	home := bare(t)
	file := goodWheel(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := newServer(t, jsonPage(t, []string{wheelName("1.0")}, sum(file), len(file)), jsonKind, func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(file)))
			w.Write(file[:2000])
			w.(http.Flusher).Flush()
			cancel()
			<-r.Context().Done()
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
	})
	src := source{device: "cpu", project: "demo", library: library}
	if _, err := src.install(ctx, func(string, int64, int64) {}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want that of the context", err)
	}
	if _, err := readRecord(pluginDir(home, "cpu")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a record was written: %v", err)
	}
	if _, err := src.install(t.Context(), func(string, int64, int64) {}); err != nil || s.downloads.Load() != 2 {
		t.Fatalf("second call: %d downloads, %v", s.downloads.Load(), err)
	}
}

// TestRealInstall fetches the pinned plugin where IMAGECOT_TEST_INSTALL is set, and computes with it.
func TestRealInstall(t *testing.T) {
	if os.Getenv("IMAGECOT_TEST_INSTALL") == "" || !cgo {
		t.Skip("needs the network (set IMAGECOT_TEST_INSTALL)")
	}
	bare(t)
	p, err := Install(t.Context(), "cpu", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("installed %+v", p)
	be, info, err := Open("auto")
	if err != nil {
		t.Fatal(err)
	}
	defer be.Finalize()
	if info.Engine != "xla" || info.Plugin != p.Path || info.Note != "" {
		t.Fatalf("auto opened %+v", info)
	}
	double(t, be)
}
