// Package parity runs parity cases: folders that hold the inputs and expected outputs of a reference implementation on
// small random weights. The kind in case.json alone decides how a folder is run; there is one file for each family of
// models, and each registers its kinds. A case passes when every expected output was compared and lies within its
// tolerance.
package parity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/gomlx/compute"

	"imagecot/ckpt"
)

// ErrUnknownKind says that no runner is registered for the kind of a case.
var ErrUnknownKind = errors.New("unknown kind")

// Runner computes a case's outputs on the engine and hands each to one of the case's Compare methods. It returns an
// error only if the case could not be computed.
type Runner func(ctx context.Context, be compute.Backend, c *Case) error

var runners = map[string]Runner{}

// register is called by the init function of each family's file.
func register(kind string, r Runner) {
	if _, taken := runners[kind]; taken {
		panic("parity: two runners for kind " + kind)
	}
	runners[kind] = r
}

// Kinds that have a runner, in ascending order.
func Kinds() []string {
	kinds := make([]string, 0, len(runners))
	for kind := range runners {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	return kinds
}

// Output is the outcome of one output, over everything that was compared under its name.
type Output struct {
	Name      string  `json:"name"`
	Values    int     `json:"values"`    // numbers or items compared
	Differing int     `json:"differing"` // how many of them lie outside the tolerance
	MaxAbs    float64 `json:"max_abs"`   // largest |got - want|; the largest float64 where one side is NaN or infinite
	MaxRel    float64 `json:"max_rel"`   // largest |got - want| / |want| over want != 0
	Tolerance string  `json:"tolerance"` // as applied
	OK        bool    `json:"ok"`
	Detail    string  `json:"detail,omitempty"` // the first difference outside the tolerance
}

// Report is the outcome of one case.
type Report struct {
	Dir     string   `json:"dir"`
	Kind    string   `json:"kind"`
	Engine  string   `json:"engine"`
	Seconds float64  `json:"seconds"`
	OK      bool     `json:"ok"`
	Outputs []Output `json:"outputs"`
}

// Run runs the case in a folder. The report is complete whenever the error is nil, within tolerance or not. The error
// is ErrUnknownKind for a kind that has no runner, and otherwise says why the case could not be computed.
func Run(ctx context.Context, be compute.Backend, dir string) (Report, error) {
	return RunAs(ctx, be, dir, ckpt.F32)
}

// RunAs is Run with the matrices of Show-o and LLaVA-OneVision kept as float, F32 or BF16. A case's tolerances are those of
// F32: BF16 is run to see how far it is.
func RunAs(ctx context.Context, be compute.Backend, dir string, float ckpt.DType) (Report, error) {
	c, err := Load(dir)
	if err != nil {
		return Report{Dir: dir}, err
	}
	defer c.Close()
	c.Float = float
	report := Report{Dir: dir, Kind: c.Kind}
	if be != nil {
		report.Engine = be.Name()
	}
	run, ok := runners[c.Kind]
	if !ok {
		return report, fmt.Errorf("parity: %s: %w %q (known: %s)", dir, ErrUnknownKind, c.Kind, strings.Join(Kinds(), ", "))
	}
	start := time.Now()
	if err := guard(func() error { return run(ctx, be, c) }); err != nil {
		return report, fmt.Errorf("parity: %s: %w", dir, err)
	}
	report.Seconds = time.Since(start).Seconds()
	report.Outputs = c.outputs()
	report.OK = len(report.Outputs) > 0
	for _, o := range report.Outputs {
		report.OK = report.OK && o.OK
	}
	return report, nil
}

// guard turns a panic, which is how graph building reports mistakes, into an error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if e, ok := p.(error); ok {
				err = fmt.Errorf("panic: %w", e)
			} else {
				err = fmt.Errorf("panic: %v", p)
			}
		}
	}()
	return f()
}

// Case is one folder of case.json's format, with what was compared so far.
type Case struct {
	Dir    string          `json:"-"`
	Kind   string          `json:"kind"`
	Source string          `json:"source"`
	Seed   json.Number     `json:"seed"`
	Params json.RawMessage `json:"params"`
	Notes  string          `json:"notes"`

	// Config is the content of config.json, nil if there is none.
	Config []byte `json:"-"`
	// IO holds the tensors of io.safetensors by their full names (in.x, out.x, mid.x); it is empty if there is none.
	IO *ckpt.File `json:"-"`

	// Float is the type in which matrices of Show-o and LLaVA-OneVision are kept; "" means F32.
	Float ckpt.DType `json:"-"`

	tolerance tolerances
	results   map[string]*Output
	models    []*ckpt.File
}

// Load reads a case folder without running it.
func Load(dir string) (*Case, error) {
	text, err := os.ReadFile(filepath.Join(dir, "case.json"))
	if err != nil {
		return nil, fmt.Errorf("parity: %w", err)
	}
	c := &Case{Dir: dir, results: map[string]*Output{}}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("parity: %s/case.json: %w", dir, err)
	}
	var rest struct{ Tolerance json.RawMessage }
	if err := json.Unmarshal(text, &rest); err != nil {
		return nil, fmt.Errorf("parity: %s/case.json: %w", dir, err)
	}
	if c.tolerance, err = parseTolerances(rest.Tolerance); err != nil {
		return nil, fmt.Errorf("parity: %s/case.json: %w", dir, err)
	}
	if c.Config, err = os.ReadFile(filepath.Join(dir, "config.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("parity: %w", err)
	}
	c.IO, err = ckpt.Open(filepath.Join(dir, "io.safetensors"))
	if errors.Is(err, os.ErrNotExist) {
		c.IO, err = &ckpt.File{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("parity: %w", err)
	}
	return c, nil
}

// Close releases the files that the case opened.
func (c *Case) Close() error {
	err := c.IO.Close()
	for _, m := range c.models {
		err = errors.Join(err, m.Close())
	}
	return err
}

// Path of a file in the case's folder.
func (c *Case) Path(name string) string { return filepath.Join(c.Dir, name) }

// DecodeParams decodes params into v, a pointer to a struct or map.
func (c *Case) DecodeParams(v any) error {
	if err := json.Unmarshal(c.Params, v); err != nil {
		return fmt.Errorf("params: %w", err)
	}
	return nil
}

// Open opens a safetensors file of the folder; it is closed with the case.
func (c *Case) Open(name string) (*ckpt.File, error) { return c.keep(ckpt.Open(c.Path(name))) }

// Model opens the folder's weights, model.safetensors or its shards; they are closed with the case.
func (c *Case) Model() (*ckpt.File, error) { return c.keep(ckpt.OpenModel(c.Dir)) }

func (c *Case) keep(f *ckpt.File, err error) (*ckpt.File, error) {
	if err == nil {
		c.models = append(c.models, f)
	}
	return f, err
}

// Has reports whether io.safetensors holds the tensor.
func (c *Case) Has(name string) bool {
	_, ok := c.IO.Info(name)
	return ok
}

// Shape of a tensor of io.safetensors, nil if it is not there.
func (c *Case) Shape(name string) []int {
	info, _ := c.IO.Info(name)
	return info.Shape
}

// Names of the tensors of io.safetensors that start with prefix, for example "out.", in ascending order.
func (c *Case) Names(prefix string) []string {
	var names []string
	for _, name := range c.IO.Names() {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

// Float32 returns in.NAME (or any full name) of a floating type.
func (c *Case) Float32(name string) ([]float32, error) { return c.IO.Float32(name) }

// Float64 returns a tensor of a floating type.
func (c *Case) Float64(name string) ([]float64, error) { return c.IO.Float64(name) }

// Int32 returns an I32 tensor.
func (c *Case) Int32(name string) ([]int32, error) { return c.IO.Int32(name) }

// U8 returns a U8 or BOOL tensor.
func (c *Case) U8(name string) ([]uint8, error) { return c.IO.U8(name) }
