package curate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
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

func TestValidationShare(t *testing.T) {
	n := 0
	for i := range 2000 {
		if Validation(fmt.Sprint("prompt ", i), .1) {
			n++
		}
	}
	if n < 150 || n > 250 {
		t.Errorf("%d of 2000 prompts at a share of .1", n)
	}
}
