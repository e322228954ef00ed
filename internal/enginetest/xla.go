//go:build cgo

package enginetest

import (
	// Registers the engine that IMAGECOT_TEST_ENGINE may name.
	_ "github.com/gomlx/go-xla/compute/xla"
)
