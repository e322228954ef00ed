package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"imagecot/internal/fetch"
)

// File is one file of a commit.
type File struct {
	Path string // slash-separated, below the repository's root
	Size int64
	Hash string // SHA-256, or the SHA-1 of a git blob; also the blob's name in the cache
}

// Listing is what a repository holds at a commit.
type Listing struct {
	Commit string
	Files  []File
}

// maxList bounds the hub's answer, in bytes.
const maxList = 64 << 20

// List asks the hub what a revision holds.
func (h *Hub) List(ctx context.Context, r Repo) (Listing, error) {
	if err := r.check(); err != nil {
		return Listing{}, err
	}
	if h.Offline {
		return Listing{}, fmt.Errorf("hub: %s: %w (HF_HUB_OFFLINE is set)", r, ErrOffline)
	}
	address := h.Endpoint.JoinPath("api", "models", r.ID, "revision") // a revision may hold slashes, which are escaped
	address.RawPath = address.EscapedPath() + "/" + url.PathEscape(r.Revision)
	address.Path += "/" + r.Revision
	address.RawQuery = "blobs=true"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return Listing{}, fmt.Errorf("hub: %w", err)
	}
	req.Header = h.header()
	resp, err := h.get.Client.Do(req)
	if err != nil {
		return Listing{}, fmt.Errorf("hub: ask %s for %s: %w", h.Endpoint.Host, r, fetch.Plain(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Listing{}, fmt.Errorf("hub: %s: %w", r, explain(resp.StatusCode, resp.Status, h.Token != ""))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxList+1))
	if err != nil {
		return Listing{}, fmt.Errorf("hub: list %s: %w", r, err)
	}
	if len(body) > maxList {
		return Listing{}, fmt.Errorf("hub: list %s: longer than %d bytes", r, maxList)
	}
	l, err := parseListing(body)
	if err != nil {
		return Listing{}, fmt.Errorf("hub: list %s: %w", r, err)
	}
	return l, nil
}

// header of every request to the hub.
func (h *Hub) header() http.Header {
	header := http.Header{"User-Agent": {"imagecot"}}
	if h.Token != "" {
		header.Set("Authorization", "Bearer "+h.Token)
	}
	return header
}

// explain puts a status into words. The hub answers 401 for what is not there as well as for what is closed.
func explain(code int, status string, token bool) error {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		if token {
			return fmt.Errorf("%w (%s): the repository does not exist, or your token may not read it; a gated one asks for consent on its page", ErrAccess, status)
		}
		return fmt.Errorf("%w (%s): the repository does not exist, or it is closed or gated: set HF_TOKEN", ErrAccess, status)
	case http.StatusNotFound:
		return fmt.Errorf("%w (%s)", ErrNoRepo, status)
	}
	return fmt.Errorf("the hub answers %s", status)
}

func parseListing(body []byte) (Listing, error) {
	var answer struct {
		SHA      string `json:"sha"`
		Siblings []struct {
			Name   string `json:"rfilename"`
			Size   int64  `json:"size"`
			BlobID string `json:"blobId"`
			LFS    *struct {
				SHA256 string `json:"sha256"`
				Size   int64  `json:"size"`
			} `json:"lfs"`
		} `json:"siblings"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Listing{}, err
	}
	if !commitForm.MatchString(answer.SHA) {
		return Listing{}, fmt.Errorf("commit %.60q is no commit", answer.SHA)
	}
	l := Listing{Commit: answer.SHA}
	for _, s := range answer.Siblings {
		f := File{Path: s.Name, Size: s.Size, Hash: s.BlobID}
		if s.LFS != nil {
			f.Size, f.Hash = s.LFS.Size, s.LFS.SHA256
		}
		if !fs.ValidPath(f.Path) || strings.ContainsAny(f.Path, `\:`+"\x00") || f.Path == "." {
			return Listing{}, fmt.Errorf("%.100q is no path", f.Path)
		}
		if f.Size < 0 || !fetch.KnownHash(f.Hash) {
			return Listing{}, fmt.Errorf("%.100s has size %d and hash %.80q", f.Path, f.Size, f.Hash)
		}
		l.Files = append(l.Files, f)
	}
	return l, nil
}

// Select returns the files of a folder ("" for the root) whose path below it matches one of the patterns of path.Match,
// all if there are none. A pattern without a match is an error, except one that ends in "?", which is optional.
func (l Listing) Select(folder string, patterns []string) ([]File, error) {
	var out []File
	used := make([]bool, len(patterns))
	for _, f := range l.Files {
		below := f.Path
		if folder != "" {
			var ok bool
			if below, ok = strings.CutPrefix(f.Path, folder+"/"); !ok {
				continue
			}
		}
		take := len(patterns) == 0
		for i, p := range patterns {
			ok, err := path.Match(strings.TrimSuffix(p, "?"), below)
			if err != nil {
				return nil, fmt.Errorf("hub: pattern %q: %w", p, err)
			}
			take, used[i] = take || ok, used[i] || ok
		}
		if take {
			out = append(out, f)
		}
	}
	for i, p := range patterns {
		if !used[i] && !strings.HasSuffix(p, "?") {
			return nil, fmt.Errorf("hub: no file %q in folder %q among %d files: %w", p, folder, len(l.Files), fs.ErrNotExist)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("hub: no file in folder %q among %d files: %w", folder, len(l.Files), fs.ErrNotExist)
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// Bytes is the size of files together.
func Bytes(files []File) int64 {
	n := int64(0)
	for _, f := range files {
		n += f.Size
	}
	return n
}
