package clip_test

import (
	"path/filepath"
	"testing"

	"imagecot/internal/enginetest"
	"imagecot/internal/goldens"
	"imagecot/parity"

	"github.com/gomlx/compute"
)

func TestParity(t *testing.T) {
	least := map[string]int{"clip": 10, "clip-tokens": 1, "geneval-crops": 30} // outputs compared
	for _, pattern := range []string{"clip-*", "geneval-crops*"} {
		for _, dir := range goldens.Cases(t, pattern) {
			t.Run(filepath.Base(dir), func(t *testing.T) {
				enginetest.Each(t, func(t *testing.T, be compute.Backend) {
					report, err := parity.Run(t.Context(), be, dir)
					if err != nil {
						t.Fatal(err)
					}
					for _, o := range report.Outputs {
						t.Logf("%s: %d values, largest difference %g", o.Name, o.Values, o.MaxAbs)
						if !o.OK {
							t.Errorf("%s: %s", o.Name, o.Detail)
						}
					}
					if !report.OK || len(report.Outputs) < least[report.Kind] {
						t.Errorf("%d outputs compared, want at least %d", len(report.Outputs), least[report.Kind])
					}
				})
			})
		}
	}
}
