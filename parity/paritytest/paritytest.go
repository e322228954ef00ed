// Package paritytest holds models to the reference cases from their own tests.
package paritytest

import (
	"path/filepath"
	"testing"

	"imagecot/internal/enginetest"
	"imagecot/internal/goldens"
	"imagecot/parity"

	"github.com/gomlx/compute"
)

// Run reproduces every case folder whose name matches a pattern, on every engine of the test run. least says how many
// outputs a case of a kind compares at least; a kind that is not in it fails.
func Run(t *testing.T, least map[string]int, patterns ...string) {
	for _, pattern := range patterns {
		for _, dir := range goldens.Cases(t, pattern) {
			t.Run(filepath.Base(dir), func(t *testing.T) {
				enginetest.Each(t, func(t *testing.T, be compute.Backend) { one(t, be, dir, least) })
			})
		}
	}
}

func one(t *testing.T, be compute.Backend, dir string, least map[string]int) {
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
	if want := least[report.Kind]; !report.OK || want == 0 || len(report.Outputs) < want {
		t.Errorf("%d outputs compared, want at least %d", len(report.Outputs), want)
	}
}
