package clip_test

import (
	"testing"

	"imagecot/parity/paritytest"
)

func TestParity(t *testing.T) {
	paritytest.Run(t, map[string]int{"clip": 10, "clip-tokens": 1, "geneval-crops": 30}, "clip-*", "geneval-crops*")
}
