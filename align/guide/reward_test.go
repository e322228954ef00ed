package guide

import (
	"io/fs"
	"os"
	"testing"

	"imagecot/align/policy"
	"imagecot/internal/enginetest"
)

// The name of a judge may tell its words. Where nobody knows names, or the name does not tell, its images do.
func TestJudgesWords(t *testing.T) {
	folders := func(name, _ string) (fs.FS, error) { return os.DirFS(name), nil }
	told := func(set string) func(string) string { return func(string) string { return set } }
	for _, c := range []struct {
		from policy.Sources
		want string
	}{
		{policy.Sources{Folders: folders}, "tiny"},
		{policy.Sources{Folders: folders, Wording: told("")}, "tiny"},
		{policy.Sources{Folders: folders, Wording: told("released")}, "released"},
	} {
		r, _, err := openJudge(enginetest.Go(t), c.from, nil, "../../tiny/orm")
		if err != nil {
			t.Fatal(err)
		}
		if got := r.(judged).words.Name; got != c.want {
			t.Errorf("asked in the words %q, want %q", got, c.want)
		}
	}
}
