package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"imagecot/internal/fetch"
)

// defaultIndex is used unless PIP_INDEX_URL names another package index.
const defaultIndex = "https://pypi.org/simple"

// wheel is one file of the index.
type wheel struct {
	name    string // file name
	url     *url.URL
	sha256  string // lower-case hexadecimal
	version string
	size    int64 // 0 if the index does not say
}

// index speaks the simple repository API (PEP 503 and 691).
type index struct {
	base   *url.URL
	client *http.Client
}

// newIndex honours PIP_INDEX_URL and PIP_CERT, and the proxy variables.
func newIndex() (*index, error) {
	text := os.Getenv("PIP_INDEX_URL")
	if text == "" {
		text = defaultIndex
	}
	base, err := url.Parse(strings.TrimRight(text, "/") + "/")
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, errors.New("backend: PIP_INDEX_URL is not an http or https address")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if cert := os.Getenv("PIP_CERT"); cert != "" {
		pem, err := os.ReadFile(cert)
		if err != nil {
			return nil, fmt.Errorf("backend: PIP_CERT: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("backend: PIP_CERT: no certificate in %s", cert)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &index{base: base, client: &http.Client{Transport: transport, CheckRedirect: fetch.CheckRedirect}}, nil
}

// maxPage bounds a project's page, in bytes.
const maxPage = 64 << 20

// find looks up the wheel of a source that suits this machine.
func (x *index) find(ctx context.Context, s source) (wheel, error) {
	page := x.base.JoinPath(s.project + "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page.String(), nil)
	if err != nil {
		return wheel{}, fmt.Errorf("backend: %w", err)
	}
	req.Header.Set("Accept", "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1")
	resp, err := x.client.Do(req)
	if err != nil {
		return wheel{}, fmt.Errorf("backend: ask the package index for %s: %w", s.project, fetch.Plain(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return wheel{}, fmt.Errorf("backend: the package index answers %s for %s", resp.Status, s.project)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return wheel{}, fmt.Errorf("backend: read the index page of %s: %w", s.project, fetch.Plain(err))
	}
	if len(body) > maxPage {
		return wheel{}, fmt.Errorf("backend: the index page of %s is longer than %d bytes", s.project, maxPage)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	parse := parseHTML
	if strings.HasSuffix(kind, "json") {
		parse = parseJSON
	}
	all, err := parse(body, resp.Request.URL)
	if err != nil {
		return wheel{}, fmt.Errorf("backend: the index page of %s: %w", s.project, err)
	}
	return s.choose(all)
}

// parseJSON reads PEP 691's format. Files that were withdrawn are left out.
func parseJSON(body []byte, page *url.URL) ([]wheel, error) {
	var list struct {
		Files []struct {
			Filename string
			URL      string
			Hashes   map[string]string
			Size     int64
			Yanked   any
		}
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	var all []wheel
	for _, f := range list.Files {
		u, err := page.Parse(f.URL)
		if err != nil || f.Yanked != nil && f.Yanked != false {
			continue
		}
		all = append(all, wheel{name: f.Filename, url: u, sha256: strings.ToLower(f.Hashes["sha256"]), size: max(0, f.Size)})
	}
	return all, nil
}

var (
	anchor = regexp.MustCompile(`(?is)<a\s([^>]*)>(.*?)</a>`)
	href   = regexp.MustCompile(`(?is)\bhref\s*=\s*(?:"([^"]*)"|'([^']*)')`)
)

// parseHTML reads PEP 503's format: one link a file, with its hash as the fragment.
func parseHTML(body []byte, page *url.URL) ([]wheel, error) {
	var all []wheel
	for _, a := range anchor.FindAllSubmatch(body, -1) {
		attributes := string(a[1])
		m := href.FindStringSubmatch(attributes)
		if m == nil || strings.Contains(attributes, "data-yanked") {
			continue
		}
		u, err := page.Parse(html.UnescapeString(m[1] + m[2]))
		if err != nil {
			continue
		}
		hash, ok := strings.CutPrefix(u.Fragment, "sha256=")
		if !ok {
			hash = ""
		}
		u.Fragment = ""
		all = append(all, wheel{name: strings.TrimSpace(html.UnescapeString(string(a[2]))), url: u, sha256: strings.ToLower(hash)})
	}
	return all, nil
}

// choose picks the pinned wheel, or the newest final release that suits this machine.
func (s source) choose(all []wheel) (wheel, error) {
	var best wheel
	var bestVersion []int
	for _, w := range all {
		parts := strings.Split(strings.TrimSuffix(w.name, ".whl"), "-")
		if !strings.HasSuffix(w.name, ".whl") || len(parts) < 5 || !suits(parts[len(parts)-1]) {
			continue
		}
		w.version = parts[1]
		if s.version != "" {
			if w.version == s.version && (w.sha256 == "" || w.sha256 == s.sha256) {
				w.sha256 = s.sha256
				return w, nil
			}
			continue
		}
		v, ok := finalVersion(w.version)
		if raw, err := hex.DecodeString(w.sha256); ok && err == nil && len(raw) == 32 && slices.Compare(v, bestVersion) > 0 {
			best, bestVersion = w, v
		}
	}
	if bestVersion == nil {
		want := strings.TrimSpace(s.project + " " + s.version)
		if s.sha256 != "" {
			want += " with sha256 " + s.sha256
		}
		return wheel{}, fmt.Errorf("backend: the package index has no wheel of %s for this machine among %d files", want, len(all))
	}
	return best, nil
}

// finalVersion splits 1.2.3; pre-releases and the like are not ok.
func finalVersion(text string) ([]int, bool) {
	var v []int
	for _, part := range strings.Split(text, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, false
		}
		v = append(v, n)
	}
	return v, true
}
