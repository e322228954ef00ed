package experiment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"imagecot/tiny"
)

// ModelNames says where a reproduction finds its models: names in rows, and "tokenizer", "detector" and "clip", to a
// preset or a folder. A name without an entry is a shipped model.
type ModelNames map[string]string

// Find returns what a pipeline opens under a name of a row. What is not there is ErrAbsent, with what brings it.
func (m ModelNames) Find(name string) (string, error) {
	model, ok := m[name]
	if !ok {
		return name, nil
	}
	if _, published, err := Published(model); published {
		return model, absent(err)
	}
	if _, err := os.Stat(model); err != nil {
		return "", fmt.Errorf("experiment: model %s is %w: %w; train it with `%s`", name, ErrAbsent, err, trainCommand(name))
	}
	return model, nil
}

// folder is where the files of a named model lie.
func (m ModelNames) folder(name string) (string, error) {
	model, err := m.Find(name)
	if err != nil {
		return "", err
	}
	if dir, published, err := Published(model); published {
		return dir, err
	}
	return model, nil
}

// benchQuestions are answered together in a reproduction, whose prompts fill larger tiles than one selection does.
const benchQuestions = 10

// OpenBench opens a generator and its judges for a reproduction, and GenEval's detector where images are not the tiny
// world's. What is not there is ErrAbsent.
func OpenBench(ctx context.Context, r Recipe, models ModelNames, generator string, note func(format string, args ...any)) (Bench, error) {
	var err error
	if r.Generator, err = models.Find(generator); err != nil {
		return Bench{}, err
	}
	if _, ok := models["tokenizer"]; ok {
		if r.Tokenizer, err = models.Find("tokenizer"); err != nil {
			return Bench{}, err
		}
	}
	p, err := Open(ctx, r, note)
	if err != nil {
		return Bench{}, absent(err)
	}
	if p.tinyWorld() {
		p.questions = benchQuestions
	} else if err := p.useDetector(models); err != nil {
		p.Close()
		return Bench{}, err
	}
	return Bench{
		Generator: p.Generator, Identity: p.Models["generator"] + ", " + p.Models["tokenizer"] + ", " + p.Engine,
		Arm:      func(strategy string) (Arm, string, error) { return p.benchArm(models, strategy) },
		Evaluate: p.Evaluate, Close: p.Close,
	}, nil
}

// benchArm makes a strategy whose judge is named as rows name it.
func (p *Pipeline) benchArm(models ModelNames, strategy string) (Arm, string, error) {
	name, judge, own := strings.Cut(strategy, "@")
	if kind, _, _ := strings.Cut(name, ":"); !slices.Contains(Strategies(), kind) {
		return Arm{}, "", fmt.Errorf("experiment: strategy %s is %w from this build", name, ErrAbsent)
	}
	if name == "oracle" && !p.tinyWorld() {
		return Arm{}, "", fmt.Errorf("experiment: the oracle knows the tiny world only: %w", ErrAbsent)
	}
	spec := name
	if own {
		model, err := models.Find(judge)
		if err != nil {
			return Arm{}, "", err
		}
		judge = model
		spec += "@" + model
	}
	arm, err := p.Arm(spec)
	arm.Name = strategy
	return arm, p.Models["judge "+judge], absent(err)
}

// useDetector has images evaluated by GenEval's own detector.
func (p *Pipeline) useDetector(models ModelNames) error {
	var o DetectorOptions
	var err error
	if o.Weights, err = models.folder("detector"); err != nil {
		return err
	}
	if o.CLIP, err = models.folder("clip"); err != nil {
		return err
	}
	e, err := OpenDetector(p.backend, o)
	if err != nil {
		return absent(err)
	}
	p.evaluate = e.Evaluate
	return nil
}

// absent marks errors about models that are not there, in their own words.
func absent(err error) error {
	if errors.Is(err, tiny.ErrMissing) || errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrRefused) {
		return absentError{err}
	}
	return err
}

// absentError is an ErrAbsent that reads like what it wraps.
type absentError struct{ error }

func (e absentError) Unwrap() []error { return []error{ErrAbsent, e.error} }

// trainCommand is the command that makes a model of that name.
func trainCommand(name string) string {
	for _, m := range tiny.Models() {
		if m.Name == name || m.Name == "generator" && name == "tiny" {
			return m.Command()
		}
	}
	return "imagecot train"
}
