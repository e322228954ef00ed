// Package atomicfile replaces files so that a crash at any moment leaves the old content or the new one, never a part:
// temporary file in the same folder, fsync, rename, fsync of the folder. It knows nothing of what it writes.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// File is a temporary file that Commit turns into the file asked for. Close without Commit removes it.
type File struct {
	*os.File
	path string
	done bool
}

// Create opens a temporary file beside path. Its permission is perm less the umask, or that of the file replaced.
func Create(path string, perm fs.FileMode) (*File, error) {
	if old, err := os.Stat(path); err == nil {
		if !old.Mode().IsRegular() {
			return nil, fmt.Errorf("atomicfile: %s is not a regular file (%s)", path, old.Mode().Type())
		}
		perm = old.Mode().Perm()
	}
	dir, base := filepath.Split(path)
	for try := 0; ; try++ {
		temp := filepath.Join(dir, fmt.Sprintf(".%s.%08x.tmp", base, rand.Uint32()))
		f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) && try < 100 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("atomicfile: create %s: %w", path, err)
		}
		return &File{File: f, path: path}, nil
	}
}

// Commit makes the content durable and puts it in place under the final name.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("atomicfile: commit %s: %w", f.path, fs.ErrClosed)
	}
	err := f.Sync()
	err = errors.Join(err, f.File.Close())
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	f.done = true
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("atomicfile: write %s: %w", f.path, err)
	}
	return SyncDir(filepath.Dir(f.path))
}

// Close drops the temporary file unless Commit was called; it may always be deferred.
func (f *File) Close() error {
	if f.done {
		return nil
	}
	f.done = true
	return errors.Join(f.File.Close(), os.Remove(f.Name()))
}

// WriteFile replaces path by data as a whole.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("atomicfile: write %s: %w", path, err)
	}
	return f.Commit()
}

// WriteFiles replaces several files of a folder by name. All are written and durable before the first takes its place, so that
// a full disk or a name that is taken by something else leaves every one of them as it was.
func WriteFiles(dir string, files map[string][]byte, perm fs.FileMode) error {
	var all []*File
	defer func() {
		for _, f := range all {
			_ = f.Close()
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := Create(filepath.Join(dir, name), perm)
		if err != nil {
			return err
		}
		all = append(all, f)
		_, err = f.Write(files[name])
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			return fmt.Errorf("atomicfile: write %s: %w", f.path, err)
		}
	}
	for _, f := range all {
		if err := f.Commit(); err != nil {
			return err
		}
	}
	return nil
}

// SyncDir makes renames and new names in a folder durable. Windows has no such call and needs none.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("atomicfile: sync %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("atomicfile: sync %s: %w", dir, err)
	}
	return nil
}
