package ckpt

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Mismatch is what keeps a checkpoint from being a model: tensors that are missing, that nobody uses, or that have another
// shape. A nil *Mismatch is none.
type Mismatch struct {
	Model     string // package that complains
	Missing   []string
	Unused    []string
	Misshapen []Misshapen
	Guess     string // the likely cause, "" without one
}

// Misshapen is a tensor of another shape than the model's.
type Misshapen struct {
	Name      string
	Got, Want []int
}

// Compare holds the shapes that there are against those that a model wants. It returns nil if they agree.
func Compare(model string, have, want map[string][]int) *Mismatch {
	f := &Mismatch{Model: model}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got, ok := have[name]; !ok {
			f.Missing = append(f.Missing, name)
		} else if !slices.Equal(got, want[name]) {
			f.Misshapen = append(f.Misshapen, Misshapen{name, got, want[name]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[name]; !ok {
			f.Unused = append(f.Unused, name)
		}
	}
	if len(f.Missing)+len(f.Unused)+len(f.Misshapen) == 0 {
		return nil
	}
	return f
}

// Error names the first few tensors and the likely cause.
func (f *Mismatch) Error() string {
	var all []string
	for _, name := range f.Missing {
		all = append(all, fmt.Sprintf("%q is missing", name))
	}
	for _, m := range f.Misshapen {
		all = append(all, fmt.Sprintf("%q has shape %v, want %v", m.Name, m.Got, m.Want))
	}
	for _, name := range f.Unused {
		all = append(all, fmt.Sprintf("%q is not used", name))
	}
	// A few of each kind say more than many of one.
	const shown = 2
	var first []string
	at := 0
	for _, n := range []int{len(f.Missing), len(f.Misshapen), len(f.Unused)} {
		first = append(first, all[at:at+min(n, shown)]...)
		at += n
	}
	text := f.Model + ": weights: " + strings.Join(first, ", ")
	if more := len(all) - len(first); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if f.Guess != "" {
		text += " (" + f.Guess + "?)"
	}
	return text
}

// Unknown says whether an unused tensor's name contains the text.
func (f *Mismatch) Unknown(part string) bool {
	return slices.ContainsFunc(f.Unused, func(name string) bool { return strings.Contains(name, part) })
}

// Shapes returns the shape of every tensor.
func (f *File) Shapes() map[string][]int {
	out := make(map[string][]int, len(f.names))
	for _, name := range f.names {
		out[name] = slices.Clone(f.tensors[name].Shape)
	}
	return out
}
