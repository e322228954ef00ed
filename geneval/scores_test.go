package geneval

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rowsOf makes images of one prompt, one for each letter: "y" is correct.
func rowsOf(tag, prompt, verdicts string) (rows []Row) {
	for _, v := range verdicts {
		rows = append(rows, Row{Tag: tag, Prompt: prompt, Metadata: prompt, Correct: v == 'y'})
	}
	return rows
}

func TestScoreByHand(t *testing.T) {
	rows := slices.Concat(
		rowsOf(Counting, "a", "yynn"), rowsOf(SingleObject, "b", "yyyy"), rowsOf(Counting, "c", "nn"), rowsOf(SingleObject, "d", "yyyn"))
	s, err := Score(rows)
	if err != nil {
		t.Fatal(err)
	}
	if s.Images != 14 || s.Prompts != 4 || s.ImageRate != 9.0/14 || s.PromptRate != .75 {
		t.Errorf("%+v", s)
	}
	if s.Tasks[0].Tag != Counting || s.Tasks[0].Score != 2.0/6 || s.Tasks[1].Score != 7.0/8 || s.Overall != (2.0/6+7.0/8)/2 {
		t.Errorf("%+v", s)
	}
	if !s.CI95.Contains(s.Overall) || s.CI95[1]-s.CI95[0] <= 0 {
		t.Errorf("interval %v", s.CI95)
	}
	if single, ok := s.Task(SingleObject); !ok || single.N != 8 || single.Prompts != 2 {
		t.Errorf("Task: %+v", single)
	}
	if !strings.Contains(s.Summary(), "counting         = 33.33% (2 / 6)\nsingle_object    = 87.50% (7 / 8)\n\nOverall score (avg. over tasks): 0.60417\n") {
		t.Errorf("%s", s.Summary())
	}
	if _, err := Score(nil); err == nil {
		t.Error("a score of nothing")
	}
}

// Four equal images of a prompt are one piece of evidence: the interval must not shrink as if they were four.
func TestIntervalResamplesPrompts(t *testing.T) {
	var one, four []Row
	for i := range 100 {
		verdict := "y"
		if i%2 == 0 {
			verdict = "n"
		}
		prompt := string(rune('A' + i))
		one = append(one, rowsOf(Colors, prompt, verdict)...)
		four = append(four, rowsOf(Colors, prompt, strings.Repeat(verdict, 4))...)
	}
	a, _ := Score(one)
	b, _ := Score(four)
	if a.CI95 != b.CI95 {
		t.Errorf("one image a prompt %v, four equal ones %v", a.CI95, b.CI95)
	}
	if half := (a.CI95[1] - a.CI95[0]) / 2; math.Abs(half-1.96*.05) > .02 {
		t.Errorf("half width %.3f, want about .098", half)
	}
}

// Eight of eight right is no proof of perfection: the bootstrap alone would say 1.00 to 1.00.
func TestIntervalOfConstantTask(t *testing.T) {
	var all, most, none []Row
	for i := range 8 {
		prompt := string(rune('A' + i))
		all = append(all, rowsOf(SingleObject, prompt, "yy")...)
		none = append(none, rowsOf(SingleObject, prompt, "nn")...)
	}
	for i := range 40 {
		most = append(most, rowsOf(Colors, string(rune('a'+i)), map[bool]string{true: "y", false: "n"}[i%2 == 0])...)
	}
	s, err := Score(slices.Concat(all, most))
	if err != nil {
		t.Fatal(err)
	}
	if ci := s.Tasks[0].CI95; math.Abs(ci[0]-.74) > .03 || ci[1] != 1 {
		t.Errorf("8 of 8: %v, want .74 to 1", ci)
	}
	alone, _ := Score(most)
	if got, want := s.CI95[1]-s.CI95[0], (alone.CI95[1]-alone.CI95[0])/2; got <= want {
		t.Errorf("overall interval is %.3f wide, the other task alone gives %.3f", got, want)
	}
	d, err := Compare(all, all)
	if err != nil || d.Tasks[0].CI95[0] > -.15 || d.Tasks[0].CI95[1] < .15 || d.Tasks[0].P != 1 {
		t.Errorf("8 of 8 twice: %+v, %v", d, err)
	}
	if d, _ = Compare(none, all); d.Overall.Diff != 1 || d.Overall.CI95[1] != 1 || d.Overall.CI95[0] > .85 || d.Overall.P > .01 {
		t.Errorf("0 and 8 of 8: %+v", d.Overall)
	}
}

func TestCompare(t *testing.T) {
	var a, b []Row
	for i := range 40 {
		prompt := string(rune('A' + i))
		hard := "n"
		if i%2 == 0 {
			hard = "y"
		}
		a = append(a, rowsOf(Position, prompt, hard)...)
		better := hard
		if i < 20 {
			better = "y"
		}
		b = append(b, rowsOf(Position, prompt, better)...)
	}
	a = append(a, rowsOf(Colors, "only in a", "y")...)
	b = append(b, rowsOf(Counting, "only in b", "y")...)
	d, err := Compare(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if d.OnlyA != 1 || d.OnlyB != 1 || len(d.Tasks) != 1 || d.Tasks[0].Prompts != 40 {
		t.Errorf("%+v", d)
	}
	// Ten of forty prompts turned right. Paired, the error is sqrt(.25 x .75 / 40) = .068; unpaired it would be .107.
	if d.Overall.A != .5 || d.Overall.B != .75 || d.Overall.Diff != .25 {
		t.Errorf("%+v", d.Overall)
	}
	if half := (d.Overall.CI95[1] - d.Overall.CI95[0]) / 2; math.Abs(half-.134) > .02 || d.Overall.P > .01 {
		t.Errorf("half width %.3f, p %.4f", half, d.Overall.P)
	}
	same, err := Compare(a, a)
	if err != nil || same.Overall.Diff != 0 || same.Overall.P != 1 {
		t.Errorf("a run against itself: %+v, %v", same.Overall, err)
	}
	if _, err := Compare(rowsOf(Colors, "x", "y"), rowsOf(Colors, "z", "y")); err == nil {
		t.Error("no shared prompt, no error")
	}
}

func TestRowsRoundTrip(t *testing.T) {
	row := Row{Filename: "out/00000/samples/0000.png", Tag: Colors, Prompt: "caf\u00e9", Reason: "a\nb", Metadata: `{"a": "b"}`, Details: "{}"}
	var b bytes.Buffer
	if err := WriteRow(&b, row); err != nil {
		t.Fatal(err)
	}
	want := `{"filename":"out\/00000\/samples\/0000.png","tag":"colors","prompt":"caf\u00e9","correct":false,"reason":"a\nb","metadata":"{\"a\": \"b\"}","details":"{}"}` + "\n"
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
	rows, err := ReadRows(&b)
	if err != nil || len(rows) != 1 || rows[0] != row {
		t.Errorf("%+v, %v", rows, err)
	}
	for _, text := range []string{want + `{"filename":`, `{"tag":"x","metadata":"y"}`, `{"correct":true,"metadata":"y"}`} {
		if _, err := ReadRows(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "line") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestReadFolders(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadFolders(root); err == nil {
		t.Error("an empty root is no run")
	}
	indented := "{\n  \"tag\": \"single_object\",\n  \"include\": [\n  {\"class\": \"cat\", \"count\": 1}],\n  \"prompt\": \"a photo of a cat\"\n}\n"
	write("00010/metadata.jsonl", indented)
	write("00002/metadata.jsonl", Templates{}.Single("dog").Dump())
	for _, name := range []string{"0001.png", "0000.png", "0000.png.tmp", "x.png", "10.png", "9.png", "grid.png"} {
		write("00002/samples/"+name, "")
	}
	write("00002/grid.png", "")
	write("notes/metadata.jsonl", "not read")
	list, err := ReadFolders(root)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	var names []string
	for _, path := range list[0].Images {
		names = append(names, filepath.Base(path))
	}
	if list[0].Name != "00002" || !slices.Equal(names, []string{"0000.png", "0001.png", "9.png", "10.png"}) {
		t.Errorf("%s: %v", list[0].Name, names)
	}
	if list[1].Metadata.Prompt != "a photo of a cat" || list[1].Images != nil {
		t.Errorf("%+v", list[1])
	}
	write("00011/samples/0000.png", "")
	if _, err := ReadFolders(root); err == nil || !strings.Contains(err.Error(), "00011") {
		t.Errorf("a folder without metadata: %v", err)
	}
	if FolderName(7) != "00007" || ImageName(3) != "0003.png" {
		t.Error("names")
	}
}
