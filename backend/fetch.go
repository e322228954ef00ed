package backend

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"imagecot/internal/fetch"
)

// suits reports whether a wheel's platform tag (for example manylinux_2_27_x86_64) names this machine.
func suits(tag string) bool {
	cpu := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	return runtime.GOOS == "linux" && cpu != "" && strings.Contains(tag, "manylinux") && strings.HasSuffix(tag, cpu)
}

// The pause after the first attempt of a download that brings nothing, and how long a connection may be silent.
var (
	firstWait = 500 * time.Millisecond
	silence   = 60 * time.Second
)

// fetch brings the wheel to the file part, going on where an earlier call stopped, and checks its hash.
func (x *index) fetch(ctx context.Context, w wheel, part string, progress Progress) error {
	g := fetch.New(x.client)
	g.FirstWait, g.Silence, g.Most = firstWait, silence, maxLibrary
	from := *w.url
	if from.Host == x.base.Host && from.User == nil {
		from.User = x.base.User
	}
	file := fetch.File{Name: w.name, URL: &from, Hash: w.sha256, Size: w.size}
	if err := g.Get(ctx, file, part, func(done, total int64) { progress("download", done, total) }); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	return nil
}
