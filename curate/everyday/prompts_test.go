package everyday

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"imagecot/curate"
	"imagecot/geneval"
)

func draw(t *testing.T, n int, seed uint64) []geneval.Metadata {
	t.Helper()
	list, err := Prompts(n, seed)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The paper's number of prompts: none of a test prompt's scene, none twice, all of them readable, each task's share.
func TestPrompts(t *testing.T) {
	tasks, texts := map[string]int{}, map[string]bool{}
	for _, m := range draw(t, Count, 1) {
		tasks[m.Tag]++
		if texts[m.Prompt] {
			t.Errorf("%q twice", m.Prompt)
		}
		texts[m.Prompt] = true
		read, err := geneval.ParseMetadata([]byte(m.Dump()))
		if err != nil || !reflect.DeepEqual(read.Include, m.Include) || !reflect.DeepEqual(read.Exclude, m.Exclude) {
			t.Fatalf("%s: read as %+v (%v)", m.Dump(), read, err)
		}
		if curate.Test(curate.Scene(m)) {
			t.Errorf("%q asks for a test prompt's scene", m.Prompt)
		}
	}
	want := map[string]int{geneval.TwoObject: 3973, geneval.Counting: 407, geneval.Colors: 674, geneval.Position: 3973, geneval.ColorAttr: 3973}
	if !reflect.DeepEqual(tasks, want) {
		t.Errorf("%v prompts of the tasks, want %v", tasks, want)
	}
}

// Every prompt, read word by word, says what its metadata say.
func TestTextAndMetadataAgree(t *testing.T) {
	class, colours := map[string]string{}, map[string]string{} // of an object's text with article, number or colour
	for _, o := range Objects() {
		class[geneval.English(o.Name)+" "+o.Name] = o.Class
		for _, c := range o.Colours {
			text := geneval.English(c) + " " + c + " " + o.Name
			class[text], colours[text] = o.Class, c
		}
		for n, number := range map[int]string{2: "two", 3: "three", 4: "four"} {
			class[number+" "+o.Plural] = fmt.Sprint(n, o.Class)
		}
	}
	relations, counts := map[string]int{}, map[int]int{}
	for task, pool := range Pools() {
		for _, m := range pool {
			text := strings.TrimPrefix(m.Prompt, "a photo of ")
			first, ok := m.Include[0], true
			switch task {
			case geneval.Counting:
				ok = class[text] == fmt.Sprint(first.Count, first.Class) && m.Exclude[0] == geneval.Clause{Class: first.Class, Count: first.Count + 1}
				counts[first.Count]++
			case geneval.Colors:
				ok = class[text] == first.Class && colours[text] == first.Color && first.Color != ""
			case geneval.TwoObject, geneval.ColorAttr:
				a, b, _ := strings.Cut(text, " and ")
				second := m.Include[1]
				ok = class[a] == first.Class && class[b] == second.Class && colours[a] == first.Color && colours[b] == second.Color &&
					first.Class != second.Class && (first.Color != second.Color) == (task == geneval.ColorAttr)
			case geneval.Position:
				a, b, _ := strings.Cut(text, " "+m.Include[1].Relation+" ")
				ok = class[a] == m.Include[1].Class && class[b] == first.Class && class[a] != class[b]
				relations[m.Include[1].Relation]++
			}
			if !ok {
				t.Errorf("%q has the metadata %s", m.Prompt, m.Dump())
			}
		}
	}
	for _, r := range geneval.Relations() {
		if share := float64(relations[r]) / float64(len(Pools()[geneval.Position])); share < .23 || share > .27 {
			t.Errorf("%.3f of the positions are %q, want a quarter", share, r)
		}
	}
	if len(counts) != 3 {
		t.Errorf("counts %v, want 2, 3 and 4", counts)
	}
}

// All 80 classes are test prompts of single_object, so that the strict filter leaves none.
func TestNoSingleObjectIsLeft(t *testing.T) {
	for _, o := range Objects() {
		if m := single(o); !inTest(m) {
			t.Errorf("%q is left", m.Prompt)
		}
	}
	if pool := Pools()[geneval.SingleObject]; len(pool) != 0 {
		t.Errorf("%d prompts of single_object", len(pool))
	}
}

func TestEveryObjectIsAskedFor(t *testing.T) {
	var all strings.Builder
	for _, m := range draw(t, Count, 1) {
		all.WriteString(m.Prompt + " ;")
	}
	for _, o := range Objects() {
		if n := strings.Count(all.String(), " "+o.Name+" "); n < 40 {
			t.Errorf("%s: in %d prompts, want at least 40", o.Name, n)
		}
	}
}

func TestSeedDecides(t *testing.T) {
	first := draw(t, 60, 1)
	if again := draw(t, 60, 1); !reflect.DeepEqual(first, again) {
		t.Error("the same seed draws other prompts")
	}
	if !reflect.DeepEqual(first[:20], draw(t, 20, 1)) {
		t.Error("fewer prompts are not the first ones of many")
	}
	if other := draw(t, 60, 2); reflect.DeepEqual(first, other) {
		t.Error("two seeds draw the same prompts")
	}
}

func TestTooMany(t *testing.T) {
	total := 0
	for _, pool := range Pools() {
		total += len(pool)
	}
	if _, err := Prompts(total+1, 1); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("1 to %d can be had", total)) {
		t.Errorf("%v, want an error that says that there are %d", err, total)
	}
}

func ExamplePrompts() {
	list, err := Prompts(5, 1)
	if err != nil {
		panic(err)
	}
	for _, m := range list {
		fmt.Println(m.Prompt)
	}
	// Output:
	// a photo of a fire hydrant and a plastic spoon
	// a photo of two heads of broccoli
	// a photo of a red mixing bowl
	// a photo of a fire truck above a backpack
	// a photo of a red backpack and a green parking meter
}

func BenchmarkPools(b *testing.B) {
	for b.Loop() {
		Pools()
	}
}
