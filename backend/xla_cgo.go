//go:build cgo

package backend

/*
#include <limits.h>
#if defined(__GLIBC__)
#include <malloc.h>
static void keep_memory(void) {
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_MAX, 0);
	mallopt(M_TRIM_THRESHOLD, INT_MAX);
	mallopt(M_TOP_PAD, 256 << 20);
}
#else
static void keep_memory(void) {}
#endif
*/
import "C"

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

// KeepMemory tells the C library's allocator, which the CPU plugin uses, to keep what is freed for the next step. By
// default the big buffers of every training step go back to the system, and their page faults take a quarter of the time.
// It holds for the whole process, which never shrinks from then on: for training, not for serving.
func KeepMemory() { C.keep_memory() }
