package experiment

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// A folder that happens to be called like a shipped model must not hide it: the source tree has tiny/ and judge/.
func TestShippedModelsWinOverFoldersOfTheirName(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"tiny", "generator"} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		folder, err := ModelFolder(name, "generator")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fs.Stat(folder, "config.json"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if folder, err = ModelFolder("./"+name, "generator"); err != nil {
			t.Fatal(err)
		}
		if _, err := fs.Stat(folder, "config.json"); err == nil {
			t.Errorf("./%s is not the folder", name)
		}
	}
}

// A name that nobody knows is answered with the names that would do in its place, and no others.
func TestUnknownModelsAreAnsweredWithTheirKind(t *testing.T) {
	t.Setenv("IMAGECOT_HOME", t.TempDir())
	for _, c := range []struct {
		part      string
		want, not []string
	}{
		{"generator", []string{"tiny,", " dpo,", " correction,", " show-o-256,", "hf:ORG/NAME"}, []string{" generator,", " orm,", " judge,", " tokenizer,", "magvitv2"}},
		{"judge", []string{"tiny,", " orm,", " parmpp,", " cot-parm,"}, []string{" judge,", " dpo,", "show-o"}},
		{"tokenizer", []string{"tiny,", " magvitv2,"}, []string{" orm,", " dpo,", "phi"}},
	} {
		_, err := ModelFolder("nosuch", c.part)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no "+c.part+` "nosuch"`) {
			t.Fatalf("%s: %v", c.part, err)
		}
		_, list, _ := strings.Cut(err.Error(), "there are:")
		for _, name := range c.want {
			if !strings.Contains(list, name) {
				t.Errorf("%s: %s lacks %q", c.part, list, name)
			}
		}
		for _, name := range c.not {
			if strings.Contains(list, name) {
				t.Errorf("%s: %s has %q", c.part, list, name)
			}
		}
		if _, err := ModelFolder("no/such", c.part); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no/such") {
			t.Errorf("folder: %v", err)
		}
	}
}
