package backend

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"time"
)

// HomeEnv names the environment variable that moves the folder of installed plugins.
const HomeEnv = "IMAGECOT_HOME"

// Home is the user's folder for what imagecot installs: IMAGECOT_HOME, else the platform's folder for user data.
func Home() (string, error) {
	if dir := os.Getenv(HomeEnv); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "imagecot"), nil
	}
	if dir := os.Getenv("LOCALAPPDATA"); runtime.GOOS == "windows" && dir != "" {
		return filepath.Join(dir, "imagecot"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("backend: no folder for plugins (set %s): %w", HomeEnv, err)
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Application Support", "imagecot"), nil
	}
	return filepath.Join(home, ".local", "share", "imagecot"), nil
}

// recordFile lies beside an installed plugin and names it; it is written last, so that what it names is complete.
const recordFile = "plugin.json"

// Plugin is an XLA plugin on this machine.
type Plugin struct {
	Path      string    `json:"path"`             // the shared library
	Device    string    `json:"device"`           // "cpu" or "cuda"
	Name      string    `json:"name,omitempty"`   // package and version
	SHA256    string    `json:"sha256,omitempty"` // of the library
	Wheel     string    `json:"wheel_sha256,omitempty"`
	Size      int64     `json:"size"` // bytes of the library
	Modified  time.Time `json:"modified,omitzero"`
	Installed bool      `json:"installed"` // by Install; false for one that was found elsewhere
}

// List finds the plugins of this machine: installed ones first, then CUDA plugins in Python's package folders.
func List() ([]Plugin, error) {
	home, err := Home()
	if err != nil {
		return nil, err
	}
	var all []Plugin
	for _, device := range []string{"cpu", "cuda"} {
		p, err := readRecord(pluginDir(home, device))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return append(all, findCUDA()...), nil
}

func pluginDir(home, device string) string { return filepath.Join(home, "plugins", device) }

func readRecord(dir string) (Plugin, error) {
	var p Plugin
	text, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return p, fmt.Errorf("backend: %w", err)
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("backend: %s in %s: %w (reinstall with `imagecot backend install`)", recordFile, dir, err)
	}
	p.Path = filepath.Join(dir, filepath.Base(p.Path))
	return p, nil
}

// verify compares an installed plugin with its record: the size always, the hash if the file was touched since.
func (p Plugin) verify() error {
	if !p.Installed {
		return nil
	}
	info, err := os.Stat(p.Path)
	if err != nil {
		return fmt.Errorf("backend: plugin %s: %w (reinstall with `imagecot backend install %s`)", p.Name, err, p.Device)
	}
	if info.Size() == p.Size && info.ModTime().Equal(p.Modified) {
		return nil
	}
	return p.Verify()
}

// Verify hashes an installed plugin and compares with what was installed. Plugins found elsewhere have no hash.
func (p Plugin) Verify() error {
	if p.SHA256 == "" {
		return nil
	}
	got, err := hashFile(p.Path)
	if err != nil {
		return err
	}
	if got != p.SHA256 {
		return fmt.Errorf("backend: plugin %s has sha256 %s, was installed with %s; reinstall with `imagecot backend install %s`", p.Path, got, p.SHA256, p.Device)
	}
	return nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("backend: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("backend: hash %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// findCUDA looks where Python's installer puts the CUDA plugin: the active environment, the user's folder, the system.
func findCUDA() []Plugin {
	var roots []string
	for _, env := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if dir := os.Getenv(env); dir != "" {
			roots = append(roots, dir)
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		roots = append(roots, filepath.Join(home, ".local"))
	}
	roots = append(roots, "/usr/local", "/usr")
	var found []Plugin
	seen := map[string]bool{}
	for _, root := range roots {
		for _, packages := range []string{"site-packages", "dist-packages"} {
			paths, _ := filepath.Glob(filepath.Join(root, "lib", "python3*", packages, "jax_plugins", "xla_cuda*", "xla_cuda_plugin.so"))
			sort.Sort(sort.Reverse(sort.StringSlice(paths)))
			for _, path := range paths {
				info, err := os.Stat(path)
				if err != nil || seen[path] {
					continue
				}
				seen[path] = true
				found = append(found, Plugin{Path: path, Device: "cuda", Size: info.Size(), Modified: info.ModTime()})
			}
		}
	}
	return found
}
