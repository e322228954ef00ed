package curate

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestCards(t *testing.T) {
	for kind, dir := range dataSets(t) {
		want, err := os.ReadFile(filepath.Join("testdata/cards", kind+".md"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "README.md")); err != nil || string(got) != string(want) {
			t.Errorf("%s: error %v, card\n%s\nwant\n%s", kind, err, got, want)
		}
	}
}

// Tokens are most of a data set, and a card counts none.
func TestCardsReadNoTokens(t *testing.T) {
	const rows, tokens = 20, 100_000
	var images []Image
	var steps []Step
	var parms []Parm
	for i, m := range trainPrompts(t, rows) {
		grid := make([]int32, tokens)
		for k := range grid {
			grid[k] = int32(i * k)
		}
		images = append(images, Image{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Steps: 1, Samples: grid})
		steps = append(steps, Step{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Step: 1, Sample: grid})
		parms = append(parms, Parm{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Step: 1, Sample: grid, Potential: int32(Yes)})
	}
	ranking, step, parm := t.TempDir(), t.TempDir(), t.TempDir()
	for _, err := range []error{writePart(ranking, 0, images), writePart(step, 0, steps), writePart(parm, 0, parms)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for kind, write := range map[string]func() error{"ranking": Ranking{Dir: ranking}.card, "steps": Steps{Dir: step}.card, "parm": ParmData{Dir: parm}.card} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := write(); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > rows*tokens*4 {
			t.Errorf("the card of %s took %d bytes, the tokens are %d", kind, took, rows*tokens*4)
		}
	}
}
