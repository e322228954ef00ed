package world

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"imagecot/geneval"
)

var update = flag.Bool("update", false, "write prompts/test.jsonl again")

// coversAll reports whether every shape, and every colour where the task has colours, is left for training.
func coversAll(task string, train []geneval.Metadata) bool {
	seen := map[string]bool{}
	for _, m := range train {
		for _, c := range m.Include {
			seen[c.Class], seen[c.Color] = true, true
		}
	}
	for _, s := range Classes() {
		if !seen[s] {
			return false
		}
	}
	if task == geneval.Colors || task == geneval.ColorAttr {
		for _, c := range ColourNames() {
			if !seen[c] {
				return false
			}
		}
	}
	return true
}

func TestTestPromptFile(t *testing.T) {
	first := uint64(1)
	for ; ; first++ {
		held := map[string]bool{}
		for _, m := range chooseTestPrompts(first) {
			held[key(m)] = true
		}
		good := true
		for _, task := range geneval.Tasks()[1:] {
			train := slices.DeleteFunc(AllPrompts(task), func(m geneval.Metadata) bool { return held[key(m)] })
			good = good && coversAll(task, train)
		}
		if good {
			break
		}
	}
	if first != heldOutSeed {
		t.Fatalf("the first seed that covers all shapes and colours is %d, not %d", first, heldOutSeed)
	}
	var want bytes.Buffer
	for _, m := range chooseTestPrompts(heldOutSeed) {
		want.WriteString(m.Dump() + "\n")
	}
	if *update {
		if err := os.WriteFile("prompts/test.jsonl", want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(want.Bytes(), testFile) {
		t.Error("prompts/test.jsonl is not what chooseTestPrompts chooses (go test ./world -run TestPromptFile -update)")
	}
}

func TestHeldOut(t *testing.T) {
	want := map[string][2]int{ // test prompts, training prompts
		geneval.SingleObject: {8, 0}, geneval.TwoObject: {40, 16}, geneval.Counting: {12, 12},
		geneval.Colors: {24, 24}, geneval.Position: {110, 114}, geneval.ColorAttr: {110, 1460},
	}
	count := map[string]int{}
	keys := map[string]bool{}
	texts := map[string]bool{}
	for _, m := range TestPrompts() {
		count[m.Tag]++
		keys[key(m)] = true
		if texts[m.Prompt] {
			t.Errorf("%q twice", m.Prompt)
		}
		texts[m.Prompt] = true
	}
	for task, n := range want {
		train := TrainPrompts(task)
		if count[task] != n[0] || len(train) != n[1] {
			t.Errorf("%s: %d test and %d training prompts, want %v", task, count[task], len(train), n)
		}
		for _, m := range train {
			if keys[key(m)] || HeldOut(key(m)) {
				t.Errorf("training prompt %q asks for a test prompt's scene", m.Prompt)
			}
		}
	}
	// The twin of a held-out position prompt is held out although its text is another one.
	for _, m := range TestPrompts() {
		if m.Tag == geneval.Position && m.Include[1].Relation == geneval.LeftOf {
			twin := templates.Position(m.Include[0].Class, geneval.RightOf, m.Include[1].Class)
			if !HeldOut(key(twin)) {
				t.Errorf("%q is held out, %q is not", m.Prompt, twin.Prompt)
			}
		}
	}
	if HeldOut(key(geneval.Templates{}.Single("dog"))) || strings.Contains(string(testFile), " an ") {
		t.Error("prompts beyond the tiny world's grammar")
	}
}
