package sft

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"imagecot/cot"
	"imagecot/curate"
	"imagecot/internal/prng"
	"imagecot/verify/questions"
)

// Source is a data set and how much of it is used.
type Source struct {
	From string `json:"from"` // folder of a data set, or several ("A,B")
	Kind string `json:"kind"` // ranking, steps, parm or reflection
	// Share is the share of the conversations that is used, as LLaVA's "random:50%". Each is drawn by itself, with the recipe's
	// seed, so that as many are used as the share says but for chance.
	Share float64 `json:"share"`
	// Asks limits a source to conversations whose last question is of this kind ("" takes all): a data set of PARM's labels has
	// clarity, potential (after clarity) and outcome, of which the paper uses 120K, 80K and 200K.
	Asks cot.QuestionKind `json:"asks"`
}

// rewards are the data sets that each reward model needs and those that it may have besides. What else one asked it would not
// be asked again: a PRM is no judge of final images.
var rewards = map[string]struct{ needs, takes []string }{
	"orm":    {[]string{"ranking"}, nil},
	"prm":    {[]string{"steps"}, nil},
	"parm":   {[]string{"parm"}, []string{"ranking"}},
	"parmpp": {[]string{"parm", "reflection"}, []string{"ranking"}},
}

func (d JudgeData) validateSources() error {
	of, ok := rewards[d.Reward]
	if !ok {
		return fmt.Errorf("sft: data.reward is %q, want one of %s", d.Reward, strings.Join(slices.Sorted(maps.Keys(rewards)), ", "))
	}
	given := map[string]bool{}
	for i, s := range d.Sources {
		given[s.Kind] = true
		switch {
		case s.From == "":
			return fmt.Errorf("sft: data.sources: from is missing in source %d: which folder?", i)
		case !slices.Contains(of.needs, s.Kind) && !slices.Contains(of.takes, s.Kind):
			return fmt.Errorf("sft: data.sources: %s is of kind %q, and %s takes %s", s.From, s.Kind, d.Reward, strings.Join(slices.Concat(of.needs, of.takes), ", "))
		case !(s.Share > 0 && s.Share <= 1):
			return fmt.Errorf("sft: data.sources: share of %s is %v, want more than 0 and at most 1", s.From, s.Share)
		}
	}
	for _, kind := range of.needs {
		if !given[kind] {
			return fmt.Errorf("sft: data.sources: %s needs a source of kind %s", d.Reward, kind)
		}
	}
	return nil
}

// read returns the conversations of all sources, one source after the other, and the hash of the data. Sources of one data set
// are read together, in one pass.
func (d JudgeData) read(set questions.Set, seed uint64) (all []curate.Conversation, hash string, err error) {
	talks, of := make([][]curate.Conversation, len(d.Sources)), make([]int, len(d.Sources))
	var sums []string
	known := map[Source]bool{}
	for _, s := range d.Sources {
		data := Source{From: s.From, Kind: s.Kind}
		if known[data] {
			continue
		}
		known[data] = true
		var takers [][]int // sources of each conversation that is kept
		kept, err := curate.Conversations(s.Kind, s.From, set, d.Validation, func(last cot.QuestionKind, n int) bool {
			var by []int
			for i, s := range d.Sources {
				if s.From != data.From || s.Kind != data.Kind || (s.Asks != "" && s.Asks != last) {
					continue
				}
				if of[i]++; drawn(s.Share, seed, i, n) {
					by = append(by, i)
				}
			}
			if by != nil {
				takers = append(takers, by)
			}
			return by != nil
		})
		if err != nil {
			return nil, "", fmt.Errorf("sft: %w", err)
		}
		for k, c := range kept {
			for _, i := range takers[k] {
				talks[i] = append(talks[i], c)
			}
		}
		sum, err := curate.Fingerprint(s.From)
		if err != nil {
			return nil, "", err
		}
		if !slices.Contains(sums, sum) {
			sums = append(sums, sum)
		}
	}
	for i, s := range d.Sources {
		if len(talks[i]) == 0 {
			return nil, "", fmt.Errorf("sft: a share of %v of %s are none of %d conversations", s.Share, s.From, of[i])
		}
		all = append(all, talks[i]...)
	}
	return all, strings.Join(sums, "+"), nil
}

// drawn says whether conversation n of source i is in the share, whatever the others are.
func drawn(share float64, seed uint64, i, n int) bool {
	return prng.New(seed, n, prng.Curate, uint32(i)).Float64() < share
}

// checkAnswers refuses a yes/no question that has one answer alone: it would be learnt without a look at the images.
func checkAnswers(talks []curate.Conversation) error {
	yes, no := map[cot.QuestionKind]int{}, map[cot.QuestionKind]int{}
	for _, c := range talks {
		for _, t := range c.Turns {
			switch t.Answer {
			case "yes":
				yes[t.Kind]++
			case "no":
				no[t.Kind]++
			}
		}
	}
	var faults []error
	for _, k := range []cot.QuestionKind{cot.Outcome, cot.Process, cot.Clarity, cot.Potential, cot.Reflection} {
		if (yes[k] == 0) != (no[k] == 0) {
			faults = append(faults, fmt.Errorf("sft: the question of %s is answered yes %d times and no %d times; both are needed", k, yes[k], no[k]))
		}
	}
	return errors.Join(faults...)
}

// counts are numbers with their names.
func counts(of map[cot.QuestionKind]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(of)) {
		out = append(out, fmt.Sprint(of[k], " ", k))
	}
	return strings.Join(out, ", ")
}

// order visits n things again and again, in every epoch in a permutation of its own, which follows from seed and epoch alone.
type order struct {
	seed uint64
	n    int

	mu    sync.Mutex
	epoch int // of perm; -1 before any
	perm  []int
}

// at is the thing of visit v, from 0.
func (o *order) at(v int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if epoch := v / o.n; epoch != o.epoch {
		o.epoch, o.perm = epoch, prng.New(o.seed, epoch, prng.Order).Perm(o.n)
	}
	return o.perm[v%o.n]
}
