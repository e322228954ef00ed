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
// about validation scenes, in the order of the rows. Test prompts are an error, as in ReadTraining.
func Conversations(kind, from string, set questions.Set, validation float64) ([]Conversation, error) {
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
		return talks(from, validation, words.ranking)
	case "steps":
		return talks(from, validation, words.step)
	case "parm":
		return talks(from, validation, words.parm)
	case "reflection":
		return talks(from, validation, words.reflected)
	}
	return nil, fmt.Errorf("curate: conversations: kind %q, want one of %s", kind, strings.Join(ConversationKinds(), ", "))
}

// talks keeps copies of the tokens, not the rows, which may hold the tokens of every step.
func talks[Row interface{ Scene() string }](from string, validation float64, one func(Row) exported) ([]Conversation, error) {
	var out []Conversation
	err := eachTraining(from, func(r Row) {
		if Validation(r.Scene(), validation) {
			return
		}
		x := one(r)
		tokens := slices.Clone(x.tokens)
		for _, turns := range x.talks {
			out = append(out, Conversation{Prompt: x.row.Prompt, Tokens: tokens, Turns: turns})
		}
	})
	return out, err
}
