package everyday

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"imagecot/geneval"
)

// inTest is the strict filter: whether GenEval has a test prompt of the same scene (geneval.Key, which compares classes) or
// of the same text (plain, which compares names).
func inTest(m geneval.Metadata) bool {
	key, err := geneval.Key(m)
	if err != nil {
		panic(fmt.Sprintf("everyday: %q: %v", m.Prompt, err)) // templates make what has a key
	}
	return geneval.InTest(key) || testTexts()[plain(m.Prompt)]
}

var testTexts = sync.OnceValue(func() map[string]bool {
	texts := map[string]bool{}
	for _, m := range geneval.Official() {
		texts[plain(m.Prompt)] = true
	}
	return texts
})

// plain is the text of a prompt as it is compared: in lower case, without "a photo of" and articles, two objects in sorted
// order. "B right of a" counts as "a left of b", "b below a" as "a above b".
func plain(prompt string) string {
	words := slices.DeleteFunc(strings.Fields(strings.ToLower(prompt)), func(w string) bool { return w == "a" || w == "an" || w == "the" })
	text := strings.TrimPrefix(strings.Join(words, " "), "photo of ")
	if a, b, ok := strings.Cut(text, " and "); ok {
		return min(a, b) + " and " + max(a, b)
	}
	for relation, turned := range map[string]string{geneval.RightOf: geneval.LeftOf, geneval.Below: geneval.Above} {
		if a, b, ok := strings.Cut(text, " "+relation+" "); ok {
			return b + " " + turned + " " + a
		}
	}
	return text
}
