// Package enginetest gives tests the engines to run on.
package enginetest

import (
	"os"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
)

// Variable names the environment variable with the configuration string of one more engine, for example
// "xla:/path/to/plugin.so,shared_buffers".
const Variable = "IMAGECOT_TEST_ENGINE"

// Each runs the test on the pure-Go engine and on the one of the environment variable, if it is set.
func Each(t *testing.T, test func(t *testing.T, be compute.Backend)) {
	t.Helper()
	t.Run("go", func(t *testing.T) { test(t, Go(t)) })
	configuration := os.Getenv(Variable)
	if configuration == "" {
		return
	}
	t.Run("engine", func(t *testing.T) {
		be, err := compute.NewWithConfig(configuration)
		if err != nil {
			t.Fatalf("enginetest: %s=%q: %v", Variable, configuration, err)
		}
		test(t, be)
	})
}

// Go returns the pure-Go engine.
func Go(t testing.TB) compute.Backend {
	t.Helper()
	be, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatalf("enginetest: %v", err)
	}
	return be
}

// Fastest returns the engine of the environment variable if it is set, for benchmarks, else the pure-Go engine.
func Fastest(t testing.TB) compute.Backend {
	t.Helper()
	configuration := os.Getenv(Variable)
	if configuration == "" {
		return Go(t)
	}
	be, err := compute.NewWithConfig(configuration)
	if err != nil {
		t.Fatalf("enginetest: %s=%q: %v", Variable, configuration, err)
	}
	return be
}
