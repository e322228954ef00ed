// Package hubtest is a Hugging Face hub for tests: it serves the folders ORG/NAME of a file system as repositories.
package hubtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"
)

// Handler serves every branch and tag of ORG/NAME with the same files. Files that end in .safetensors, .bin or .pth are
// stored large, as the hub does: with a SHA-256.
func Handler(repos fs.FS) http.Handler {
	lists, files := http.NewServeMux(), http.NewServeMux() // their patterns overlap
	lists.HandleFunc("GET /api/models/{org}/{name}/revision/{rev...}", func(w http.ResponseWriter, r *http.Request) {
		repo, err := fs.Sub(repos, r.PathValue("org")+"/"+r.PathValue("name"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		siblings, commit := []map[string]any{}, sha1.New()
		err = fs.WalkDir(repo, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := fs.ReadFile(repo, name)
			blob := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(content)), content...))
			fmt.Fprintf(commit, "%s %x\n", name, blob)
			f := map[string]any{"rfilename": name, "size": len(content), "blobId": hex.EncodeToString(blob[:])}
			if strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".bin") || strings.HasSuffix(name, ".pth") {
				sum := sha256.Sum256(content)
				f["lfs"] = map[string]any{"sha256": hex.EncodeToString(sum[:]), "size": len(content)}
			}
			siblings = append(siblings, f)
			return err
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"sha": hex.EncodeToString(commit.Sum(nil)), "siblings": siblings})
	})
	files.HandleFunc("GET /{org}/{name}/resolve/{commit}/{file...}", func(w http.ResponseWriter, r *http.Request) {
		content, err := fs.ReadFile(repos, r.PathValue("org")+"/"+r.PathValue("name")+"/"+r.PathValue("file"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			lists.ServeHTTP(w, r)
			return
		}
		files.ServeHTTP(w, r)
	})
}
