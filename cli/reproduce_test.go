package cli

import (
	"errors"
	"testing"

	"imagecot/experiment"
)

// --skip leaves out the rows of a strategy, with whatever options and judge, and says so; nothing else.
func TestSkip(t *testing.T) {
	arm := without([]string{"prm", "threshold"}, func(spec string) (experiment.Arm, string, error) {
		return experiment.Arm{Name: spec}, "", nil
	})
	for spec, left := range map[string]bool{"prm@judge": true, "threshold:whole@orm": true, "parm@parm": false, "single": false} {
		got, _, err := arm(spec)
		if errors.Is(err, experiment.ErrAbsent) != left || !left && got.Name != spec {
			t.Errorf("%s: %+v, error %v", spec, got, err)
		}
	}
}
