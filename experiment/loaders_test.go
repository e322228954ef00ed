package experiment

import (
	"io/fs"
	"os"
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
