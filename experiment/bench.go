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

// OpenBench opens a generator and its judges for a reproduction. models gives folders to names; a name without one is a
// shipped model. What is not there is ErrAbsent, with what makes it.
func OpenBench(ctx context.Context, r Recipe, models map[string]string, generator string, note func(format string, args ...any)) (Bench, error) {
	folder := func(name string) (string, error) {
		path, ok := models[name]
		if !ok {
			return name, nil
		}
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("experiment: model %s is %w: %w; train it with `%s`", name, ErrAbsent, err, trainCommand(name))
		}
		return path, nil
	}
	var err error
	if r.Generator, err = folder(generator); err != nil {
		return Bench{}, err
	}
	if _, ok := models["tokenizer"]; ok {
		if r.Tokenizer, err = folder("tokenizer"); err != nil {
			return Bench{}, err
		}
	}
	p, err := Open(ctx, r, note)
	if err != nil {
		return Bench{}, absent(err)
	}
	if !p.tinyWorld() {
		p.Close()
		return Bench{}, fmt.Errorf("experiment: GenEval's detector for images of %d pixels is %w from this build", p.side, ErrAbsent)
	}
	return Bench{
		Generator: p.Generator, Identity: p.Models["generator"] + ", " + p.Models["tokenizer"] + ", " + p.Engine, Evaluate: p.Evaluate, Close: p.Close,
		Arm: func(strategy string) (Arm, string, error) {
			name, judge, own := strings.Cut(strategy, "@")
			if !slices.Contains(Strategies(), name) {
				return Arm{}, "", fmt.Errorf("experiment: strategy %s is %w from this build", name, ErrAbsent)
			}
			spec := name
			if own {
				path, err := folder(judge)
				if err != nil {
					return Arm{}, "", err
				}
				judge = path
				spec += "@" + path
			}
			arm, err := p.Arm(spec)
			arm.Name = strategy
			return arm, p.Models["judge "+judge], absent(err)
		},
	}, nil
}

// absent marks errors about models that are not there.
func absent(err error) error {
	if errors.Is(err, tiny.ErrMissing) || errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrRefused) {
		return fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	return err
}

func trainCommand(name string) string {
	for _, m := range tiny.Models() {
		if m.Name == name || m.Name == "generator" && name == "tiny" {
			return m.Command()
		}
	}
	return "imagecot train"
}
