package magvit_test

import (
	"testing"

	"imagecot/parity/paritytest"
)

func TestParity(t *testing.T) {
	paritytest.Run(t, map[string]int{"magvit-encode": 9, "magvit-decode": 9, "image-transform": 10}, "magvit-*", "image-transform-*")
}
