package parity

import (
	"errors"
	"path/filepath"
	"testing"

	"imagecot/internal/goldens"
)

func TestTokenizers(t *testing.T) {
	for _, dir := range goldens.Cases(t, "tokenizer-*") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			report, err := Run(t.Context(), nil, dir)
			if errors.Is(err, ErrNoVocabulary) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range report.Outputs {
				if !o.OK {
					t.Errorf("%s: %d of %d differ: %s", o.Name, o.Differing, o.Values, o.Detail)
				}
			}
			if len(report.Outputs) < 2 || report.Outputs[0].Values < 400 {
				t.Errorf("only %+v was compared", report.Outputs)
			}
		})
	}
}
