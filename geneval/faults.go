package geneval

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Faults says what is wrong with the images of a task. Each image counts once, under the first fault that it has in the order
// of the fields: without an object there is no colour or place to be wrong.
type Faults struct {
	Tag      string `json:"tag"`
	Images   int    `json:"images"`
	Right    int    `json:"right"`
	TooFew   int    `json:"too_few"`  // objects of a class that is asked for
	TooMany  int    `json:"too_many"` // objects of a class that is counted
	Colour   int    `json:"colour"`
	Position int    `json:"position"`
}

// RightOfShown is the share of right images among those that show all objects, none too many: how well colours and places are
// bound to objects that are there. It is 0 without such images.
func (f Faults) RightOfShown() float64 {
	return float64(f.Right) / float64(max(1, f.Right+f.Colour+f.Position))
}

// CountFaults adds up the reasons of verdicts, task by task in the order of Tasks. A reason that no verdict gives is an error.
func CountFaults(rows []Row) ([]Faults, error) {
	var all []Faults
	for _, tag := range Tasks() {
		f := Faults{Tag: tag}
		for _, r := range rows {
			if r.Tag != tag {
				continue
			}
			f.Images++
			if r.Correct {
				f.Right++
				continue
			}
			reasons := strings.Split(r.Reason, "\n")
			some := func(is func(string) bool) bool { return slices.ContainsFunc(reasons, is) }
			switch {
			case TooFew(reasons):
				f.TooFew++
			case some(isTooMany):
				f.TooMany++
			case some(isColour):
				f.Colour++
			case some(isPosition):
				f.Position++
			default:
				return nil, fmt.Errorf("geneval: faults: %q of %s is no reason that a verdict gives", r.Reason, r.Filename)
			}
		}
		if f.Images > 0 {
			all = append(all, f)
		}
	}
	return all, nil
}

// tooFew is the whole reason of a clause whose objects are not all there; that of a colour goes on.
var tooFew = regexp.MustCompile(`^expected .+>=\d+, found \d+$`)

// TooFew reports whether one of a verdict's reasons is that an image shows too few objects of a class.
func TooFew(reasons []string) bool { return slices.ContainsFunc(reasons, tooFew.MatchString) }

func isTooMany(reason string) bool {
	return strings.HasPrefix(reason, "expected ") && strings.Contains(reason, "<")
}

func isColour(reason string) bool {
	return strings.HasPrefix(reason, "expected ") && strings.Contains(reason, ">=")
}

func isPosition(reason string) bool {
	return strings.HasPrefix(reason, "expected ") && strings.HasSuffix(reason, " target")
}
