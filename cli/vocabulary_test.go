package cli

import (
	"bytes"
	"testing"

	"imagecot/tiny"
	"imagecot/train/objective"
)

// TestShippedVocabularyIsCurrent fails when words or questions change and tiny/bpe/tokenizer.json does not:
// `imagecot train vocabulary -o tiny/bpe/tokenizer.json` writes it (and every text model must be trained again).
func TestShippedVocabularyIsCurrent(t *testing.T) {
	shipped, err := tiny.TextTokenizer()
	if err != nil {
		t.Fatal(err)
	}
	built, err := objective.Vocabulary()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(shipped, built) {
		t.Errorf("the shipped tokenizer (%d bytes) is not what Vocabulary builds (%d bytes)", len(shipped), len(built))
	}
}
