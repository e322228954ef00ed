// Package preset knows the published checkpoints by name: the paper's generator and judges before and after its own
// training, their tokenizers, GenEval's detector and CLIP. A preset says where a checkpoint comes from, which files it
// needs, under which licence, and how it is decoded; Dir finds it in the hub's cache and Pull brings it there. It opens
// no model.
package preset

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"imagecot/backend"
	"imagecot/hub"
)

// Preset is one checkpoint.
type Preset struct {
	Name    string `yaml:"name" json:"name"`
	Role    string `yaml:"role" json:"role"` // generator, tokenizer, judge, text, detector or clip
	About   string `yaml:"about" json:"about"`
	Licence string `yaml:"licence" json:"licence"`
	Bytes   int64  `yaml:"bytes" json:"bytes"` // about, without what else it needs

	Repo     string   `yaml:"repo" json:"repo,omitempty"`         // ORG/NAME of a hub, or
	URL      string   `yaml:"url" json:"url,omitempty"`           // the address of its one file
	SHA256   string   `yaml:"sha256" json:"sha256,omitempty"`     // of that file, or its first digits
	Revision string   `yaml:"revision" json:"revision,omitempty"` // branch, tag or commit; "" means main
	Folder   string   `yaml:"folder" json:"folder,omitempty"`     // below the repository's root
	Files    []string `yaml:"files" json:"files,omitempty"`       // patterns; one that ends in ? may match nothing

	Tokenizer  string    `yaml:"tokenizer" json:"tokenizer,omitempty"` // preset of the image tokenizer
	Text       string    `yaml:"text" json:"text,omitempty"`           // preset of the text tokenizer, where the folder has none
	Resolution int       `yaml:"resolution" json:"resolution,omitempty"`
	Decoding   *Decoding `yaml:"decoding" json:"decoding,omitempty"`
	Questions  string    `yaml:"questions" json:"questions,omitempty"` // the wording that a judge was trained on
}

// Decoding holds the defaults of a generator.
type Decoding struct {
	Steps       int     `yaml:"steps" json:"steps"`
	Guidance    float64 `yaml:"guidance" json:"guidance"`
	Temperature float64 `yaml:"temperature" json:"temperature"`
}

//go:embed presets.yaml
var shipped []byte

// Folder is where the user's own presets lie, one *.yaml file or several.
func Folder() (string, error) {
	home, err := backend.Home()
	return filepath.Join(home, "presets"), err
}

// All returns the shipped presets and then the user's. Two of one name are an error.
func All() ([]Preset, error) {
	all, err := parse(shipped, "presets.yaml")
	if err != nil {
		return nil, err
	}
	dir, err := Folder()
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("preset: %w", err)
	}
	for _, p := range paths {
		more, err := Read(p)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	seen := map[string]bool{}
	for _, p := range all {
		if seen[p.Name] {
			return nil, fmt.Errorf("preset: two presets are named %s", p.Name)
		}
		seen[p.Name] = true
	}
	return all, nil
}

// Read reads presets from a YAML file: one, or a list. Unknown keys are errors.
func Read(path string) ([]Preset, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("preset: %w", err)
	}
	return parse(text, path)
}

func parse(text []byte, name string) ([]Preset, error) {
	read := func(into any) error {
		d := yaml.NewDecoder(bytes.NewReader(text))
		d.KnownFields(true)
		return d.Decode(into)
	}
	var list []Preset
	var one Preset
	err := read(&list)
	if trimmed := bytes.TrimSpace(text); err != nil && !bytes.HasPrefix(trimmed, []byte("-")) {
		if err = read(&one); err == nil {
			list = []Preset{one}
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("preset: %s: %w", name, err)
	}
	for _, p := range list {
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("preset: %s: %w", name, err)
		}
	}
	return list, nil
}

// Roles that a preset may have.
var Roles = []string{"generator", "tokenizer", "judge", "text", "detector", "clip"}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	hashForm = regexp.MustCompile(`^[0-9a-f]{8,64}$`)
)

func (p Preset) check() error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("preset %q: %s", p.Name, fmt.Sprintf(format, args...))
	}
	switch {
	case !nameForm.MatchString(p.Name):
		return fault("a name has small letters, digits, '.', '_' and '-'")
	case !slices.Contains(Roles, p.Role):
		return fault("role %q is none of %s", p.Role, strings.Join(Roles, ", "))
	case (p.Repo == "") == (p.URL == ""):
		return fault("give repo or url, one of them")
	case p.Folder != "" && !filepath.IsLocal(p.Folder):
		return fault("folder %q leads out of the repository", p.Folder)
	case p.Licence == "":
		return fault("no licence")
	case p.Bytes < 0:
		return fault("bytes is %d", p.Bytes)
	case p.Role == "generator" && (p.Tokenizer == "" || p.Text == "" || p.Decoding == nil):
		return fault("a generator needs tokenizer, text and decoding")
	}
	if d := p.Decoding; d != nil && (d.Steps < 1 || d.Steps > 1000 || !(d.Guidance >= 0) || !(d.Temperature >= 0)) {
		return fault("decoding %+v is no sensible one", *d)
	}
	if p.URL != "" {
		u, err := url.Parse(p.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || path.Base(u.Path) == "/" || !hashForm.MatchString(p.SHA256) {
			return fault("a url is an http or https address of a file, with at least 8 digits of its sha256")
		}
		return nil
	}
	if len(p.Files) == 0 {
		return fault("no files")
	}
	for _, pattern := range p.Files {
		if _, err := path.Match(strings.TrimSuffix(pattern, "?"), ""); err != nil || strings.HasPrefix(pattern, "/") || strings.Contains(pattern, "..") {
			return fault("file pattern %q", pattern)
		}
	}
	_, err := p.repo()
	return err
}

func (p Preset) repo() (hub.Repo, error) {
	if p.Revision == "" {
		return hub.ParseRepo(p.Repo)
	}
	return hub.ParseRepo(p.Repo + "@" + p.Revision)
}

// ErrUnknown says that no preset has the name.
var ErrUnknown = errors.New("unknown preset")

// Find returns a preset by name, or the one in the YAML file of that name (ending in .yaml).
func Find(name string) (Preset, error) {
	if strings.HasSuffix(name, ".yaml") {
		list, err := Read(name)
		if err == nil && len(list) != 1 {
			err = fmt.Errorf("preset: %s holds %d presets, want one", name, len(list))
		}
		if err != nil {
			return Preset{}, err
		}
		return list[0], nil
	}
	all, err := All()
	if err != nil {
		return Preset{}, err
	}
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
	}
	return Preset{}, fmt.Errorf("preset: %w %q", ErrUnknown, name)
}

// Needs returns the presets that p needs beside itself: its image tokenizer and its text tokenizer.
func (p Preset) Needs() ([]Preset, error) {
	var out []Preset
	for _, name := range []string{p.Tokenizer, p.Text} {
		if name == "" {
			continue
		}
		n, err := Find(name)
		if err != nil {
			return nil, fmt.Errorf("preset: %s needs %s: %w", p.Name, name, err)
		}
		out = append(out, n)
	}
	return out, nil
}
