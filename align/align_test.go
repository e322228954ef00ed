package align

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/align/dpo"
	"imagecot/align/guide"
	"imagecot/align/iterdpo"
	"imagecot/align/sft"
	"imagecot/train"
	"imagecot/train/objective"
)

func TestCommittedRecipesAreValid(t *testing.T) {
	files, err := filepath.Glob("../recipes/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recipes: %v", err)
	}
	seen := map[string]int{}
	for _, file := range files {
		if filepath.Base(file) == "scale.yaml" {
			continue // no training
		}
		r, err := train.ReadRecipe(file)
		if err != nil {
			t.Error(err)
			continue
		}
		switch r.Kind {
		case "dpo":
			d := dpo.Defaults()
			if err = objective.DecodeStrict(r.Data, &d); err == nil {
				err = d.Validate()
			}
		case "guide":
			d := guide.Defaults()
			if err = objective.DecodeStrict(r.Data, &d); err == nil {
				err = d.Validate()
			}
		case "iterdpo":
			d := iterdpo.Defaults()
			if err = objective.DecodeStrict(r.Data, &d); err == nil {
				err = d.Validate()
			}
		case "sft":
			d := sft.JudgeDefaults()
			if err = objective.DecodeStrict(r.Data, &d); err == nil {
				err = d.Validate()
			}
		default:
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		text, err := os.ReadFile(file)
		if command := "imagecot train " + r.Kind + " -f " + strings.TrimPrefix(filepath.ToSlash(file), "../"); err != nil || !bytes.Contains(text, []byte(command)) {
			t.Errorf("%s does not open with its command, %q (%v)", file, command, err)
		}
		seen[filepath.Base(filepath.Dir(file))]++
	}
	if seen["tiny"] == 0 || seen["full"] == 0 {
		t.Errorf("recipes of alignment: %v", seen)
	}
}
