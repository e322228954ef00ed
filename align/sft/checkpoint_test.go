package sft

import (
	"slices"
	"testing"

	"imagecot/hub"
	"imagecot/preset"
)

// What other software needs to ask a judge that is trained from a published one is brought with it.
func TestPresetsBringTheProcessor(t *testing.T) {
	t.Setenv("IMAGECOT_HOME", t.TempDir())
	for _, name := range []string{"llava-onevision-0.5b-hf", "llava-onevision-7b-hf"} {
		p, err := preset.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		var all hub.Listing
		for _, file := range append([]string{"config.json", "model.safetensors", "tokenizer.json"}, processor...) {
			all.Files = append(all.Files, hub.File{Path: file})
		}
		files, err := all.Select("", p.Files)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range processor {
			if !slices.ContainsFunc(files, func(f hub.File) bool { return f.Path == file }) {
				t.Errorf("%s does not bring %s", name, file)
			}
		}
	}
}
