package sft

import (
	"errors"
	"fmt"
	"maps"
	"math"
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
	// Share is the share of the conversations that is used, drawn with the recipe's seed, as LLaVA's "random:50%".
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

// read returns the conversations of all sources, one source after the other, and the hash of the data.
func (d JudgeData) read(set questions.Set, seed uint64) (all []curate.Conversation, hash string, err error) {
	var sums []string
	for i, s := range d.Sources {
		talks, err := curate.Conversations(s.Kind, s.From, set, d.Validation)
		if err != nil {
			return nil, "", fmt.Errorf("sft: %w", err)
		}
		if s.Asks != "" {
			talks = slices.DeleteFunc(talks, func(c curate.Conversation) bool { return kind(c) != s.Asks })
		}
		some := shareOf(talks, s.Share, seed, i)
		if len(some) == 0 {
			return nil, "", fmt.Errorf("sft: a share of %v of %s are none of %d conversations", s.Share, s.From, len(talks))
		}
		all = append(all, some...)
		sum, err := curate.Fingerprint(s.From)
		if err != nil {
			return nil, "", err
		}
		if !slices.Contains(sums, sum) {
			sums = append(sums, sum)
		}
	}
	return all, strings.Join(sums, "+"), nil
}

// shareOf draws a share of the conversations of source i, rounded to whole ones, and keeps their order.
func shareOf(talks []curate.Conversation, share float64, seed uint64, i int) []curate.Conversation {
	n := int(math.Round(share * float64(len(talks))))
	if n == len(talks) {
		return talks
	}
	chosen := prng.New(seed, i, prng.Curate, own).Perm(len(talks))[:n]
	slices.Sort(chosen)
	out := make([]curate.Conversation, n)
	for k, at := range chosen {
		out[k] = talks[at]
	}
	return out
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
