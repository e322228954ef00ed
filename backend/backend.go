// Package backend chooses the engine that runs the models' graphs: XLA, loaded from a plugin (one shared library, for
// CPU or CUDA), or the pure-Go engine, which needs nothing and is slow. It finds, installs and describes plugins; it
// downloads only in Install, and only what was asked for. It is not part of the paper, and knows no model.
package backend

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
)

// Env names the environment variable that Open reads when it is given no choice.
const Env = "IMAGECOT_BACKEND"

// Info describes the engine that Open chose.
type Info struct {
	Engine      string `json:"engine"`           // "go" or "xla"
	Device      string `json:"device"`           // "cpu" or "cuda"
	Plugin      string `json:"plugin,omitempty"` // path of the plugin's library
	Name        string `json:"name,omitempty"`   // package and version of an installed plugin
	Description string `json:"description"`      // what the engine says about itself
	Note        string `json:"note,omitempty"`   // one line for stderr, empty if there is nothing to say
}

// ErrPlugin is the error of a file that is no XLA plugin, or of one for another machine or version.
var ErrPlugin = errors.New("no plugin that works here")

// ErrUnknown is the error of an engine or a device that has no such name.
var ErrUnknown = errors.New("unknown")

// ErrNone says that no XLA plugin is installed where one was asked for by name.
var ErrNone = errors.New("backend: no XLA plugin is installed")

// installHint ends every message that a missing plugin causes.
const installHint = "`imagecot backend install` fetches the fast engine"

// Open opens the engine that spec names; the caller calls Finalize on it:
//
//	auto             an installed XLA plugin, else pure Go with a Note that says how to get the fast one
//	go               the pure-Go engine
//	xla              an installed XLA plugin: CUDA if there is a GPU, else CPU
//	/path/plugin.so  this XLA plugin; options may follow after commas, for example /path/plugin.so,notf32
//
// An empty spec stands for the value of IMAGECOT_BACKEND, or auto.
func Open(spec string) (compute.Backend, Info, error) {
	if spec == "" {
		spec = os.Getenv(Env)
	}
	switch {
	case spec == "" || spec == "auto":
		return openAuto()
	case spec == "go":
		return openGo("")
	case spec == "xla":
		be, info, err := openInstalled()
		if errors.Is(err, ErrNone) {
			err = fmt.Errorf("%w: %s", err, installHint)
		}
		return be, info, err
	case strings.ContainsAny(spec, `/\.`):
		path, options, _ := strings.Cut(spec, ",")
		return openPlugin(Plugin{Path: path, Device: deviceOf(path)}, options)
	}
	return nil, Info{}, fmt.Errorf("backend: %w engine %q (auto, go, xla, or the path of a plugin)", ErrUnknown, spec)
}

func openAuto() (compute.Backend, Info, error) {
	be, info, err := openInstalled()
	if err == nil {
		return be, info, nil
	}
	note := "running on the pure-Go engine, which is slow; " + installHint
	switch {
	case !cgo:
		note = "running on the pure-Go engine, which is slow; a build with cgo can load the fast one"
	case !errors.Is(err, ErrNone):
		note = fmt.Sprintf("running on the pure-Go engine, which is slow (%v); %s", reason(err), installHint)
	}
	return openGo(note)
}

func openGo(note string) (compute.Backend, Info, error) {
	// Its default configuration deadlocks: nodes hold worker slots while they wait for more.
	be, err := gobackend.New("ops_sequential")
	if err != nil {
		return nil, Info{}, fmt.Errorf("backend: pure-Go engine: %w", err)
	}
	return be, Info{Engine: "go", Device: "cpu", Description: be.Description(), Note: note}, nil
}

// openInstalled opens the best of the plugins that List finds; CUDA ones count only where there is a GPU.
func openInstalled() (compute.Backend, Info, error) {
	plugins, err := List()
	if err != nil {
		return nil, Info{}, err
	}
	err = ErrNone
	for _, device := range []string{"cuda", "cpu"} {
		if device == "cuda" && !hasGPU() {
			continue
		}
		for _, p := range plugins {
			if p.Device != device {
				continue
			}
			be, info, openErr := openPlugin(p, "")
			if openErr == nil {
				return be, info, nil
			}
			err = openErr
		}
	}
	return nil, Info{}, err
}

func openPlugin(p Plugin, options string) (compute.Backend, Info, error) {
	path, err := filepath.Abs(p.Path)
	if err != nil {
		return nil, Info{}, fmt.Errorf("backend: %w", err)
	}
	if strings.Contains(path, ",") {
		return nil, Info{}, fmt.Errorf("backend: the path of a plugin may hold no comma: %s", path)
	}
	file, err := os.Stat(path)
	if err != nil {
		return nil, Info{}, fmt.Errorf("backend: plugin: %w", err)
	}
	if !file.Mode().IsRegular() {
		return nil, Info{}, fmt.Errorf("backend: %w: %s is not a file", ErrPlugin, path)
	}
	if err := p.verify(); err != nil {
		return nil, Info{}, err
	}
	config := path
	if p.Device == "cpu" {
		config += ",shared_buffers"
	}
	if options != "" {
		config += "," + options
	}
	be, err := newXLA(config)
	if err != nil {
		return nil, Info{}, fmt.Errorf("backend: %w: %s: %s", ErrPlugin, path, reason(err))
	}
	return be, Info{Engine: "xla", Device: p.Device, Plugin: path, Name: p.Name, Description: be.Description()}, nil
}

// reason is the first line of what a library says, without its advice.
func reason(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	line, _, _ = strings.Cut(line, " -- check with")
	return line
}

// deviceOf guesses from a library's name what it runs on.
func deviceOf(path string) string {
	name := strings.ToLower(filepath.Base(path))
	if strings.Contains(name, "cuda") || strings.Contains(name, "gpu") {
		return "cuda"
	}
	return "cpu"
}

// hasGPU reports whether an NVIDIA driver is loaded.
func hasGPU() bool {
	if runtime.GOOS != "linux" {
		return false
	}
	_, err := os.Stat("/dev/nvidiactl")
	return err == nil
}
