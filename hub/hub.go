// Package hub brings checkpoints from a Hugging Face hub into the cache that Hugging Face's own tools use, so that what one
// has fetched the other finds:
//
//	CACHE/models--ORG--NAME/blobs/HASH                   a file's content, by its hash
//	CACHE/models--ORG--NAME/snapshots/COMMIT/PATH        link to the blob
//	CACHE/models--ORG--NAME/refs/REVISION                the commit that a branch or tag stood for
//
// Sizes and hashes come from the hub's list of a commit, and every file is checked against them. The package knows no
// model.
package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"imagecot/internal/fetch"
)

// The errors that callers tell apart.
var (
	ErrAbsent  = fmt.Errorf("not in the cache: %w", fs.ErrNotExist)
	ErrOffline = errors.New("offline mode")
	ErrAccess  = errors.New("access refused")
	ErrNoRepo  = fmt.Errorf("no such repository, revision or file: %w", fs.ErrNotExist)
	ErrHash    = fetch.ErrHash
)

// DefaultEndpoint is the hub unless HF_ENDPOINT names another one.
const DefaultEndpoint = "https://huggingface.co"

// Hub is a hub and the cache in front of it.
type Hub struct {
	Cache    string // folder
	Endpoint *url.URL
	Token    string // "" without one
	Offline  bool   // nothing is asked for
	get      *fetch.Getter
}

// FromEnv reads the variables of Hugging Face's tools: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH,
// HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT (seconds of silence), and XDG_CACHE_HOME.
func FromEnv() (*Hub, error) {
	home, err := home()
	if err != nil {
		return nil, err
	}
	h := &Hub{
		Cache:   first(os.Getenv("HF_HUB_CACHE"), os.Getenv("HUGGINGFACE_HUB_CACHE"), filepath.Join(home, "hub")),
		Offline: isTrue("HF_HUB_OFFLINE") || isTrue("TRANSFORMERS_OFFLINE"),
		get:     fetch.New(&http.Client{CheckRedirect: fetch.CheckRedirect}),
	}
	h.get.Connections = 4
	endpoint := strings.TrimRight(first(os.Getenv("HF_ENDPOINT"), DefaultEndpoint), "/")
	if h.Endpoint, err = url.Parse(endpoint); err != nil || h.Endpoint.Host == "" || h.Endpoint.Scheme != "https" && h.Endpoint.Scheme != "http" {
		return nil, errors.New("hub: HF_ENDPOINT is not an http or https address")
	}
	if seconds, err := strconv.ParseFloat(os.Getenv("HF_HUB_DOWNLOAD_TIMEOUT"), 64); err == nil && seconds > 0 {
		h.get.Silence = time.Duration(seconds * float64(time.Second))
	}
	h.Token = first(os.Getenv("HF_TOKEN"), os.Getenv("HUGGING_FACE_HUB_TOKEN"))
	if h.Token == "" && !isTrue("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
		text, err := os.ReadFile(first(os.Getenv("HF_TOKEN_PATH"), filepath.Join(home, "token")))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("hub: token: %w", err)
		}
		h.Token = string(text)
	}
	h.Token = strings.TrimSpace(h.Token)
	if strings.ContainsAny(h.Token, " \t\r\n") {
		return nil, errors.New("hub: the token holds white space")
	}
	return h, nil
}

// home is HF_HOME, or the folder that stands for it.
func home() (string, error) {
	if dir := os.Getenv("HF_HOME"); dir != "" {
		return dir, nil
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "huggingface"), nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("hub: %w (set HF_HOME)", err)
	}
	return filepath.Join(dir, ".cache", "huggingface"), nil
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

func isTrue(name string) bool {
	return slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(os.Getenv(name)))
}

// Repo names a repository at a revision: a branch, a tag or a commit.
type Repo struct {
	ID       string // ORG/NAME
	Revision string
}

var (
	idForm       = regexp.MustCompile(`^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$`)
	revisionForm = regexp.MustCompile(`^[A-Za-z0-9][\w./+-]{0,199}$`)
	commitForm   = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// ParseRepo reads ORG/NAME or ORG/NAME@REVISION; the revision is main if there is none. Names that could be mistaken for
// paths are errors.
func ParseRepo(text string) (Repo, error) {
	id, revision, given := strings.Cut(text, "@")
	r := Repo{ID: id, Revision: revision}
	if !given {
		r.Revision = "main"
	}
	return r, r.check()
}

func (r Repo) check() error {
	switch {
	case !idForm.MatchString(r.ID) || strings.Contains(r.ID, "..") || strings.Contains(r.ID, "--") || strings.HasSuffix(r.ID, ".git"):
		return fmt.Errorf("hub: %.100q is no repository, want ORG/NAME", r.ID)
	case !revisionForm.MatchString(r.Revision) || !fs.ValidPath(r.Revision) || strings.Contains(r.Revision, ".."):
		return fmt.Errorf("hub: %.100q is no branch, tag or commit", r.Revision)
	}
	return nil
}

func (r Repo) String() string { return r.ID + "@" + r.Revision }

// folder is where the cache keeps a repository.
func (h *Hub) folder(r Repo) string {
	return filepath.Join(h.Cache, "models--"+strings.ReplaceAll(r.ID, "/", "--"))
}

// Commit is the commit that the cache holds for a revision.
func (h *Hub) Commit(r Repo) (string, error) {
	if err := r.check(); err != nil {
		return "", err
	}
	if commitForm.MatchString(r.Revision) {
		return r.Revision, nil
	}
	text, err := os.ReadFile(filepath.Join(h.folder(r), "refs", filepath.FromSlash(r.Revision)))
	if err != nil {
		return "", fmt.Errorf("hub: %s: %w", r, ErrAbsent)
	}
	commit := strings.TrimSpace(string(text))
	if !commitForm.MatchString(commit) {
		return "", fmt.Errorf("hub: %s: the cache's ref %.60q is no commit", r, commit)
	}
	return commit, nil
}

// Snapshot is the folder of a revision in the cache, if there is one; which of its files are there is not looked at.
func (h *Hub) Snapshot(r Repo) (string, error) {
	commit, err := h.Commit(r)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(h.folder(r), "snapshots", commit)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("hub: %s: %w", r, ErrAbsent)
	}
	return dir, nil
}
