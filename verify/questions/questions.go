// Package questions holds the words in which judges are asked (Appendix B), as named sets: a checkpoint must be asked
// in the words it was trained on. "paper" is the wording of the paper, "released" that of the authors' code, byte for
// byte, and "tiny" the short wording of the tiny world's judges.
package questions

import (
	"embed"
	"fmt"
	"strings"

	"imagecot/cot"
	"imagecot/world"
)

//go:embed sets
var files embed.FS

// Set is one wording of the paper's questions.
type Set struct {
	Name  string
	texts map[cot.QuestionKind]string
}

// Names of the sets there are.
func Names() []string { return []string{"paper", "released", "tiny"} }

// Usual is the name of the set for a judge of whose words nothing is known, by the side of its images in pixels.
func Usual(side int) string {
	if side == world.Side {
		return "tiny"
	}
	return "paper"
}

// kinds are the questions of every set.
var kinds = []cot.QuestionKind{cot.Outcome, cot.Process, cot.Clarity, cot.Potential, cot.Reflection, cot.Reason}

// Get returns a set by name, with all questions of the paper. Deviation D18: the paper tells no words for reflection and
// reason; those of the sets "paper" and "released" are ours.
func Get(name string) (Set, error) {
	s := Set{Name: name, texts: map[cot.QuestionKind]string{}}
	for _, kind := range kinds {
		text, err := files.ReadFile("sets/" + name + "/" + string(kind) + ".txt")
		if err != nil {
			return Set{}, fmt.Errorf("questions: no set %q; there are %s", name, strings.Join(Names(), ", "))
		}
		s.texts[kind] = string(text)
	}
	return s, nil
}

// Text is the question of that kind about a prompt, "" for a kind that the set has not. It is what follows "<image> ", the
// tag and one space, which are the judge's to put in front.
func (s Set) Text(kind cot.QuestionKind, p cot.Prompt) string {
	return strings.ReplaceAll(s.texts[kind], "{prompt}", p.Text)
}

// Ask makes the question about the path's step image. Potential is the second turn after clarity's "yes", reason the one
// after reflection's "no".
func (s Set) Ask(kind cot.QuestionKind, path *cot.Path) cot.Question {
	return cot.Question{
		Kind: kind, Prompt: path.Prompt, Text: s.Text(kind, path.Prompt), After: s.After(kind, path.Prompt),
		Tokens: path.Sample, Path: path.Index, Step: path.Step,
	}
}

// After is what was asked and answered before a question of that kind.
func (s Set) After(kind cot.QuestionKind, p cot.Prompt) []cot.Turn {
	switch kind {
	case cot.Potential:
		return []cot.Turn{{Text: s.Text(cot.Clarity, p), Answer: "yes"}}
	case cot.Reason:
		return []cot.Turn{{Text: s.Text(cot.Reflection, p), Answer: "no"}}
	}
	return nil
}
