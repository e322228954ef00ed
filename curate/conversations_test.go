package curate

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/verify/questions"
)

// A judge is trained on the very words that an export for LLaVA's loader holds, about the same pictures.
func TestConversationsAreTheExports(t *testing.T) {
	sets := dataSets(t)
	for _, kind := range ConversationKinds() {
		dir := t.TempDir()
		e := export(t, dir, sets[kind], LLaVA)
		if err := e.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, llavaFile))
		if err != nil {
			t.Fatal(err)
		}
		var want []llavaRow
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		got, err := Conversations(kind, sets[kind], e.Questions, 0, nil)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %d conversations of %d, error %v", kind, len(got), len(want), err)
		}
		for i, c := range got {
			if !reflect.DeepEqual(llavaTurns(c.Turns), want[i].Conversations) {
				t.Errorf("%s: conversation %d is %+v, exported %+v", kind, i, c.Turns, want[i].Conversations)
			}
			file, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(want[i].Image)))
			if err != nil {
				t.Fatal(err)
			}
			if grey(t, file) != c.Tokens[0] {
				t.Errorf("%s: conversation %d is about another picture", kind, i)
			}
		}
		twice, err := Conversations(kind, sets[kind]+","+sets[kind], e.Questions, 0, nil)
		if err != nil || len(twice) != 2*len(got) {
			t.Errorf("%s twice: %d conversations, error %v", kind, len(twice), err)
		}
		trained, err := Conversations(kind, sets[kind], e.Questions, .4, nil)
		if err != nil || len(trained) == 0 || len(trained) == len(got) && kind != "steps" { // of two prompts
			t.Errorf("%s: %d of %d conversations stay with .4 for validation, error %v", kind, len(trained), len(got), err)
		}
		last := func(c Conversation) cot.QuestionKind { return c.Turns[len(c.Turns)-1].Kind }
		var some []Conversation
		for i := 0; i < len(got); i += 3 {
			some = append(some, got[i])
		}
		third, err := Conversations(kind, sets[kind], e.Questions, 0, func(asks cot.QuestionKind, n int) bool {
			if asks != last(got[n]) {
				t.Errorf("%s: conversation %d asks %s at last, keep is told %s", kind, n, last(got[n]), asks)
			}
			return n%3 == 0
		})
		if err != nil || !reflect.DeepEqual(third, some) {
			t.Errorf("%s: every third conversation are %d of %d, error %v, or others", kind, len(third), len(got), err)
		}
		kept := slices.DeleteFunc(got, func(c Conversation) bool {
			return !slices.ContainsFunc(trained, func(k Conversation) bool { return k.Prompt == c.Prompt })
		})
		if len(kept) != len(trained) {
			t.Errorf("%s: some images of a prompt are left out and others are not", kind)
		}
	}
}

// Where potential is labelled before images are clear, no conversation calls them clear.
func TestBlurredImagesAreNotCalledClear(t *testing.T) {
	dir := t.TempDir()
	labels := DefaultParmLabels(18)
	labels.PotentialFrom = 6
	if err := (ParmData{Dir: dir, From: ranked(t, 2), Labels: labels, PartSize: 50}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := Read[Parm](dir)
	if err != nil {
		t.Fatal(err)
	}
	blurred := 0
	for _, r := range rows {
		if Label(r.Clarity) != No || Label(r.Potential) == NotAsked {
			continue
		}
		blurred++
		for _, talk := range r.export().talks {
			if talk.kind != cot.Outcome && talk != (answered{cot.Clarity, "no"}) {
				t.Errorf("step %d, which is not clear: %+v", r.Step, talk)
			}
		}
	}
	if blurred == 0 {
		t.Error("no potential before images are clear")
	}
}

// What is read is far more than what is kept, and it does not stay in memory.
func TestMemoryFollowsWhatIsKept(t *testing.T) {
	const parts, rows, tokens = 20, 40, 2000
	m, dir := trainPrompts(t, 1)[0], t.TempDir()
	for part := range parts {
		var some []Step
		for i := range rows {
			some = append(some, Step{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Path: int32(i), Step: 1, Sample: make([]int32, tokens)})
		}
		if err := writePart(dir, part, some); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "recipe.json"), []byte(`{"kind":"steps"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before, after := heap(), 0
	talks, err := Conversations("steps", dir, questions.Set{}, 0, func(_ cot.QuestionKind, n int) bool {
		if n == parts*rows-1 {
			after = heap()
		}
		return n%50 == 0
	})
	if all, kept := parts*rows*tokens*4, 4*tokens*len(talks); err != nil || len(talks) != parts*rows/50 || after-before > kept+all/4 {
		t.Errorf("%d bytes are held for %d conversations of %d bytes, error %v; there are %d bytes", after-before, len(talks), kept, err, all)
	}
}

func TestConversationsSayWhatIsWrong(t *testing.T) {
	sets := dataSets(t)
	for want, from := range map[string][2]string{
		`is a data set of kind "steps", not "ranking"`: {"ranking", sets["ranking"] + "," + sets["steps"]},
		`kind "pairs", want one of ranking`:            {"pairs", sets["pairs"]},
		"no such file":                                 {"ranking", t.TempDir()},
	} {
		if _, err := Conversations(from[0], from[1], questions.Set{}, 0, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
