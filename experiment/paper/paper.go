// Package paper holds what the paper reports: the numbers of its tables, the claims it draws from them as comparisons
// that can be computed, and the places where it disagrees with itself. It knows nothing of how rows are measured.
package paper

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"

	"imagecot/geneval"
	"imagecot/internal/stats"
)

var (
	//go:embed numbers.yaml
	numbersFile []byte
	//go:embed claims.yaml
	claimsFile []byte
	//go:embed inconsistencies.yaml
	inconsistenciesFile []byte
)

// Score is one row of a table of the paper. A task that the paper does not report is nil.
type Score struct {
	Tasks   [6]*float64 `json:"tasks"` // in the order of geneval.Tasks
	Overall float64     `json:"overall"`
}

// Number returns the paper's row of a table, named as in "table1/baseline", and whether there is one.
func Number(row string) (Score, bool) {
	s, ok := numbers()[row]
	return s, ok
}

var numbers = sync.OnceValue(func() map[string]Score {
	var tables map[string]map[string][]*float64
	must(numbersFile, &tables)
	out := map[string]Score{}
	for table, rows := range tables {
		for name, v := range rows {
			if len(v) != len(geneval.Tasks())+1 || v[6] == nil {
				panic(fmt.Sprintf("paper: %s/%s has %d numbers, want 7", table, name, len(v)))
			}
			out[table+"/"+name] = Score{Tasks: [6]*float64(v[:6]), Overall: *v[6]}
		}
	}
	return out
})

// Inconsistency is a place where the paper disagrees with itself.
type Inconsistency struct {
	Table string `yaml:"table" json:"table"`
	Text  string `yaml:"text" json:"text"`
}

// Inconsistencies lists those of some tables, or all if none are named.
func Inconsistencies(tables ...string) []Inconsistency {
	var all []Inconsistency
	must(inconsistenciesFile, &all)
	all = append(all, overalls()...)
	return slices.DeleteFunc(all, func(i Inconsistency) bool { return len(tables) > 0 && !slices.Contains(tables, i.Table) })
}

// overalls names the rows whose overall score is not the mean of the six tasks, by more than their two digits explain.
func overalls() []Inconsistency {
	rows := map[string][]string{} // by table
	for _, name := range slices.Sorted(maps.Keys(numbers())) {
		score, sum := numbers()[name], 0.0
		for _, v := range score.Tasks {
			if v == nil {
				sum = math.NaN()
			} else {
				sum += *v
			}
		}
		table, row, _ := strings.Cut(name, "/")
		if mean := sum / float64(len(score.Tasks)); math.Abs(mean-score.Overall) > .0099 {
			rows[table] = append(rows[table], fmt.Sprintf("%s (%.2f, mean %.3f)", row, score.Overall, mean))
		}
	}
	var all []Inconsistency
	for _, table := range slices.Sorted(maps.Keys(rows)) {
		all = append(all, Inconsistency{table, "Overall scores that are not the mean of their six tasks: " + strings.Join(rows[table], ", ") + "."})
	}
	return all
}

// Claim is something the paper (or this project) says, in words and as comparisons.
type Claim struct {
	Claim    string       `yaml:"claim" json:"claim"`
	Source   string       `yaml:"source" json:"source"`
	Note     string       `yaml:"note" json:"note,omitempty"`
	Untested string       `yaml:"untested" json:"untested,omitempty"` // why it cannot be tested here
	All      []Comparison `yaml:"all" json:"all,omitempty"`
	Any      []Comparison `yaml:"any" json:"any,omitempty"`
}

// Comparison is about the paired difference A - B of two rows' overall scores. Exactly one condition is set; Steps may
// come on top of it.
type Comparison struct {
	A        string   `yaml:"a" json:"a"`
	B        string   `yaml:"b" json:"b"`
	MoreThan *float64 `yaml:"more_than" json:"more_than,omitempty"`
	AtLeast  *float64 `yaml:"at_least" json:"at_least,omitempty"`
	Equal    *float64 `yaml:"equal" json:"equal,omitempty"`
	Reaches  bool     `yaml:"reaches" json:"reaches,omitempty"`
	Steps    *float64 `yaml:"steps" json:"steps,omitempty"`
}

// Claims lists all claims in the order of the paper, then this project's goals. The slice is the caller's.
func Claims() []Claim {
	var out []Claim
	must(claimsFile, &out)
	return out
}

// Verdict says whether a claim holds.
type Verdict string

// The verdicts.
const (
	Holds      Verdict = "holds"
	DoesNot    Verdict = "does not"
	CannotTell Verdict = "cannot tell"
)

// Judge computes the verdict of a comparison from the interval of the difference A - B and the ratio of the decoding
// steps of A and B.
func (c Comparison) Judge(ci stats.Interval, steps float64) Verdict {
	if c.Steps != nil && steps > *c.Steps {
		return DoesNot
	}
	low, high := ci[0], ci[1]
	switch {
	case math.IsNaN(low) || math.IsNaN(high):
		return CannotTell
	case c.MoreThan != nil:
		return verdict(low > *c.MoreThan, high <= *c.MoreThan)
	case c.AtLeast != nil:
		return verdict(low >= *c.AtLeast, high < *c.AtLeast)
	case c.Equal != nil:
		return verdict(low >= -*c.Equal && high <= *c.Equal, low > *c.Equal || high < -*c.Equal)
	}
	return verdict(high >= 0, high < 0)
}

func verdict(holds, not bool) Verdict {
	switch {
	case holds:
		return Holds
	case not:
		return DoesNot
	}
	return CannotTell
}

// Condition is what the comparison asks for, in words.
func (c Comparison) Condition() string {
	var s string
	switch {
	case c.MoreThan != nil:
		s = fmt.Sprintf("more than %+g", *c.MoreThan)
	case c.AtLeast != nil:
		s = fmt.Sprintf("at least %+g", *c.AtLeast)
	case c.Equal != nil:
		s = fmt.Sprintf("within %g", *c.Equal)
	default:
		s = "not below 0"
	}
	if c.Steps != nil {
		s += fmt.Sprintf(", at most %g of the decoding steps", *c.Steps)
	}
	return strings.Replace(s, "+0", "0", 1)
}

// Paper is the paper's own difference A - B, and whether it reports both rows.
func (c Comparison) Paper() (float64, bool) {
	a, okA := Number(c.A)
	b, okB := Number(c.B)
	return a.Overall - b.Overall, okA && okB
}

// Together is the verdict of a whole claim from those of its comparisons.
func (c Claim) Together(all, anyOf []Verdict) Verdict {
	if c.Untested != "" {
		return CannotTell
	}
	out := Holds
	for _, v := range all {
		if v == DoesNot {
			return DoesNot
		}
		if v == CannotTell {
			out = CannotTell
		}
	}
	if len(anyOf) == 0 || slices.Contains(anyOf, Holds) {
		return out
	}
	if slices.Contains(anyOf, CannotTell) {
		return CannotTell
	}
	return DoesNot
}

// must decodes a file of this package, which is tested.
func must(text []byte, into any) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil {
		panic(fmt.Sprintf("paper: %v", err))
	}
}
