package preset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"imagecot/ckpt"
	"imagecot/hub"
	"imagecot/internal/fetch"
)

// MissingError says that a preset, or something that it needs, is not in the cache.
type MissingError struct {
	Name  string
	Bytes int64 // about what a pull brings
	Why   string
	// Pickle says that what comes may be a torch file, which no model is loaded from before it is converted.
	Pickle bool
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("preset: %s is not here (%s); `%s` brings %s", e.Name, e.Why, e.Command(), Size(e.Bytes))
}

// Command is what brings the preset.
func (e *MissingError) Command() string {
	if e.Pickle {
		return "imagecot pull --allow-pickle " + e.Name
	}
	return "imagecot pull " + e.Name
}

// Unwrap makes it an fs.ErrNotExist.
func (e *MissingError) Unwrap() error { return fs.ErrNotExist }

// Size is a number of bytes for people.
func Size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.0f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.0f kB", float64(n)/1e3)
}

// Dir is the folder of the preset's files in the cache. If a file is missing the error is a *MissingError.
func (p Preset) Dir(h *hub.Hub) (string, error) {
	dir, err := p.place(h)
	if err != nil && !errors.Is(err, hub.ErrAbsent) {
		return "", err
	}
	missing := ""
	if err != nil {
		missing = "nothing in " + h.Cache
	}
	for _, pattern := range p.required() {
		if found, err := filepath.Glob(filepath.Join(dir, pattern)); missing == "" && (err != nil || len(found) == 0) {
			missing = "no " + pattern + " in " + dir
		}
	}
	if missing == "" {
		return dir, nil
	}
	size, pickle := p.Bytes, p.mayPickle()
	needs, err := p.Needs()
	if err != nil {
		return "", err
	}
	for _, n := range needs {
		if _, err := n.Dir(h); err != nil {
			size, pickle = size+n.Bytes, pickle || n.mayPickle()
		}
	}
	return "", &MissingError{p.Name, size, missing, pickle}
}

// place is where the preset's files lie or would lie.
func (p Preset) place(h *hub.Hub) (string, error) {
	if p.URL != "" {
		return filepath.Join(h.Cache, "imagecot", p.Name), nil
	}
	r, err := p.repo()
	if err != nil {
		return "", err
	}
	dir, err := h.Snapshot(r)
	return filepath.Join(dir, filepath.FromSlash(p.Folder)), err
}

// required are the patterns that must match.
func (p Preset) required() []string {
	if p.URL != "" {
		return []string{path.Base(p.URL)}
	}
	var out []string
	for _, pattern := range p.Files {
		if !strings.HasSuffix(pattern, "?") {
			out = append(out, pattern)
		}
	}
	return out
}

// mayPickle says whether convert may find nothing but a torch file among what a pull brings.
func (p Preset) mayPickle() bool {
	torch := false
	for _, pattern := range append([]string{path.Base(p.URL)}, p.Files...) {
		name := strings.TrimSuffix(pattern, "?")
		if name == pattern && path.Ext(name) == path.Ext(ckpt.ModelFile) {
			return false // these must come, or there is nothing to convert
		}
		torch = torch || slices.Contains(torchFiles, "*"+path.Ext(name))
	}
	return torch
}

// Options of a pull.
type Options struct {
	Check       bool // verify the hashes of what is there
	AllowPickle bool // make a safetensors file of a torch file
	Progress    hub.Progress
}

// Pull brings the preset's own files into the cache and returns their folder. A checkpoint that was published as a pickle
// stays one unless that is allowed: pickled says so.
func (p Preset) Pull(ctx context.Context, h *hub.Hub, o Options) (dir string, pickled bool, err error) {
	if p.URL != "" {
		dir, err = p.pullURL(ctx, h, o)
	} else {
		var r hub.Repo
		if r, err = p.repo(); err == nil {
			dir, err = PullRepo(ctx, h, r, p.Folder, p.Files, o)
		}
	}
	if err != nil {
		return "", false, err
	}
	pickled, err = convert(dir, o.AllowPickle)
	return dir, pickled, err
}

// PullRepo brings the files of a repository's folder that match the patterns, all if there are none.
func PullRepo(ctx context.Context, h *hub.Hub, r hub.Repo, folder string, patterns []string, o Options) (string, error) {
	l, err := h.List(ctx, r)
	if err != nil {
		return "", err
	}
	files, err := l.Select(folder, patterns)
	if err != nil {
		return "", fmt.Errorf("preset: %s: %w", r, err)
	}
	dir, err := h.Pull(ctx, r, l, files, o.Check, o.Progress)
	return filepath.Join(dir, filepath.FromSlash(folder)), err
}

// pullURL brings the one file of a preset that lies on no hub.
func (p Preset) pullURL(ctx context.Context, h *hub.Hub, o Options) (string, error) {
	dir, err := p.place(h)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, path.Base(p.URL))
	_, err = os.Stat(file)
	if err == nil && o.Check {
		err = p.checkHash(file)
	}
	if err == nil {
		return dir, nil
	}
	if h.Offline {
		return "", fmt.Errorf("preset: %s: %w (HF_HUB_OFFLINE is set)", p.Name, hub.ErrOffline)
	}
	u, err := url.Parse(p.URL)
	if err != nil {
		return "", fmt.Errorf("preset: %s: %w", p.Name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("preset: %w", err)
	}
	g := fetch.New(&http.Client{CheckRedirect: fetch.CheckRedirect})
	part := file + ".part"
	if err := g.Get(ctx, fetch.File{Name: path.Base(p.URL), URL: u}, part, fetch.Progress(o.Progress)); err != nil {
		return "", fmt.Errorf("preset: %s: %w", p.Name, err)
	}
	if err := p.checkHash(part); err != nil {
		return "", errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, file); err != nil {
		return "", fmt.Errorf("preset: %w", err)
	}
	return dir, nil
}

func (p Preset) checkHash(file string) error {
	sum, err := ckpt.HashFile(file)
	if err == nil && !strings.HasPrefix(sum, p.SHA256) {
		err = fmt.Errorf("preset: %s: %w: %s has sha256 %s, want %s", p.Name, hub.ErrHash, filepath.Base(file), sum, p.SHA256)
	}
	return err
}

// torchFiles are patterns of files that torch saves.
var torchFiles = []string{"*.bin", "*.pt", "*.pth"}

// convert makes model.safetensors of a folder's only weights if these are a torch file. pickled says that they are one and
// stay so.
func convert(dir string, allowed bool) (pickled bool, err error) {
	for _, name := range []string{ckpt.ModelFile, ckpt.IndexFile, ckpt.PublishedFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return false, nil
		}
	}
	var found []string
	for _, pattern := range torchFiles {
		more, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return false, fmt.Errorf("preset: %w", err)
		}
		found = append(found, more...)
	}
	var weights []string
	for _, file := range found {
		if base := filepath.Base(file); base != "training_args.bin" && base != "optimizer.pt" && base != "scheduler.pt" {
			weights = append(weights, file)
		}
	}
	if len(weights) == 0 {
		return false, nil
	}
	if !allowed {
		return true, nil
	}
	if len(weights) > 1 {
		return true, fmt.Errorf("preset: %s holds %d torch files: convert them one by one", dir, len(weights))
	}
	return false, ckpt.Convert(weights[0], filepath.Join(dir, ckpt.ModelFile))
}
