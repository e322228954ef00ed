package backend

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

func TestDiagnose(t *testing.T) {
	specs := []string{"go"}
	if plugin := os.Getenv("IMAGECOT_TEST_PLUGIN"); plugin != "" && cgo {
		specs = append(specs, plugin)
	}
	for _, spec := range specs {
		bare(t)
		d, err := Diagnose(t.Context(), spec, 300*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", d)
		// Wrong units would miss these bounds by a factor of 1000.
		if d.GemmF32 < 0.05 || d.GemmF32 > 50_000 || d.Bandwidth < 0.02 || d.Bandwidth > 5000 {
			t.Errorf("%s: %g GFLOPS, %g GB/s", spec, d.GemmF32, d.Bandwidth)
		}
		if d.Cores < 1 || d.MemTotal < 1<<28 || d.MemFree > d.MemTotal {
			t.Errorf("%s: %d cores, %d of %d bytes free", spec, d.Cores, d.MemFree, d.MemTotal)
		}
	}
}

func TestDiagnoseStopsWithItsContext(t *testing.T) {
	bare(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	if _, err := Diagnose(ctx, "go", time.Hour); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want that of the context", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
}
