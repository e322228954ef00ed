package mask2former_test

import (
	"testing"

	"imagecot/parity/paritytest"
)

func TestParity(t *testing.T) {
	paritytest.Run(t, map[string]int{"mask2former": 20, "mask2former-post": 5, "detector-input": 6}, "mask2former-*", "detector-input*")
}
