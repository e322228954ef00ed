package dpo_test

import (
	"testing"

	"imagecot/parity/paritytest"
)

func TestParity(t *testing.T) {
	paritytest.Run(t, map[string]int{"dpo-loss": 6, "dpo-logps": 50}, "dpo-*")
}
