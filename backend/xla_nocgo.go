//go:build !cgo

package backend

import (
	"errors"

	"github.com/gomlx/compute"
)

// cgo says whether this build can load plugins.
const cgo = false

func newXLA(string) (compute.Backend, error) {
	return nil, errors.New("this program was built without cgo and can load no plugin; the pure-Go engine is left")
}

// KeepMemory does nothing where no plugin can be loaded.
func KeepMemory() {}
