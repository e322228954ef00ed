// Package geneval is GenEval (Ghosh, Hajishirzi and Schmidt, arXiv 2310.11513), the benchmark that the paper trains and
// tests on: prompts of six tasks, a detector's findings, verdict rules with reasons, and scores. Three parts stay
// separate: a Detector (image -> boxes, scores, masks a class), a ColourClassifier (objects -> colour names), and the
// verdict (metadata and detections -> correct, reason). The verdict knows no tensors and no models, so rule-based and
// learned detectors share it unchanged. The rules, quirks included, and the file formats are the original's.
package geneval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The six tasks, in the order of the benchmark and of every table.
const (
	SingleObject = "single_object"
	TwoObject    = "two_object"
	Counting     = "counting"
	Colors       = "colors"
	Position     = "position"
	ColorAttr    = "color_attr"
)

// Tasks lists the six tasks in the order of the benchmark.
func Tasks() []string {
	return []string{SingleObject, TwoObject, Counting, Colors, Position, ColorAttr}
}

// Colours lists the ten colour names, in the order in which a reason counts them up.
func Colours() []string {
	return []string{"red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"}
}

// The four relations of position prompts.
const (
	LeftOf  = "left of"
	RightOf = "right of"
	Above   = "above"
	Below   = "below"
)

// Relations lists the four relations.
func Relations() []string { return []string{LeftOf, RightOf, Above, Below} }

// Metadata says what an image has to show. Include clauses must all hold; one Exclude clause that holds fails the image.
type Metadata struct {
	Tag     string   // task; free text is allowed and counts as a task of its own
	Include []Clause // in order: a position refers back to an earlier clause
	Exclude []Clause // class and count only
	Prompt  string

	dump string // the text it was read from, dumped again; empty when built in memory
}

// Clause asks for Count objects of a class, possibly of a colour, possibly placed relative to an earlier clause.
type Clause struct {
	Class    string
	Count    int
	Color    string // "" for any
	Relation string // "" for anywhere
	Target   int    // index of the earlier include clause that Relation refers to
}

// ParseMetadata reads one JSON object and refuses whatever the original would misread or crash on: unknown keys, missing
// class or count, an unknown colour or relation, a position that refers to no earlier clause, an exclude clause of fewer
// than one object, anything after the object.
func ParseMetadata(text []byte) (Metadata, error) {
	var raw struct {
		Tag     *string     `json:"tag"`
		Include []rawClause `json:"include"`
		Exclude []rawClause `json:"exclude"`
		Prompt  *string     `json:"prompt"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&raw); err != nil {
		return Metadata{}, fmt.Errorf("geneval: metadata: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Metadata{}, errors.New("geneval: metadata: more than one JSON object")
	}
	if err := checkCase(text); err != nil {
		return Metadata{}, fmt.Errorf("geneval: metadata: %w", err)
	}
	if raw.Tag == nil || *raw.Tag == "" {
		return Metadata{}, errors.New(`geneval: metadata: "tag" is missing`)
	}
	if raw.Prompt == nil {
		return Metadata{}, errors.New(`geneval: metadata: "prompt" is missing`)
	}
	m := Metadata{Tag: *raw.Tag, Prompt: *raw.Prompt}
	for i, c := range raw.Include {
		clause, err := c.clause(i)
		if err != nil {
			return Metadata{}, fmt.Errorf("geneval: metadata: include clause %d: %w", i, err)
		}
		m.Include = append(m.Include, clause)
	}
	for i, c := range raw.Exclude {
		clause, err := c.clause(0)
		switch {
		case err != nil:
			return Metadata{}, fmt.Errorf("geneval: metadata: exclude clause %d: %w", i, err)
		case clause.Count < 1:
			return Metadata{}, fmt.Errorf("geneval: metadata: exclude clause %d: count %d, want at least 1", i, clause.Count)
		case clause.Color != "":
			return Metadata{}, fmt.Errorf("geneval: metadata: exclude clause %d: colour is not looked at there", i)
		}
		m.Exclude = append(m.Exclude, clause)
	}
	dump, err := pythonDump(text)
	if err != nil {
		return Metadata{}, fmt.Errorf("geneval: metadata: %w", err)
	}
	m.dump = dump
	return m, nil
}

// checkCase refuses keys like "Tag", which encoding/json takes for "tag" and the original does not.
func checkCase(text []byte) error {
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		return err
	}
	known := []string{"tag", "include", "exclude", "prompt", "class", "count", "color", "position"}
	check := func(object map[string]any) error {
		for key := range object {
			if !slices.Contains(known, key) {
				return fmt.Errorf("unknown field %q", key)
			}
		}
		return nil
	}
	for _, list := range []any{object["include"], object["exclude"]} {
		clauses, _ := list.([]any)
		for _, c := range clauses {
			clause, _ := c.(map[string]any)
			if err := check(clause); err != nil {
				return err
			}
		}
	}
	return check(object)
}

type rawClause struct {
	Class    *string           `json:"class"`
	Count    *int              `json:"count"`
	Color    *string           `json:"color"`
	Position []json.RawMessage `json:"position"`
}

// clause checks the i-th clause of a list.
func (r rawClause) clause(i int) (Clause, error) {
	if r.Class == nil || *r.Class == "" {
		return Clause{}, errors.New(`"class" is missing`)
	}
	if r.Count == nil {
		return Clause{}, errors.New(`"count" is missing`)
	}
	if *r.Count < 0 {
		return Clause{}, fmt.Errorf("count %d is negative", *r.Count)
	}
	c := Clause{Class: *r.Class, Count: *r.Count}
	if r.Color != nil {
		if !slices.Contains(Colours(), *r.Color) {
			return Clause{}, fmt.Errorf("unknown colour %q", *r.Color)
		}
		c.Color = *r.Color
	}
	if r.Position == nil {
		return c, nil
	}
	if len(r.Position) != 2 {
		return Clause{}, fmt.Errorf("position has %d parts, want relation and clause index", len(r.Position))
	}
	if err := json.Unmarshal(r.Position[0], &c.Relation); err != nil {
		return Clause{}, fmt.Errorf("position: relation: %w", err)
	}
	if err := json.Unmarshal(r.Position[1], &c.Target); err != nil {
		return Clause{}, fmt.Errorf("position: clause index: %w", err)
	}
	if !slices.Contains(Relations(), c.Relation) {
		return Clause{}, fmt.Errorf("unknown relation %q", c.Relation)
	}
	if c.Target < 0 || c.Target >= i {
		return Clause{}, fmt.Errorf("position refers to clause %d, which is no earlier clause", c.Target)
	}
	return c, nil
}

// Dump is the metadata as the original dumps it: one line with ", " and ": ", keys in the order of the text it was read
// from (tag, include, exclude, prompt when built in memory), everything beyond ASCII escaped. Scores group images by it.
func (m Metadata) Dump() string {
	if m.dump != "" {
		return m.dump
	}
	b := append([]byte(`{"tag": `), pythonString(m.Tag)...)
	b = appendClauses(b, "include", m.Include)
	b = appendClauses(b, "exclude", m.Exclude)
	b = append(b, `, "prompt": `...)
	b = append(b, pythonString(m.Prompt)...)
	return string(append(b, '}'))
}

func appendClauses(b []byte, name string, clauses []Clause) []byte {
	if len(clauses) == 0 {
		return b
	}
	b = fmt.Appendf(b, `, "%s": [`, name)
	for i, c := range clauses {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = fmt.Appendf(b, `{"class": %s, "count": %d`, pythonString(c.Class), c.Count)
		if c.Color != "" {
			b = fmt.Appendf(b, `, "color": %s`, pythonString(c.Color))
		}
		if c.Relation != "" {
			b = fmt.Appendf(b, `, "position": [%s, %d]`, pythonString(c.Relation), c.Target)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// MarshalJSON is Dump, so that metadata written by encoding/json can be read by the original.
func (m Metadata) MarshalJSON() ([]byte, error) { return []byte(m.Dump()), nil }

// UnmarshalJSON is ParseMetadata.
func (m *Metadata) UnmarshalJSON(text []byte) error {
	parsed, err := ParseMetadata(text)
	if err != nil {
		return err
	}
	*m = parsed
	return nil
}

// ReadPrompts reads a prompt file: one metadata object a line, blank lines skipped.
func ReadPrompts(r io.Reader) ([]Metadata, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("geneval: prompts: %w", err)
	}
	var list []Metadata
	for i, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		m, err := ParseMetadata(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		list = append(list, m)
	}
	if len(list) == 0 {
		return nil, errors.New("geneval: prompts: the file holds no prompt")
	}
	return list, nil
}
