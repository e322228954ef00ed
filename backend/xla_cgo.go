//go:build cgo

package backend

import (
	"sync"

	"github.com/go-logr/logr"
	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla"
	"k8s.io/klog/v2"
)

// cgo says whether this build can load plugins.
const cgo = true

// prepare keeps the loader from downloading plugins, and from logging what it also returns as an error.
var prepare = sync.OnceFunc(func() {
	xla.EnableAutoInstall(false)
	klog.SetLogger(logr.Discard())
})

// newXLA loads the plugin whose absolute path starts the configuration.
func newXLA(config string) (compute.Backend, error) {
	prepare()
	return xla.New(config)
}
