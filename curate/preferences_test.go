package curate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// final is a finished path of one step with one token.
func final(prompt string, seed uint64, token int32, correct bool) Image {
	return Image{Task: "counting", Prompt: prompt, Path: int32(seed), Seed: seed, Steps: 1, Samples: []int32{token}, Correct: correct}
}

func TestPairsCombineLabelsOfAPromptEvenly(t *testing.T) {
	var images []Image
	for i := range 10 {
		images = append(images, final("a", uint64(i), int32(i), i < 4)) // 4 yes, 6 no
	}
	made, err := PairData{PerPrompt: 24, Seed: 1}.pair(images)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range made.pairs {
		if p.Chosen[0] >= 4 || p.Rejected[0] < 4 || int(p.ChosenSeed) != int(p.Chosen[0]) || int(p.RejectedSeed) != int(p.Rejected[0]) {
			t.Errorf("pair %+v", p)
		}
		seen[fmt.Sprint(p.Chosen, p.Rejected)] = true
	}
	if len(seen) != 24 {
		t.Errorf("%d different pairs of 4 x 6 images, want all 24", len(seen))
	}
	few, err := PairData{PerPrompt: 4, Seed: 1}.pair(images)
	if err != nil || len(few.pairs) != 4 || few.chosens != 4 {
		t.Errorf("4 pairs of 4 right images use %d of them (%d pairs, %v)", few.chosens, len(few.pairs), err)
	}
	other, err := PairData{PerPrompt: 4, Seed: 2}.pair(images)
	if err != nil || fmt.Sprint(other.pairs) == fmt.Sprint(few.pairs) {
		t.Error("another seed makes the same pairs")
	}
}

func TestNearestPairsResembleEachOther(t *testing.T) {
	image := func(seed uint64, correct bool, tokens ...int32) Image {
		return Image{Prompt: "a", Seed: seed, Steps: 1, Samples: tokens, Correct: correct}
	}
	made, err := PairData{PerPrompt: 3, Nearest: true}.pair([]Image{
		image(1, true, 0, 0, 0, 0), image(2, true, 9, 9, 9, 9),
		image(3, false, 0, 0, 0, 1), image(4, false, 9, 9, 8, 8), image(5, false, 5, 5, 5, 5),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range made.pairs {
		got = append(got, fmt.Sprint(p.ChosenSeed, "-", p.RejectedSeed))
	}
	if len(got) != 3 || got[0] != "1-3" || got[1] != "2-4" {
		t.Errorf("pairs %v", got)
	}
	var many []Image
	for i := range 9 {
		many = append(many, image(uint64(i), i < 1, int32(i), 0))
	}
	if made, err := (PairData{PerPrompt: 8, Nearest: true}).pair(many); err != nil || len(made.pairs) != 8 {
		t.Errorf("%d pairs of one right and eight wrong images (%v)", len(made.pairs), err)
	}
}

func TestRejectedImagesShowAllObjects(t *testing.T) {
	const (
		place = `{"tag":"position","include":[{"class":"ring","count":1},{"class":"star","count":1,"position":["above",0]}],"prompt":"p"}`
		two   = `{"tag":"two_object","include":[{"class":"ring","count":1},{"class":"star","count":1}],"prompt":"t"}`
		lost  = "expected star>=1, found 0"
		moved = "expected star above target, found below target"
	)
	image := func(prompt, metadata string, seed uint64, reason string) Image {
		return Image{Task: prompt, Prompt: prompt, Metadata: metadata, Seed: seed, Steps: 1, Samples: []int32{int32(seed)}, Correct: reason == "", Reason: reason}
	}
	images := []Image{
		image("p", place, 1, ""), image("p", place, 2, lost), image("p", place, 3, moved), image("p", place, 4, moved+"\n"+lost),
		image("t", two, 5, ""), image("t", two, 6, lost),
		image("q", place, 7, ""), image("q", place, 8, lost),
	}
	for _, c := range []struct {
		present bool
		want    string
		absent  int
	}{{false, "[1-2 1-3 1-4 5-6 7-8]", 0}, {true, "[1-3 5-6]", 1}} {
		made, err := PairData{PerPrompt: 4, Present: c.present}.pair(slices.Clone(images))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range made.pairs {
			got = append(got, fmt.Sprint(p.ChosenSeed, "-", p.RejectedSeed))
		}
		slices.Sort(got)
		if fmt.Sprint(got) != c.want || made.absent != c.absent || made.allYes != 0 || made.imagesYes != 3 {
			t.Errorf("present %v: pairs %v, want %s; %+v", c.present, got, c.want, made)
		}
	}
	if _, err := (PairData{PerPrompt: 4, Present: true}).pair(images[6:]); err == nil || !strings.Contains(err.Error(), "1 none that shows all objects") {
		t.Errorf("nothing to pair: error %v", err)
	}
	images[1].Metadata = "{"
	if _, err := (PairData{PerPrompt: 4, Present: true}).pair(images); err == nil || !strings.Contains(err.Error(), "\"p\"") {
		t.Errorf("damaged metadata: error %v", err)
	}
}

func TestBalancedPairs(t *testing.T) {
	var images []Image
	add := func(task, prompt string, yes, no int) {
		for i := range yes + no {
			images = append(images, Image{Task: task, Prompt: prompt, Seed: uint64(len(images)), Steps: 1, Samples: []int32{int32(len(images))}, Correct: i < yes})
		}
	}
	for _, prompt := range []string{"a", "b", "c", "d"} {
		add("many", prompt, 3, 3)
	}
	add("few", "e", 10, 10)
	add("scarce", "f", 1, 10)
	for name, c := range map[string]struct {
		balance bool
		want    map[string]int
	}{
		"as they are": {false, map[string]int{"many": 12, "few": 3, "scarce": 3}},
		"balanced":    {true, map[string]int{"many": 12, "few": 12, "scarce": usesBalanced}},
	} {
		for _, nearest := range []bool{false, true} {
			made, err := PairData{PerPrompt: 3, Balance: c.balance, Nearest: nearest}.pair(images)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, p := range made.pairs {
				got[p.Task]++
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("%s, nearest %v: %v pairs, want %v", name, nearest, got, c.want)
			}
		}
	}
}

func TestPairsLeaveOutAndCount(t *testing.T) {
	made, err := PairData{PerPrompt: 8, Seed: 1}.pair([]Image{
		final("all right", 1, 1, true), final("all right", 2, 2, true), final("all wrong", 3, 3, false),
		final("both", 4, 4, true), final("both", 5, 4, false), final("both", 6, 6, false),
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(made.pairs) != 1 || made.pairs[0].RejectedSeed != 6 || made.allYes != 1 || made.allNo != 1 || made.equal != 1 || made.prompts != 3 {
		t.Errorf("%+v", made)
	}
	for name, images := range map[string][]Image{
		"1 have only yes": {final("a", 1, 1, true), final("a", 2, 2, true)},
		"1 only no":       {final("a", 1, 1, false)},
		"1 combinations":  {final("a", 1, 1, false), final("a", 2, 1, true)},
		"not what":        {final("a", 1, 1, false), {Prompt: "a", Steps: 1}},
	} {
		if _, err := (PairData{PerPrompt: 8}).pair(images); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want one that says %q", err, name)
		}
	}
}

func TestPairDataFollowsRankingData(t *testing.T) {
	from, dir, other := t.TempDir(), t.TempDir(), t.TempDir()
	if err := ranking(from, trainPrompts(t, 6), &coin{}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := PairData{Dir: dir, From: from, PerPrompt: 3, Seed: 7, PartSize: 2}
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	pairs, err := Read[Pair](dir)
	if err != nil {
		t.Fatal(err)
	}
	seeds := map[uint64]bool{}
	for _, p := range pairs {
		if p.Chosen[0] < 9 || p.Rejected[0] >= 9 || p.Task == "" || p.Metadata == "" { // heads decides by the token
			t.Errorf("pair %+v", p)
		}
		seeds[p.Seed] = true
	}
	if len(pairs) < 4 || len(seeds) != len(pairs) {
		t.Errorf("%d pairs with %d seeds", len(pairs), len(seeds))
	}
	card, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil || !strings.Contains(string(card), fmt.Sprintf("| all | %d |", 2*len(pairs))) || !strings.Contains(string(card), "left out") {
		t.Errorf("card %s, error %v", card, err)
	}
	// A build that was stopped ends with the same bytes.
	ctx, stop := context.WithCancel(t.Context())
	d.Dir, d.Progress = other, func(int, int) { stop() }
	if err := d.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	d.Progress = nil
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := Fingerprint(dir)
	b, err2 := Fingerprint(other)
	if err != nil || err2 != nil || a != b {
		t.Errorf("%s %s %v %v", a, b, err, err2)
	}
	d.PerPrompt++
	if err := d.Run(t.Context()); !errors.Is(err, ErrOtherData) {
		t.Errorf("error %v, want ErrOtherData", err)
	}
}
