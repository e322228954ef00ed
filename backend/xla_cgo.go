//go:build cgo

package backend

/*
#include <limits.h> // says which C library this is
#if defined(__GLIBC__)
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE ((uintptr_t)2 << 20)

// Threads that exist already keep arenas of their own, which the plugin's threads would then share and which give memory back:
// so this comes before any thread. It holds for every program that links this package.
__attribute__((constructor)) static void one_arena(void) { mallopt(M_ARENA_MAX, 1); }

static void keep_memory(void) {
	mallopt(M_MMAP_MAX, 0);
	mallopt(M_TRIM_THRESHOLD, -1); // never
	mallopt(M_TOP_PAD, 256 << 20);
	// Takes address space at the heap's end, asks for huge pages there and gives it back; M_TRIM_THRESHOLD keeps it mapped.
	size_t size = (size_t)4 << 30;
	void *heap = malloc(size);
	if (heap != NULL) {
		uintptr_t first = ((uintptr_t)heap + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1), end = ((uintptr_t)heap + size) & ~(HUGE_PAGE - 1);
		madvise((void *)first, end - first, MADV_HUGEPAGE);
	}
	free(heap);
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
// On Linux the heap's next 4 GiB are of huge pages, where the system gives such. It holds for the whole process, which
// never shrinks from then on: for training, not for serving.
func KeepMemory() { C.keep_memory() }
