package objective

import (
	"strings"

	"imagecot/bpe"
	"imagecot/geneval"
	"imagecot/world"
)

// addedTokens of the tiny world's text tokenizer: Show-o's end of text, Qwen2's turns, LLaVA's image.
var addedTokens = []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"}

// reasonWords are what reasons and instructions may need beyond prompts and questions (PARM++).
const reasonWords = "there is are no not one five six it the but instead should be with wrong missing image shows in " +
	"make keep correct because too many few has have an"

// Vocabulary builds the text tokenizer that the tiny generator and judges share: byte-level BPE in which each word of
// the tiny world, with a blank in front, is one token. It depends on nothing but the world's words and the questions.
func Vocabulary() ([]byte, error) {
	corpus := []string{
		"system\nYou are a helpful assistant.", "user\n", "assistant\n", "assistant\nyes", "assistant\nno",
		" does it show a photo of?", " is it becoming a photo of?", " is it clear?", " will it show a photo of?",
		" describe it.", "a photo of", " yes no",
	}
	for _, w := range append(world.Words(), strings.Fields(reasonWords)...) {
		corpus = append(corpus, " "+w)
	}
	for _, task := range geneval.Tasks() {
		for _, m := range world.AllPrompts(task) {
			corpus = append(corpus, m.Prompt)
		}
	}
	added := make([]bpe.Added, len(addedTokens))
	for i, content := range addedTokens {
		added[i] = bpe.Added{Content: content, Special: true}
	}
	return bpe.Train(corpus, bpe.TrainOptions{Split: bpe.Qwen2, Added: added})
}
