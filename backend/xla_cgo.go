//go:build cgo

package backend

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla"
)

// cgo says whether this build can load plugins.
const cgo = true

// newXLA loads the plugin whose absolute path starts the configuration. Nothing is ever downloaded on the way.
func newXLA(config string) (compute.Backend, error) {
	xla.EnableAutoInstall(false)
	return xla.New(config)
}
