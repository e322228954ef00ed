package geneval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"math"
	"slices"
	"strings"
)

// Detection is one object that a detector found.
type Detection struct {
	Class string
	// Box is x1, y1, x2, y2 in pixels of the image, x2 and y2 exclusive when the box comes from a mask.
	Box    [4]float32
	Score  float32
	Mask   *image.Alpha // where the object is; nil when the detector gives none
	Colour string       // "" when the detector does not know
}

// Detector finds objects of the given classes. Rows of one class may come in any order; for equal scores the later row
// ranks first, as in the original.
type Detector interface {
	Detect(ctx context.Context, img image.Image, classes []string) ([]Detection, error)
}

// ColourClassifier names the colour of each object of one class, one of Colours.
type ColourClassifier interface {
	Classify(ctx context.Context, img image.Image, class string, objects []Detection) ([]string, error)
}

// Options of the verdict, with the original's names and defaults (DefaultOptions).
type Options struct {
	Threshold         float32 // .3: a detection counts when its score is above
	CountingThreshold float32 // .9: the same, for the task counting
	MaxObjects        int     // 16 a class
	MaxOverlap        float32 // 1: no suppression
	PositionThreshold float32 // .1 of the sum of the sizes is a dead zone
}

// DefaultOptions are the benchmark's.
func DefaultOptions() Options {
	return Options{Threshold: .3, CountingThreshold: .9, MaxObjects: 16, MaxOverlap: 1, PositionThreshold: .1}
}

// Kept is what remains of one class's detections after threshold, limit and suppression, best first.
type Kept struct {
	Class   string
	Objects []Detection
	Rows    []int // index of each object in the detector's output
}

// Keep orders and thins the detections class by class, in the order of classes; a class with nothing kept is absent.
// Detections of other classes are dropped. All comparisons are float32, as in the original: a score equal to
// float32(0.3) is not above the threshold 0.3.
func Keep(classes []string, found []Detection, tag string, o Options) []Kept {
	threshold := o.Threshold
	if tag == Counting {
		threshold = o.CountingThreshold
	}
	var kept []Kept
	for _, class := range classes {
		var rows []int
		for i, d := range found {
			if d.Class == class && d.Score > threshold {
				rows = append(rows, i)
			}
		}
		slices.Reverse(rows) // so that the stable sort leaves later rows first among equals
		slices.SortStableFunc(rows, func(a, b int) int { return cmp.Compare(found[b].Score, found[a].Score) })
		rows = rows[:min(len(rows), o.MaxObjects)]
		if o.MaxOverlap < 1 {
			rows = suppress(found, rows, o.MaxOverlap)
		}
		if len(rows) == 0 {
			continue
		}
		k := Kept{Class: class, Rows: rows}
		for _, i := range rows {
			k.Objects = append(k.Objects, found[i])
		}
		kept = append(kept, k)
	}
	return kept
}

// suppress takes rows greedily and drops those that overlap a taken one by limit or more.
func suppress(found []Detection, rows []int, limit float32) []int {
	var taken []int
	for _, i := range rows {
		clash := slices.ContainsFunc(taken, func(j int) bool { return iou(found[i].Box, found[j].Box) >= limit })
		if !clash {
			taken = append(taken, i)
		}
	}
	return taken
}

// iou is intersection over union, counting pixels: the width of a box is x2 - x1 + 1.
func iou(a, b [4]float32) float32 {
	area := func(box [4]float32) float32 {
		w := max(float32(float32(box[2]-box[0])+1), 0)
		h := max(float32(float32(box[3]-box[1])+1), 0)
		return float32(w * h)
	}
	both := area([4]float32{max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])})
	union := float32(float32(area(a)+area(b)) - both)
	if union == 0 {
		return 0
	}
	return float32(both / union)
}

// Relation lists the relations of box a to box b, horizontal first; none when they are too close to tell. threshold is
// the share of the sum of both sizes that is taken off the offset, axis by axis, before it is compared with half the
// length of the whole offset. float32(...) around every step keeps fused multiply-adds out, which would flip verdicts at
// the limit.
func Relation(a, b [4]float32, threshold float32) []string {
	var offset, reduced [2]float32
	for axis := range 2 {
		ca := float32(float32(a[axis]+a[axis+2]) / 2)
		cb := float32(float32(b[axis]+b[axis+2]) / 2)
		size := float32(abs(float32(a[axis+2]-a[axis])) + abs(float32(b[axis+2]-b[axis])))
		o := float32(ca - cb)
		r := max(float32(abs(o)-float32(threshold*size)), 0)
		if o < 0 {
			r = -r
		}
		offset[axis], reduced[axis] = o, r
	}
	if abs(reduced[0]) < 1e-3 && abs(reduced[1]) < 1e-3 {
		return nil
	}
	square := float32(float32(offset[0]*offset[0]) + float32(offset[1]*offset[1]))
	length := float32(math.Sqrt(float64(square)))
	dx, dy := float32(reduced[0]/length), float32(reduced[1]/length)
	var set []string
	switch {
	case dx < -.5:
		set = append(set, LeftOf)
	case dx > .5:
		set = append(set, RightOf)
	}
	switch {
	case dy < -.5:
		set = append(set, Above)
	case dy > .5:
		set = append(set, Below)
	}
	return set
}

func abs(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

// Verdict says whether the kept objects satisfy the metadata, and if not, why: one reason a failing clause. colours
// names the colours of objects of one class; it is asked as late and about as few objects as possible, and may be nil
// when no clause has a colour.
func Verdict(m Metadata, kept []Kept, colours func(class string, objects []Detection) ([]string, error), o Options) (bool, []string, error) {
	var reasons []string
	groups := make([][]Detection, len(m.Include)) // what satisfied each clause; nil for a failed one
	for i, c := range m.Include {
		found := objectsOf(kept, c.Class)
		found = found[:min(len(found), c.Count)]
		reason, err := clauseReason(c, found, groups, colours, o)
		if err != nil {
			return false, nil, err
		}
		if reason != "" {
			reasons = append(reasons, reason)
			continue
		}
		groups[i] = slices.Concat([]Detection{}, found) // never nil
	}
	for _, c := range m.Exclude {
		if n := len(objectsOf(kept, c.Class)); n >= c.Count {
			reasons = append(reasons, fmt.Sprintf("expected %s<%d, found %d", c.Class, c.Count, n))
		}
	}
	return len(reasons) == 0, reasons, nil
}

func objectsOf(kept []Kept, class string) []Detection {
	for _, k := range kept {
		if k.Class == class {
			return k.Objects
		}
	}
	return nil
}

// clauseReason is "" when found satisfies the clause.
func clauseReason(c Clause, found []Detection, groups [][]Detection, colours func(string, []Detection) ([]string, error), o Options) (string, error) {
	if len(found) < c.Count {
		return fmt.Sprintf("expected %s>=%d, found %d", c.Class, c.Count, len(found)), nil
	}
	if c.Color != "" && c.Count > 0 {
		if colours == nil {
			return "", errors.New("geneval: the prompt asks for a colour, but there is no colour classifier")
		}
		names, err := colours(c.Class, found)
		if err != nil {
			return "", fmt.Errorf("geneval: colours of %s: %w", c.Class, err)
		}
		if len(names) != len(found) {
			return "", fmt.Errorf("geneval: colours of %s: %d answers for %d objects", c.Class, len(names), len(found))
		}
		if reason := colourReason(c, names); reason != "" {
			return reason, nil
		}
	}
	if c.Relation == "" {
		return "", nil
	}
	if c.Target < 0 || c.Target >= len(groups) {
		return "", fmt.Errorf("geneval: position of %s refers to clause %d of %d", c.Class, c.Target, len(groups))
	}
	targets := groups[c.Target]
	if targets == nil {
		return fmt.Sprintf("no target for %s to be %s", c.Class, c.Relation), nil
	}
	for _, object := range found {
		for _, target := range targets {
			set := Relation(object.Box, target.Box, o.PositionThreshold)
			if !slices.Contains(set, c.Relation) {
				return fmt.Sprintf("expected %s %s target, found %s target", c.Class, c.Relation, strings.Join(set, " and ")), nil
			}
		}
	}
	return "", nil
}

func colourReason(c Clause, names []string) string {
	count := map[string]int{}
	for _, name := range names {
		count[name]++
	}
	if count[c.Color] >= c.Count {
		return ""
	}
	var list []string
	for _, name := range Colours() {
		if count[name] > 0 {
			list = append(list, fmt.Sprintf("%d %s", count[name], name))
		}
	}
	return fmt.Sprintf("expected %s %s>=%d, found %d %s; and %s",
		c.Color, c.Class, c.Count, count[c.Color], c.Color, strings.Join(list, ", "))
}

// Details is the results file's record of the kept objects: {class: [[x1, y1, x2, y2, score], ...]}.
func Details(kept []Kept) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, k := range kept {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(pythonString(k.Class) + ": [")
		for j, d := range k.Objects {
			if j > 0 {
				b.WriteString(", ")
			}
			b.WriteByte('[')
			for _, v := range d.Box {
				b.WriteString(pythonFloat(float64(v)) + ", ")
			}
			b.WriteString(pythonFloat(float64(d.Score)) + "]")
		}
		b.WriteByte(']')
	}
	b.WriteByte('}')
	return b.String()
}

// Evaluator judges images with a detector and a colour classifier.
type Evaluator struct {
	Detector Detector
	Colours  ColourClassifier // may be nil when no prompt asks for a colour
	Classes  []string         // the object list, in the order of the results file's details
	Options  Options
}

// Result is the verdict on one image.
type Result struct {
	Correct bool
	Reasons []string
	Kept    []Kept // objects whose colour was asked for have it
}

// Evaluate detects and judges.
func (e Evaluator) Evaluate(ctx context.Context, img image.Image, m Metadata) (Result, error) {
	found, err := e.Detector.Detect(ctx, img, e.Classes)
	if err != nil {
		return Result{}, fmt.Errorf("geneval: detect: %w", err)
	}
	kept := Keep(e.Classes, found, m.Tag, e.Options)
	var colours func(string, []Detection) ([]string, error)
	if e.Colours != nil {
		colours = func(class string, objects []Detection) ([]string, error) {
			names, err := e.Colours.Classify(ctx, img, class, objects)
			for i := range min(len(names), len(objects)) {
				objects[i].Colour = names[i] // objects are kept's own
			}
			return names, err
		}
	}
	correct, reasons, err := Verdict(m, kept, colours, e.Options)
	if err != nil {
		return Result{}, err
	}
	return Result{Correct: correct, Reasons: reasons, Kept: kept}, nil
}
