package geneval

import (
	"fmt"
	"slices"
	"strings"
)

// Reason says in one short sentence why an image does not follow the prompt (PARM++, Appendix B), in place of the paper's
// annotations by GPT-4o: "the circle is missing", "the square is blue not red", "there are two stars not three", "the star
// is left of the ring not right". It is "" for a correct image. r is the verdict of Evaluator on the image. Words are few, for
// the tiny world's text tokenizer; "the" is the only object of its class, "a" one of several.
func Reason(m Metadata, r Result) (string, error) {
	if r.Correct {
		return "", nil
	}
	seen := sighting{r.Kept, DefaultOptions().PositionThreshold}
	var parts, missing []string
	failed := make([]bool, len(m.Include))
	for i, c := range m.Include {
		objects := seen.of(c.Class)
		if len(objects) < c.Count {
			failed[i] = true
			if c.Count == 1 {
				missing = append(missing, "the "+c.Class)
			} else {
				parts = append(parts, count(c.Class, len(objects), c.Count))
			}
			continue
		}
		if c.Color != "" {
			part, err := seen.colour(c)
			if err != nil {
				return "", err
			}
			if part != "" {
				parts, failed[i] = append(parts, part), true
				continue
			}
		}
		if c.Relation != "" && !failed[c.Target] {
			if part := seen.place(c, m.Include[c.Target]); part != "" {
				parts, failed[i] = append(parts, part), true
			}
		}
	}
	for _, c := range m.Exclude {
		if n := len(seen.of(c.Class)); n >= c.Count {
			parts = append(parts, count(c.Class, n, c.Count-1))
		}
	}
	switch {
	case len(missing) == 1:
		parts = append([]string{missing[0] + " is missing"}, parts...)
	case len(missing) > 1:
		parts = append([]string{strings.Join(missing, " and ") + " are missing"}, parts...)
	}
	if len(parts) == 0 {
		return "", fmt.Errorf("geneval: the verdict on %q has no reason that its detections show (%s)", m.Prompt, strings.Join(r.Reasons, "; "))
	}
	return strings.Join(parts, " and "), nil
}

// count is "there are two stars not three".
func count(class string, n, want int) string {
	number := func(n int) string { return [...]string{"no", "one", "two", "three", "four", "five", "six"}[n] }
	switch {
	case n > 6 || want > 6:
		return "there are too many " + Plural(class)
	case n == 1:
		return "there is one " + class + " not " + number(want)
	case n == 0:
		return "there are no " + Plural(class)
	}
	return "there are " + number(n) + " " + Plural(class) + " not " + number(want)
}

// sighting is what the detector kept, class by class, best first.
type sighting struct {
	kept      []Kept
	threshold float32 // of positions
}

func (s sighting) of(class string) []Detection {
	for _, k := range s.kept {
		if k.Class == class {
			return k.Objects
		}
	}
	return nil
}

// name is "the star", or "a star" if there are more of them.
func (s sighting) name(class string) string {
	if len(s.of(class)) > 1 {
		return "a " + class
	}
	return "the " + class
}

// colour is "the square is blue not red", "" if the best objects have the colour that is asked for.
func (s sighting) colour(c Clause) (string, error) {
	var other string
	right := 0
	for _, o := range s.of(c.Class)[:c.Count] {
		switch o.Colour {
		case "":
			return "", fmt.Errorf("geneval: the colour of a %s was asked for and is not known", c.Class)
		case c.Color:
			right++
		default:
			other = o.Colour
		}
	}
	switch {
	case right >= c.Count:
		return "", nil
	case c.Count > 1:
		return fmt.Sprintf("there are too few %s %s", c.Color, Plural(c.Class)), nil
	}
	return fmt.Sprintf("%s is %s not %s", s.name(c.Class), other, c.Color), nil
}

// place is "the star is left of the ring not right", "" if the best objects are placed as asked.
func (s sighting) place(c, target Clause) string {
	for _, a := range s.of(c.Class)[:c.Count] {
		for _, b := range s.of(target.Class)[:target.Count] {
			set := Relation(a.Box, b.Box, s.threshold)
			if slices.Contains(set, c.Relation) {
				continue
			}
			subject, object := s.name(c.Class), s.name(target.Class)
			if len(set) == 0 {
				return fmt.Sprintf("%s is not %s %s", subject, c.Relation, object)
			}
			return fmt.Sprintf("%s is %s %s not %s", subject, set[0], object, strings.TrimSuffix(c.Relation, " of"))
		}
	}
	return ""
}
