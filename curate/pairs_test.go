package curate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"imagecot/geneval"
)

func TestPairsBalanceInsideGroupsAndTasks(t *testing.T) {
	var items []Item
	for i := range 300 { // task a: 30 prompts, mostly yes; task b: 3 prompts, mostly no
		task, group, yes := "a", fmt.Sprint("p", i%30), i%10 != 0 || i/30 == 0
		if i >= 270 {
			task, group, yes = "b", fmt.Sprint("q", i%3), i < 273
		}
		items = append(items, Item{task, group, yes})
	}
	items = append(items, Item{"c", "only yes", true})
	p, err := NewPairs(items)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	count := map[string]int{}
	for range 2000 {
		y, n := p.Draw(rng)
		if !items[y].Yes || items[n].Yes || items[y].Group != items[n].Group || items[y].Task != items[n].Task {
			t.Fatalf("pair %+v %+v", items[y], items[n])
		}
		count[items[y].Task]++
	}
	if count["c"] != 0 || count["a"] < 900 || count["b"] < 900 {
		t.Errorf("tasks drawn %v, want a and b equally often", count)
	}
	if _, err := NewPairs(items[len(items)-1:]); err == nil {
		t.Error("one label passed")
	}
}

func TestInsideAUCIgnoresDifferencesBetweenPrompts(t *testing.T) {
	items := []Item{{"a", "p", true}, {"a", "p", false}, {"a", "q", true}, {"a", "q", false}, {"a", "r", true}}
	// p is ranked right, q is a tie; that q's scores are all above p's does not count.
	auc, n := InsideAUC(items, []float64{2, 1, 9, 9, 0})
	if n != 2 || math.Abs(auc-.75) > 1e-12 {
		t.Errorf("AUC %v over %d groups, want .75 over 2", auc, n)
	}
	if auc, n := InsideAUC(items[4:], []float64{1}); n != 0 || !math.IsNaN(auc) {
		t.Errorf("AUC %v over %d groups", auc, n)
	}
}

// TestScenesGoTogether: two prompts for one scene are both kept or both trained on, and rows are judged as their prompts.
func TestScenesGoTogether(t *testing.T) {
	position := func(a, relation, b string) geneval.Metadata {
		return geneval.Metadata{
			Tag: geneval.Position, Prompt: fmt.Sprintf("a photo of a %s %s a %s", a, relation, b),
			Include: []geneval.Clause{{Class: b, Count: 1}, {Class: a, Count: 1, Relation: relation}},
		}
	}
	one, twin, other := position("star", geneval.LeftOf, "ring"), position("ring", geneval.RightOf, "star"), position("ring", geneval.LeftOf, "star")
	if Scene(one) != Scene(twin) || Scene(one) == Scene(other) {
		t.Errorf("scenes %q, %q and %q: want two of a kind", Scene(one), Scene(twin), Scene(other))
	}
	for _, row := range []interface{ Scene() string }{
		Image{Prompt: twin.Prompt, Metadata: twin.Dump()},
		Step{Prompt: twin.Prompt, Metadata: twin.Dump()},
		Parm{Prompt: twin.Prompt, Metadata: twin.Dump()},
		Reflected{Prompt: twin.Prompt, Metadata: twin.Dump()},
		Correction{Prompt: twin.Prompt, Metadata: twin.Dump()},
		Pair{Prompt: twin.Prompt, Metadata: twin.Dump()},
	} {
		if row.Scene() != Scene(one) {
			t.Errorf("the scene of a %T is %q, its prompt's %q", row, row.Scene(), Scene(one))
		}
	}
	unknown := geneval.Metadata{Tag: "mood", Prompt: "a sad star"}
	if Scene(unknown) != unknown.Prompt || (Image{Prompt: "a star"}).Scene() != "a star" {
		t.Errorf("scenes of no known form: %q and %q", Scene(unknown), Image{Prompt: "a star"}.Scene())
	}
}

func TestValidationShare(t *testing.T) {
	n := 0
	for i := range 2000 {
		if Validation(fmt.Sprint("scene ", i), .1) {
			n++
		}
	}
	if n < 150 || n > 250 {
		t.Errorf("%d of 2000 scenes at a share of .1", n)
	}
}
