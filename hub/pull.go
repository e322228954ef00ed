package hub

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/shirou/gopsutil/v4/disk"
	"golang.org/x/sync/errgroup"

	"imagecot/internal/atomicfile"
	"imagecot/internal/fetch"
)

// errNoRoom is the system's own error for a full disk.
var errNoRoom error = syscall.ENOSPC

// filesAtOnce is how many files come at the same time, each over several connections if it is large.
const filesAtOnce = 4

// Progress is told how many bytes of all files are there. It may be called from several goroutines, never from two at
// once.
type Progress func(done, total int64)

// Pull brings files of a commit into the cache and returns the snapshot's folder. Files that are there in their size are
// not fetched again; with check their hashes are verified first, and what does not fit is fetched anew. A pull that was cut
// goes on where it stopped.
func (h *Hub) Pull(ctx context.Context, r Repo, l Listing, files []File, check bool, progress Progress) (string, error) {
	if h.Offline {
		return "", fmt.Errorf("hub: %s: %w (HF_HUB_OFFLINE is set)", r, ErrOffline)
	}
	dir := h.folder(r)
	for _, sub := range []string{"blobs", "refs", filepath.Join("snapshots", l.Commit)} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return "", fmt.Errorf("hub: %w (HF_HOME or HF_HUB_CACHE names another folder)", err)
		}
	}
	var missing []File
	for _, f := range files {
		ok, err := h.present(dir, f, check)
		if err != nil {
			return "", err
		}
		if !ok {
			missing = append(missing, f)
		}
	}
	if err := roomFor(dir, Bytes(missing)); err != nil {
		return "", err
	}
	m := newMeter(files, missing, progress)
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(filesAtOnce)
	for _, f := range missing {
		group.Go(func() error { return h.bring(inner, r, l.Commit, f, m.of(f)) })
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	for _, f := range files {
		if err := link(dir, l.Commit, f); err != nil {
			return "", err
		}
	}
	if !commitForm.MatchString(r.Revision) {
		ref := filepath.Join(dir, "refs", filepath.FromSlash(r.Revision))
		if err := os.MkdirAll(filepath.Dir(ref), 0o755); err != nil {
			return "", fmt.Errorf("hub: %w", err)
		}
		if err := atomicfile.WriteFile(ref, []byte(l.Commit), 0o644); err != nil {
			return "", fmt.Errorf("hub: %w", err)
		}
	}
	return filepath.Join(dir, "snapshots", l.Commit), nil
}

// present says whether the blob of a file is there. One of another size, or with check of another hash, is removed.
func (h *Hub) present(dir string, f File, check bool) (bool, error) {
	blob := filepath.Join(dir, "blobs", f.Hash)
	info, err := os.Stat(blob)
	if err != nil {
		return false, nil
	}
	ok := info.Size() == f.Size
	if ok && check {
		sum, err := fetch.HashFile(blob, len(f.Hash))
		if err != nil {
			return false, fmt.Errorf("hub: %w", err)
		}
		ok = sum == f.Hash
	}
	if !ok {
		if err := os.Remove(blob); err != nil {
			return false, fmt.Errorf("hub: %w", err)
		}
	}
	return ok, nil
}

// roomFor fails if the disk cannot take n bytes more.
func roomFor(dir string, n int64) error {
	usage, err := disk.Usage(dir)
	if err != nil || n == 0 || usage.Free >= uint64(n) {
		return nil // what cannot be asked is found out
	}
	return fmt.Errorf("hub: %d MB are to come, %s has %d MB free: %w", n/1_000_000, dir, usage.Free/1_000_000, errNoRoom)
}

// bring fetches one file into its blob, alone among all processes.
func (h *Hub) bring(ctx context.Context, r Repo, commit string, f File, progress fetch.Progress) error {
	dir := h.folder(r)
	locks := filepath.Join(h.Cache, ".locks", filepath.Base(dir))
	if err := os.MkdirAll(locks, 0o755); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	lock := flock.New(filepath.Join(locks, f.Hash+".lock"))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return fmt.Errorf("hub: another process fetches %s: %w", f.Path, err)
	}
	defer lock.Close()
	if ok, err := h.present(dir, f, false); err != nil || ok {
		progress(f.Size, f.Size)
		return err
	}
	address := h.Endpoint.JoinPath(r.ID, "resolve", commit)
	for part := range strings.SplitSeq(f.Path, "/") {
		address = address.JoinPath(url.PathEscape(part))
	}
	part := filepath.Join(dir, "blobs", f.Hash+".imagecot-part") // not the name that other tools take for theirs
	want := fetch.File{Name: f.Path, URL: address, Header: h.header(), Hash: f.Hash, Size: f.Size}
	if err := h.get.Get(ctx, want, part, progress); err != nil {
		var status *fetch.StatusError
		if errors.As(err, &status) {
			err = fmt.Errorf("%s: %w", f.Path, explain(status.Code, status.Status, h.Token != ""))
		}
		return fmt.Errorf("hub: %s: %w", r, err)
	}
	if err := os.Rename(part, filepath.Join(dir, "blobs", f.Hash)); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	return atomicfile.SyncDir(filepath.Join(dir, "blobs"))
}

// link lets the snapshot's path point at the blob; where the system has no links, the file itself is put there.
func link(dir, commit string, f File) error {
	at := filepath.Join(dir, "snapshots", commit, filepath.FromSlash(f.Path))
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	blob := filepath.Join(dir, "blobs", f.Hash)
	target, err := filepath.Rel(filepath.Dir(at), blob)
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if old, err := os.Readlink(at); err == nil && old == target {
		return nil
	}
	temp := fmt.Sprintf("%s.%d.tmp", at, os.Getpid())
	if err := os.Symlink(target, temp); err != nil {
		if err := os.Link(blob, temp); err != nil {
			return fmt.Errorf("hub: %w", err)
		}
	}
	if err := os.Rename(temp, at); err != nil {
		return errors.Join(fmt.Errorf("hub: %w", err), os.Remove(temp))
	}
	return nil
}

// meter adds up what files have brought.
type meter struct {
	lock        sync.Mutex
	done        map[string]int64
	sum, total  int64
	tell        Progress
	lastReached int64
}

func newMeter(all, missing []File, tell Progress) *meter {
	m := &meter{done: map[string]int64{}, total: Bytes(all), tell: tell}
	m.sum = m.total - Bytes(missing)
	return m
}

func (m *meter) of(f File) fetch.Progress {
	return func(done, _ int64) {
		m.lock.Lock()
		defer m.lock.Unlock()
		m.sum += done - m.done[f.Path]
		m.done[f.Path] = done
		if m.tell != nil && m.sum > m.lastReached { // a file that is fetched anew does not move the bar back
			m.lastReached = m.sum
			m.tell(m.sum, m.total)
		}
	}
}
