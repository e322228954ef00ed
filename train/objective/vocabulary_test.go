package objective

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"imagecot/bpe"
	"imagecot/world"
)

var update = flag.Bool("update", false, "write tiny/bpe/tokenizer.json anew")

const vocabularyFile = "../../tiny/bpe/tokenizer.json"

func TestShippedVocabularyIsWhatVocabularyBuilds(t *testing.T) {
	text, err := Vocabulary()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(vocabularyFile, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shipped, err := os.ReadFile(vocabularyFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(shipped, text) {
		t.Errorf("%s differs from what Vocabulary builds; run this test with -update and train everything again", vocabularyFile)
	}
	tok, err := bpe.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range world.Words() {
		if ids := tok.Encode(" " + w); len(ids) != 1 {
			t.Errorf("%q takes %d tokens", " "+w, len(ids))
		}
	}
	if ids := tok.Encode("a photo of a red circle left of a blue square"); len(ids) != 11 {
		t.Errorf("a prompt of 11 words takes %d tokens", len(ids))
	}
	t.Logf("%d tokens", tok.VocabSize())
}
