package arch

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every file and folder that the documents name in backticks exists, with every function named behind it.
func TestDocumentsNameWhatExists(t *testing.T) {
	quoted := regexp.MustCompile("`([^`]+)`")
	identifier := regexp.MustCompile(`^([A-Z]\w*)(\.[A-Z]\w*)?$`)
	root := filepath.Join("..", "..")
	for _, name := range []string{"paper_index.md", "deviations.md"} {
		text, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		paths := 0
		for line := range strings.Lines(string(text)) {
			source := "" // of the file named last
			for _, m := range quoted.FindAllStringSubmatch(line, -1) {
				word := m[1]
				if strings.Contains(word, "/") {
					paths++
					file := filepath.Join(root, filepath.FromSlash(word))
					info, err := os.Stat(file)
					if err != nil {
						t.Errorf("%s names %s: %v", name, word, err)
						continue
					}
					source = ""
					if !info.IsDir() {
						data, err := os.ReadFile(file)
						if err != nil {
							t.Fatal(err)
						}
						source = string(data)
					}
					continue
				}
				if parts := identifier.FindStringSubmatch(word); parts != nil && source != "" {
					last := strings.TrimPrefix(parts[2], ".")
					if last == "" {
						last = parts[1]
					}
					if !strings.Contains(source, last+"(") && !strings.Contains(source, last+" ") {
						t.Errorf("%s: no %s in the file named before it", name, word)
					}
				}
			}
		}
		if paths == 0 {
			t.Errorf("%s names no path", name)
		}
	}
}

// Every "Deviation Dn" in the code has its line in docs/deviations.md.
func TestDeviationsAreDeclared(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("..", "..", "docs", "deviations.md"))
	if err != nil {
		t.Fatal(err)
	}
	tag := regexp.MustCompile(`Deviation (D\d+)`)
	sources(t, func(name, source string) {
		for _, m := range tag.FindAllStringSubmatch(source, -1) {
			if !strings.Contains(string(list), "\n| "+m[1]+" |") {
				t.Errorf("%s: %s is not in docs/deviations.md", name, m[0])
			}
		}
	})
}
