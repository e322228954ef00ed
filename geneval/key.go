package geneval

import (
	"fmt"
	"slices"
	"strings"
)

// Key names the scene that a prompt of one of the six tasks asks for, so that two prompts with one key ask for the same:
// the order of two objects does not matter, and "a right of b" is "b left of a". Training prompts are kept apart from
// test prompts by key, not by text. Metadata that does not have the form of its tag is an error.
func Key(m Metadata) (string, error) {
	want := map[string]int{SingleObject: 1, TwoObject: 2, Counting: 1, Colors: 1, Position: 2, ColorAttr: 2}[m.Tag]
	if want == 0 {
		return "", fmt.Errorf("geneval: key: unknown task %q", m.Tag)
	}
	if len(m.Include) != want {
		return "", fmt.Errorf("geneval: key: %s with %d clauses, want %d", m.Tag, len(m.Include), want)
	}
	first := m.Include[0]
	parts := []string{m.Tag}
	switch m.Tag {
	case SingleObject:
		parts = append(parts, first.Class)
	case Counting:
		parts = append(parts, fmt.Sprint(first.Count), first.Class)
	case Colors:
		parts = append(parts, first.Color+" "+first.Class)
	case TwoObject:
		parts = append(parts, slices.Sorted(slices.Values([]string{first.Class, m.Include[1].Class}))...)
	case ColorAttr:
		second := m.Include[1]
		pair := []string{first.Color + " " + first.Class, second.Color + " " + second.Class}
		parts = append(parts, slices.Sorted(slices.Values(pair))...)
	case Position:
		a, b := m.Include[1], first // a stands in the relation to b
		relation, from, to := a.Relation, a.Class, b.Class
		switch relation {
		case RightOf:
			relation, from, to = LeftOf, to, from
		case Below:
			relation, from, to = Above, to, from
		case LeftOf, Above:
		default:
			return "", fmt.Errorf("geneval: key: position without a relation in clause 1")
		}
		parts = append(parts, from, relation, to)
	}
	return strings.Join(parts, "|"), nil
}
