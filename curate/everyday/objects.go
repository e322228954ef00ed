// Package everyday draws training prompts at full scale (Sec. 2.2): 200 everyday objects that can be counted, the colours
// in which they are usually seen, and GenEval's six templates. GPT-4 wrote the paper's list, which was not published; this
// one is ours (Deviation D30). A name need not be a class of GenEval's detector, but has one by which the detector can
// label images of it: a mug is a cup. The text of a prompt says the name, its metadata the class.
package everyday

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"imagecot/geneval"
)

//go:embed objects.txt
var objectFile string

// Object is one kind of thing.
type Object struct {
	Name, Plural string
	Class        string   // one of geneval.Classes
	Colours      []string // of geneval.Colours; empty for what is usually seen in none of them
}

// Objects are the 200 objects, in the order of the detector's classes. The slice is the caller's.
func Objects() []Object {
	list, err := parse(objectFile)
	if err != nil {
		panic(err) // the file is part of the program and tested
	}
	return list
}

// parse reads one object a line: name; class; colours; plural where it is no regular one. Lines that start with # are
// skipped. Unknown classes and colours, a colour twice and a name twice are errors.
func parse(text string) ([]Object, error) {
	var list []Object
	known := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, ";")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if len(fields) < 3 || len(fields) > 4 || fields[0] == "" {
			return nil, fmt.Errorf("everyday: %q: want name; class; colours or name; class; colours; plural", line)
		}
		o := Object{Name: fields[0], Plural: plural(fields[0]), Class: fields[1], Colours: strings.Fields(fields[2])}
		if len(fields) == 4 {
			o.Plural = fields[3]
		}
		if known[o.Name] {
			return nil, fmt.Errorf("everyday: %s stands there twice", o.Name)
		}
		known[o.Name] = true
		if !slices.Contains(geneval.Classes(), o.Class) {
			return nil, fmt.Errorf("everyday: %s: unknown class %q", o.Name, o.Class)
		}
		for i, c := range o.Colours {
			if !slices.Contains(geneval.Colours(), c) || slices.Contains(o.Colours[:i], c) {
				return nil, fmt.Errorf("everyday: %s: colour %q is unknown or stands there twice", o.Name, c)
			}
		}
		list = append(list, o)
	}
	return list, nil
}

// plural is the regular English plural: unlike geneval.Plural, which keeps the benchmark's mistakes.
func plural(name string) string {
	ends := func(list ...string) bool {
		return slices.ContainsFunc(list, func(end string) bool { return strings.HasSuffix(name, end) })
	}
	switch {
	case ends("s", "x", "z", "ch", "sh"):
		return name + "es"
	case ends("y") && !ends("ay", "ey", "oy", "uy"):
		return strings.TrimSuffix(name, "y") + "ies"
	}
	return name + "s"
}
