package questions

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/internal/goldens"
)

func get(t testing.TB, name string) Set {
	t.Helper()
	s, err := Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTinyWording(t *testing.T) {
	s := get(t, "tiny")
	for kind, want := range map[cot.QuestionKind]string{
		cot.Outcome:   "does it show a red circle?",
		cot.Process:   "is it becoming a red circle?",
		cot.Clarity:   "is it clear?",
		cot.Potential: "will it show a red circle?",

		cot.Reflection: "does the image show a red circle?",
		cot.Reason:     "what is wrong?",
	} {
		if got := s.Text(kind, cot.Prompt{Text: "a red circle"}); got != want {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
	}
}

// The double spaces, line breaks and indents of the released wording are part of it.
func TestReleasedWordingIsKeptByteForByte(t *testing.T) {
	got := get(t, "released").Text(cot.Clarity, cot.Prompt{Text: "a bench"})
	for _, want := range []string{"\n The above image is a certain step  in", "prompt 'a bench.'\n        Do you", "prompt?(The", "confused  but", "potential)\n        Answer"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	if !strings.HasSuffix(got, "full point)") {
		t.Errorf("ends with %q", got[len(got)-20:])
	}
}

func TestEverySetHasEveryQuestionAndNoEdges(t *testing.T) {
	for _, name := range Names() {
		for _, kind := range kinds {
			text := get(t, name).Text(kind, cot.Prompt{Text: "X"})
			if text == "" || strings.HasSuffix(text, "\n") || strings.Contains(text, "{") || strings.Contains(text, "<image>") {
				t.Errorf("%s %s: %q", name, kind, text)
			}
		}
	}
	if _, err := Get("papr"); err == nil || !strings.Contains(err.Error(), "paper, released, tiny") {
		t.Errorf("an unknown set: %v", err)
	}
}

func TestSecondTurns(t *testing.T) {
	path := &cot.Path{Index: 3, Step: 9, Prompt: cot.Prompt{Text: "X"}}
	q := get(t, "paper").Ask(cot.Potential, path)
	if len(q.After) != 1 || q.After[0].Answer != "yes" || q.After[0].Text != get(t, "paper").Text(cot.Clarity, path.Prompt) {
		t.Errorf("%+v", q.After)
	}
	if q.Path != 3 || q.Step != 9 || q.Kind != cot.Potential {
		t.Errorf("%+v", q)
	}
	q = get(t, "paper").Ask(cot.Reason, path)
	if len(q.After) != 1 || q.After[0].Answer != "no" || q.After[0].Text != get(t, "paper").Text(cot.Reflection, path.Prompt) {
		t.Errorf("%+v", q.After)
	}
	if q = get(t, "paper").Ask(cot.Outcome, path); len(q.After) != 0 {
		t.Errorf("outcome follows up %+v", q.After)
	}
}

// Every question text of the tokenizer's parity cases is made by one of the sets.
func TestWordingOfTheParityCases(t *testing.T) {
	file, err := os.Open(filepath.Join(goldens.Case(t, "tokenizer-qwen2"), "cases.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	kinds := map[string]struct {
		set  string
		kind cot.QuestionKind
	}{
		"question:orm": {"paper", cot.Outcome}, "question:prm": {"paper", cot.Process}, "question:clarity": {"paper", cot.Clarity},
		"question:potential": {"paper", cot.Potential}, "question:clarity-code": {"released", cot.Clarity},
		"question:potential-code": {"released", cot.Potential},
	}
	prompts := []string{
		"a photo of a bench", "a photo of two dogs", "a photo of four clocks", "a photo of a red dog and a blue cat",
		"a photo of a dog right of a teddy bear", "a photo of a purple wine glass and a black apple", "Ein Hund läuft", "一张两只狗的照片",
	}
	seen := 0
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c struct{ Cat, Text string }
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		k, ok := kinds[c.Cat]
		if !ok {
			continue
		}
		seen++
		found := false
		for _, p := range prompts {
			text := get(t, k.set).Text(k.kind, cot.Prompt{Text: p})
			found = found || c.Text == "<image> "+text || c.Text == text ||
				k.kind == cot.Potential && c.Text == "<image> "+get(t, "paper").Text(k.kind, cot.Prompt{Text: p}) // one case has the paper's potential with a tag
		}
		if !found {
			t.Errorf("%s: no set asks %q", c.Cat, c.Text)
		}
	}
	if err := lines.Err(); err != nil || seen < 30 {
		t.Errorf("%d questions in the cases, %v", seen, err)
	}
}
