package showo_test

import (
	"testing"

	"imagecot/parity/paritytest"
)

func TestParity(t *testing.T) {
	paritytest.Run(t, map[string]int{
		"showo-forward": 7, "showo-prompting": 9, "showo-mask": 4, "showo-loss": 4, "showo-generate": 10, "showo-mmu": 4,
	}, "showo-*")
}
