package backend

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"imagecot/internal/atomicfile"
)

// source is where a plugin comes from: one wheel of the package index.
type source struct {
	device  string
	project string
	version string // empty: the newest
	sha256  string // of the wheel; empty: the one that the index gives
	library string // file name inside the wheel
}

// sources by the name that Install takes and by platform. The CPU plugin is pinned: its bits are what the tests ran on.
var sources = map[string]map[string]source{
	"cpu": {"linux/amd64": {
		device: "cpu", project: "lammps-jax-pjrt-cpu", version: "0.11.2", library: "pjrt_c_api_cpu_plugin.so",
		sha256: "1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1",
	}},
	"cuda": cuda("jax-cuda12-pjrt"), "cuda12": cuda("jax-cuda12-pjrt"), "cuda13": cuda("jax-cuda13-pjrt"),
}

func cuda(project string) map[string]source {
	s := source{device: "cuda", project: project, library: "xla_cuda_plugin.so"}
	return map[string]source{"linux/amd64": s, "linux/arm64": s}
}

// Progress is called now and then while a plugin is fetched ("download") and written ("unpack"). total is 0 if unknown.
type Progress func(stage string, done, total int64)

// Bounds on what a wheel may hold, in bytes.
const (
	maxLibrary = 4 << 30
	maxLicence = 4 << 20
)

// Install fetches the plugin for a device ("cpu", "cuda", "cuda12" or "cuda13"; empty means "cpu") and unpacks it into
// Home. A download that was cut goes on where it stopped; a file of the wrong hash is refused and removed. A plugin in
// place stays usable until the new one is complete. If the same wheel is installed and intact, nothing is fetched.
// progress may be nil.
func Install(ctx context.Context, device string, progress Progress) (Plugin, error) {
	if device == "" {
		device = "cpu"
	}
	platforms, ok := sources[device]
	if !ok {
		return Plugin{}, fmt.Errorf("backend: %w device %q (cpu, cuda, cuda12, cuda13)", ErrUnknown, device)
	}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	s, ok := platforms[platform]
	if !ok {
		return Plugin{}, fmt.Errorf("backend: no %s plugin is known for %s; give the path of a PJRT plugin instead, or use the pure-Go engine", device, platform)
	}
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	return s.install(ctx, progress)
}

func (s source) install(ctx context.Context, progress Progress) (Plugin, error) {
	home, err := Home()
	if err != nil {
		return Plugin{}, err
	}
	dir := pluginDir(home, s.device)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Plugin{}, fmt.Errorf("backend: %w (set %s to a folder that can be written)", err, HomeEnv)
	}
	lock := flock.New(filepath.Join(dir, ".lock"))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return Plugin{}, fmt.Errorf("backend: another installation holds %s: %w", lock.Path(), err)
	}
	defer lock.Close()

	old, oldErr := readRecord(dir)
	if oldErr == nil && s.sha256 != "" && old.Wheel == s.sha256 && old.Verify() == nil {
		return old, nil
	}
	index, err := newIndex()
	if err != nil {
		return Plugin{}, err
	}
	w, err := index.find(ctx, s)
	if err != nil {
		return Plugin{}, err
	}
	if oldErr == nil && old.Wheel == w.sha256 && old.Verify() == nil {
		return old, nil
	}
	part := filepath.Join(dir, w.sha256[:16]+".part")
	if err := index.fetch(ctx, w, part, progress); err != nil {
		return Plugin{}, err
	}
	p, err := unpack(ctx, part, dir, s, w, progress)
	if err != nil {
		return Plugin{}, err
	}
	return p, sweep(dir, p)
}

// sweep removes downloads and libraries that the plugin in place does not need.
func sweep(dir string, p Plugin) error {
	var failed error
	for _, pattern := range []string{"*.part", "*.so", ".*.tmp"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		failed = errors.Join(failed, err)
		for _, path := range paths {
			if path != p.Path {
				failed = errors.Join(failed, os.Remove(path))
			}
		}
	}
	if failed != nil {
		return fmt.Errorf("backend: %w", failed)
	}
	return nil
}

// unpack writes library and licences from the wheel, and the record last: until then, the old plugin is the plugin.
func unpack(ctx context.Context, wheelPath, dir string, s source, w wheel, progress Progress) (Plugin, error) {
	z, err := zip.OpenReader(wheelPath)
	if err != nil {
		return Plugin{}, fmt.Errorf("backend: %s: %w", w.name, err)
	}
	defer z.Close()
	var library *zip.File
	for _, f := range z.File {
		switch base := path.Base(f.Name); {
		case base == s.library && library != nil:
			return Plugin{}, fmt.Errorf("backend: %s holds two files named %s", w.name, s.library)
		case base == s.library:
			library = f
		case isLicence(f.Name):
			if err := extract(ctx, f, filepath.Join(dir, base), maxLicence, 0o644, func(int64) {}); err != nil {
				return Plugin{}, err
			}
		}
	}
	if library == nil {
		return Plugin{}, fmt.Errorf("backend: %s holds no %s", w.name, s.library)
	}
	// The name holds the wheel's hash, so that a new plugin never overwrites the one in use.
	target := filepath.Join(dir, strings.TrimSuffix(s.library, ".so")+"_"+w.sha256[:16]+".so")
	total := int64(library.UncompressedSize64)
	if err := extract(ctx, library, target, maxLibrary, 0o755, func(n int64) { progress("unpack", n, total) }); err != nil {
		return Plugin{}, err
	}
	info, err := os.Stat(target)
	if err != nil {
		return Plugin{}, fmt.Errorf("backend: %w", err)
	}
	hash, err := hashFile(target)
	if err != nil {
		return Plugin{}, err
	}
	p := Plugin{
		Path: target, Device: s.device, Name: s.project + " " + w.version, SHA256: hash, Wheel: w.sha256,
		Size: info.Size(), Modified: info.ModTime(), Installed: true,
	}
	record := p
	record.Path = filepath.Base(target)
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return Plugin{}, fmt.Errorf("backend: %w", err)
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, recordFile), append(text, '\n'), 0o644); err != nil {
		return Plugin{}, fmt.Errorf("backend: %w", err)
	}
	return p, nil
}

// isLicence picks the licence and notice files of a wheel's metadata folder.
func isLicence(name string) bool {
	if !strings.Contains(name, ".dist-info/") || strings.HasSuffix(name, "/") {
		return false
	}
	base := strings.ToUpper(path.Base(name))
	for _, word := range []string{"LICENSE", "LICENCE", "NOTICE", "COPYING", "THIRD_PARTY"} {
		if strings.HasPrefix(base, word) {
			return true
		}
	}
	return false
}

// extract writes one file of the archive, atomically. It stops at limit bytes whatever the archive announces.
func extract(ctx context.Context, f *zip.File, target string, limit int64, perm os.FileMode, progress func(int64)) error {
	if f.UncompressedSize64 > uint64(limit) {
		return fmt.Errorf("backend: %s would unpack to %d bytes, at most %d are allowed", f.Name, f.UncompressedSize64, limit)
	}
	in, err := f.Open()
	if err != nil {
		return fmt.Errorf("backend: unpack %s: %w", f.Name, err)
	}
	defer in.Close()
	out, err := atomicfile.Create(target, perm)
	if err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	defer out.Close()
	if _, err := io.Copy(out, &meter{ctx: ctx, r: io.LimitReader(in, limit), report: progress}); err != nil {
		return fmt.Errorf("backend: unpack %s: %w", f.Name, err)
	}
	if err := out.Commit(); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	return nil
}

// meter counts what is read through it, and ends when its context does.
type meter struct {
	ctx    context.Context
	r      io.Reader
	n      int64
	report func(int64)
}

func (m *meter) Read(b []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(b)
	m.n += int64(n)
	m.report(m.n)
	return n, err
}
