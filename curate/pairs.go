package curate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Item is one labelled example as a sampler sees it. Items of one Group differ in nothing but what the judge shall see:
// the same prompt for final images and for clarity, the same prompt and step for step images.
type Item struct {
	Task  string
	Group string
	Yes   bool
}

// Pairs draws examples so that the label is balanced inside each group. Balanced over the whole data instead, the label
// goes with the prompt's task (or with the step), and a judge learns that and not to look.
type Pairs struct {
	tasks  []string
	groups map[string][]pairGroup // by task; both labels each
}

type pairGroup struct{ yes, no []int } // indices into the items

// NewPairs groups the items; groups with one label only are left out. No group with both labels is an error.
func NewPairs(items []Item) (*Pairs, error) {
	type key struct{ task, group string }
	index := map[key]int{}
	var keys []key
	var all []pairGroup
	for i, it := range items {
		k := key{it.Task, it.Group}
		g, ok := index[k]
		if !ok {
			g = len(all)
			index[k] = g
			keys, all = append(keys, k), append(all, pairGroup{})
		}
		if it.Yes {
			all[g].yes = append(all[g].yes, i)
		} else {
			all[g].no = append(all[g].no, i)
		}
	}
	p := &Pairs{groups: map[string][]pairGroup{}}
	for g, k := range keys {
		if len(all[g].yes) > 0 && len(all[g].no) > 0 {
			p.groups[k.task] = append(p.groups[k.task], all[g])
		}
	}
	for task := range p.groups {
		p.tasks = append(p.tasks, task)
	}
	if len(p.tasks) == 0 {
		return nil, fmt.Errorf("curate: none of %d groups (%d examples) has both labels", len(all), len(items))
	}
	slices.Sort(p.tasks)
	return p, nil
}

// Groups is the number of groups with both labels.
func (p *Pairs) Groups() int {
	n := 0
	for _, g := range p.groups {
		n += len(g)
	}
	return n
}

// Draw returns the indices of one yes and one no of one group: each task as often as any other, each group of a task too.
func (p *Pairs) Draw(rng *rand.Rand) (yes, no int) {
	groups := p.groups[p.tasks[rng.IntN(len(p.tasks))]]
	g := groups[rng.IntN(len(groups))]
	return g.yes[rng.IntN(len(g.yes))], g.no[rng.IntN(len(g.no))]
}

// InsideAUC is the probability that a yes scores higher than a no of the same group (ties count half), a mean over groups
// with both labels, each weighing the same; and the number of such groups. It is what choosing among paths needs: scores
// of different prompts are never compared.
func InsideAUC(items []Item, scores []float64) (auc float64, groups int) {
	type tally struct{ yes, no []float64 }
	by := map[string]*tally{}
	var order []string
	for i, it := range items {
		key := it.Task + "\x00" + it.Group
		t := by[key]
		if t == nil {
			t = &tally{}
			by[key] = t
			order = append(order, key)
		}
		if it.Yes {
			t.yes = append(t.yes, scores[i])
		} else {
			t.no = append(t.no, scores[i])
		}
	}
	sum := 0.0
	for _, key := range order {
		t := by[key]
		if len(t.yes) == 0 || len(t.no) == 0 {
			continue
		}
		wins := 0.0
		for _, y := range t.yes {
			for _, n := range t.no {
				switch {
				case y > n:
					wins++
				case y == n:
					wins += .5
				}
			}
		}
		sum += wins / float64(len(t.yes)*len(t.no))
		groups++
	}
	if groups == 0 {
		return math.NaN(), 0
	}
	return sum / float64(groups), groups
}
