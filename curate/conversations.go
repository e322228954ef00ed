package curate

import (
	"fmt"
	"slices"
	"strings"

	"imagecot/cot"
	"imagecot/verify/questions"
)

// Turn is a question of a conversation with its answer.
type Turn struct {
	Kind cot.QuestionKind
	cot.Turn
}

// Conversation is what is asked and answered about one image, in the words that Export writes for LLaVA's loader.
type Conversation struct {
	Prompt string
	Tokens []int32 // of the image
	Turns  []Turn
}

// ConversationKinds are the kinds of data sets that ask about images: outcome of final images (ranking), process of steps,
// clarity and then potential, and outcome (parm), reflection and then the reason (reflection).
func ConversationKinds() []string { return []string{"ranking", "steps", "parm", "reflection"} }

// Conversations reads a data set of that kind, or several of it ("A,B"), to train a judge with: all conversations but those
// about validation scenes, in the order of the rows. Test prompts are an error, as in ReadTraining. Of these keep takes some, by
// the kind of the last question and by their number, from 0; nil keeps all. What it does not take costs no memory.
func Conversations(kind, from string, set questions.Set, validation float64, keep func(last cot.QuestionKind, n int) bool) ([]Conversation, error) {
	for _, dir := range strings.Split(from, ",") {
		is, err := kindOf(dir)
		if err != nil {
			return nil, fmt.Errorf("curate: conversations: %w", err)
		}
		if is != kind {
			return nil, fmt.Errorf("curate: conversations: %s is a data set of kind %q, not %q", dir, is, kind)
		}
	}
	words := wording{set}
	switch kind {
	case "ranking":
		return talks[Image](from, words, validation, keep)
	case "steps":
		return talks[Step](from, words, validation, keep)
	case "parm":
		return talks[Parm](from, words, validation, keep)
	case "reflection":
		return talks[Reflected](from, words, validation, keep)
	}
	return nil, fmt.Errorf("curate: conversations: kind %q, want one of %s", kind, strings.Join(ConversationKinds(), ", "))
}

// talks keeps copies of the tokens, not the rows, which may hold the tokens of every step.
func talks[Row interface {
	Scene() string
	export() exported
}](from string, words wording, validation float64, keep func(cot.QuestionKind, int) bool) ([]Conversation, error) {
	var out []Conversation
	n := 0
	err := eachTraining(from, func(r Row, scene string) {
		if Validation(scene, validation) {
			return
		}
		x := r.export()
		var tokens []int32 // shared by the conversations about one image
		for _, a := range x.talks {
			if n++; keep != nil && !keep(a.kind, n-1) {
				continue
			}
			if tokens == nil {
				tokens = slices.Clone(x.tokens)
			}
			out = append(out, Conversation{Prompt: x.row.Prompt, Tokens: tokens, Turns: words.talk(x.row.Prompt, a)})
		}
	})
	return out, err
}
