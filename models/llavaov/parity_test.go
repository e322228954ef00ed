package llavaov_test

import (
	"testing"

	"imagecot/parity/paritytest"
)

func TestParity(t *testing.T) {
	paritytest.Run(t, map[string]int{
		"siglip": 5, "qwen2": 6, "llavaov-judge": 20, "llavaov-pack": 10, "llava-image": 8,
		"sft-loss": 24,
	}, "siglip-*", "qwen2-*", "llavaov-*", "llava-image-*", "sft-loss")
}
