package preset

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"imagecot/ckpt"
	"imagecot/hub"
	"imagecot/hub/hubtest"
)

// at serves repositories and points everything at them and at empty folders.
func at(t *testing.T, repos fs.FS) *hub.Hub {
	t.Helper()
	s := httptest.NewServer(hubtest.Handler(repos))
	t.Cleanup(s.Close)
	for name, value := range map[string]string{
		"HF_HOME": t.TempDir(), "HF_ENDPOINT": s.URL, "HF_HUB_CACHE": "", "HF_TOKEN": "", "HF_HUB_OFFLINE": "", "IMAGECOT_HOME": t.TempDir(),
	} {
		t.Setenv(name, value)
	}
	h, err := hub.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The paper's checkpoints and what they need are there, whole, and each says what a user must know.
func TestShipped(t *testing.T) {
	at(t, fstest.MapFS{})
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]Preset{}
	for _, p := range all {
		have[p.Name] = p
		if p.About == "" || p.Bytes == 0 {
			t.Errorf("%s says neither what nor how large it is", p.Name)
		}
		needs, err := p.Needs()
		if err != nil {
			t.Error(err)
		}
		for _, n := range needs {
			if n.Role != "tokenizer" && n.Role != "text" {
				t.Errorf("%s needs %s, which is a %s", p.Name, n.Name, n.Role)
			}
		}
	}
	for _, name := range []string{
		"show-o-256", "show-o-512", "cot-orm", "cot-parm", "cot-dpo", "cot-iterdpo", "llava-onevision-0.5b", "llava-onevision-7b",
		"magvitv2", "geneval-detector", "clip-vit-l-14",
	} {
		if have[name].Name == "" {
			t.Errorf("no preset %s", name)
		}
	}
	if d := have["show-o-256"].Decoding; *d != (Decoding{18, 1.75, 1}) {
		t.Errorf("the paper's decoding is %+v", *d)
	}
}

func TestPullAndDir(t *testing.T) {
	torch, err := os.ReadFile("../ckpt/testdata/zip.bin")
	if err != nil {
		t.Fatal(err)
	}
	h := at(t, fstest.MapFS{
		"a/b/x/config.json": {Data: []byte("{}")}, "a/b/x/pytorch_model.bin": {Data: torch}, "a/b/README.md": {Data: []byte("#")},
	})
	p := Preset{Name: "p", Role: "generator", Licence: "MIT", Repo: "a/b", Folder: "x", Files: []string{"config.json", "*.bin?", "*.none?"}, Bytes: 3e9}
	_, err = p.Dir(h)
	var missing *MissingError
	if !errors.As(err, &missing) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "`imagecot pull --allow-pickle p` brings 3.0 GB") {
		t.Fatalf("before: %v", err)
	}
	dir, pickled, err := p.Pull(t.Context(), h, Options{})
	if err != nil || !pickled {
		t.Fatalf("pull: pickled %v (%v)", pickled, err)
	}
	if got, err := p.Dir(h); err != nil || got != dir {
		t.Errorf("found %s (%v), want %s", got, err, dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "..", "README.md")); err == nil {
		t.Error("a file came that was not asked for")
	}
	if _, err := ckpt.OpenModel(dir); !errors.Is(err, ckpt.ErrPickle) {
		t.Errorf("opened a pickle: %v", err)
	}
	if _, pickled, err = p.Pull(t.Context(), h, Options{AllowPickle: true}); err != nil || pickled {
		t.Fatalf("pull with pickles: pickled %v (%v)", pickled, err)
	}
	f, err := ckpt.OpenModel(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	p.Files = append(p.Files, "tokenizer.json")
	if _, err := p.Dir(h); !errors.As(err, &missing) || missing.Why == "" || !strings.Contains(err.Error(), "tokenizer.json") {
		t.Errorf("a file is missing: %v", err)
	}
	if _, _, err := p.Pull(t.Context(), h, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that the hub has not: %v", err)
	}
}

func TestPullURL(t *testing.T) {
	content := []byte("hello\n")
	broken := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken {
			w.Write([]byte("jello\n"))
			return
		}
		w.Write(content)
	}))
	defer s.Close()
	h := at(t, fstest.MapFS{})
	p := Preset{Name: "d", Role: "detector", Licence: "MIT", URL: s.URL + "/a/d-5891b5b5.txt", SHA256: "5891b5b5"}
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	dir, _, err := p.Pull(t.Context(), h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "d-5891b5b5.txt")); err != nil || string(got) != "hello\n" {
		t.Errorf("%q (%v)", got, err)
	}
	if got, err := p.Dir(h); err != nil || got != dir {
		t.Errorf("found %s (%v)", got, err)
	}
	broken = true
	if err := os.WriteFile(filepath.Join(dir, "d-5891b5b5.txt"), []byte("hallo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Pull(t.Context(), h, Options{Check: true}); !errors.Is(err, hub.ErrHash) {
		t.Errorf("another file: %v", err)
	}
	h.Offline = true
	if _, _, err := p.Pull(t.Context(), h, Options{Check: true}); !errors.Is(err, hub.ErrOffline) {
		t.Errorf("offline: %v", err)
	}
}

func TestBadPresets(t *testing.T) {
	good := "name: p\nrole: judge\nlicence: MIT\nrepo: a/b\nfiles: [x]\n"
	if list, err := parse([]byte(good), "p"); err != nil || len(list) != 1 {
		t.Fatalf("%v (%v)", list, err)
	}
	for name, text := range map[string]string{
		"unknown key":           good + "sorce: x\n",
		"no licence":            strings.Replace(good, "licence: MIT\n", "", 1),
		"unknown role":          strings.Replace(good, "judge", "jury", 1),
		"name with a slash":     strings.Replace(good, "name: p", "name: p/q", 1),
		"repository and url":    good + "url: https://x/y\n",
		"no repository":         strings.Replace(good, "repo: a/b\n", "", 1),
		"folder that leads out": good + "folder: ../x\n",
		"pattern that does":     strings.Replace(good, "[x]", "[../x]", 1),
		"malformed pattern":     strings.Replace(good, "[x]", `["["]`, 1),
		"no files":              strings.Replace(good, "files: [x]\n", "", 1),
		"generator alone":       strings.Replace(good, "judge", "generator", 1),
		"no steps":              good + "decoding: {steps: 0}\n",
		"url without a hash":    "name: p\nrole: detector\nlicence: MIT\nurl: https://x/y\n",
		"bad revision":          good + "revision: ../x\n",
		"not YAML":              "{",
	} {
		if list, err := parse([]byte(text), "p"); err == nil {
			t.Errorf("%s: accepted as %+v", name, list)
		}
	}
	at(t, fstest.MapFS{})
	dir, err := Folder()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(strings.Replace(good, "name: p", "name: magvitv2", 1)), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := All(); err == nil || !strings.Contains(err.Error(), "two presets are named magvitv2") {
		t.Errorf("a name twice: %v", err)
	}
}

// The command that brings a preset asks for a pickle where a pull without it would leave one.
func TestMissingPresetsNameTheWholeCommand(t *testing.T) {
	t.Setenv("IMAGECOT_HOME", t.TempDir())
	t.Setenv("HF_HOME", t.TempDir())
	h, err := hub.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	for name, pickle := range map[string]bool{
		"geneval-detector": true, "cot-dpo": true, "cot-orm": true, "mask2former-swin-s-hf": true,
		"show-o-256": false, "magvitv2": false, "llava-onevision-7b": false, "clip-vit-l-14": false, "phi-1.5-text": false,
	} {
		p, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Dir(h)
		want := "`imagecot pull " + name + "`"
		if pickle {
			want = "`imagecot pull --allow-pickle " + name + "`"
		}
		var missing *MissingError
		if !errors.As(err, &missing) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to name %s", err, want)
		}
	}
}
