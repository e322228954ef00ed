package objective

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"imagecot/ckpt"
	"imagecot/internal/atomicfile"
	"imagecot/report/tensorboard"
	"imagecot/train"

	"github.com/gofrs/flock"
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
)

// Trainable is an objective whose result can be written as a checkpoint folder.
type Trainable interface {
	train.Objective
	// Config is config.json.
	Config() ([]byte, error)
	// Final picks the weights that are written.
	Final(map[string]*tensors.Tensor) map[string]*tensors.Tensor
}

// Derived is an objective that learns from other checkpoints or from data in files. All else is drawn from the recipe's
// seed, so that the recipe names it completely.
type Derived interface {
	// Origin names the checkpoints and the hash of the data, for the manifest.
	Origin() ([]ckpt.Parent, string)
}

// Worded is an objective whose model brings a text tokenizer of its own.
type Worded interface {
	// TextTokenizer are its files; nil means the tiny world's.
	TextTokenizer() map[string][]byte
}

// Maker makes the objective that a recipe's kind names; dir is the run's folder, for what is kept beside checkpoints.
type Maker func(be compute.Backend, r train.Recipe, dir string) (Trainable, error)

// Prepared is an objective with work to be done once, before the first step: what it costs is told to show.
type Prepared interface {
	Prepare(ctx context.Context, show io.Writer) error
}

// New makes the objectives of models that are trained from data alone; it is a Maker.
func New(be compute.Backend, r train.Recipe, dir string) (Trainable, error) {
	switch r.Kind {
	case "tokenizer":
		return NewTokenizer(r)
	case "generator":
		return NewGenerator(be, r, dir)
	case "judge":
		if _, ok := r.Data["reward"]; ok {
			return NewReward(be, r)
		}
		return NewJudge(r)
	}
	return nil, train.RecipeError(fmt.Errorf("objective: unknown kind %q", r.Kind))
}

// Run trains what the recipe says below dir, continuing where an earlier run stopped, and writes the result to
// DIR/final. build is New, or a Maker that knows more kinds. When ctx ends it saves a checkpoint and returns ctx's error.
func Run(ctx context.Context, be compute.Backend, r train.Recipe, dir string, show io.Writer, build Maker) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("objective: %w", err)
	}
	lock := flock.New(filepath.Join(dir, ".lock"))
	if ok, err := lock.TryLock(); err != nil {
		return fmt.Errorf("objective: lock %s: %w", dir, err)
	} else if !ok {
		return fmt.Errorf("objective: %s is in use by another run", dir)
	}
	defer lock.Unlock()
	o, err := build(be, r, dir)
	if err != nil {
		return err
	}
	if p, ok := o.(Prepared); ok {
		if err := p.Prepare(ctx, show); err != nil {
			return err
		}
	}
	loop, err := train.New(be, r, o, nil)
	if err != nil {
		return err
	}
	if _, err := loop.Resume(dir); err != nil {
		return err
	}
	log, err := train.OpenLog(dir, loop.Step())
	if err != nil {
		return err
	}
	defer log.Close()
	events, err := tensorboard.Create(dir)
	if err != nil {
		return err
	}
	defer events.Close()
	meter := train.NewMeter(show, r.MaxSteps)
	log.Also = []train.Scalars{events, meter}
	loop.Log = log
	meter.Begin(loop)
	err = loop.Run(ctx, func(step int) error {
		meter.Stepped(step)
		if step%r.SaveEvery == 0 || step == r.MaxSteps || step == loop.Best() {
			return loop.Save(dir)
		}
		return nil
	})
	if errors.Is(err, context.Canceled) {
		return errors.Join(err, loop.Save(dir))
	}
	if err != nil {
		return err
	}
	if why := loop.Stopped(); why != "" {
		if err := loop.Save(dir); err != nil {
			return err
		}
		last := loop.Step()
		if err := loop.Return(dir); err != nil {
			return err
		}
		fmt.Fprintf(show, "step %d of %d is the last, and the weights are those of step %d: %s\n", last, r.MaxSteps, loop.Step(), why)
	}
	return finish(loop, o, filepath.Join(dir, "final"))
}

// finishWords writes the text tokenizer.
func finishWords(o Trainable, dir string) error {
	var files map[string][]byte
	if w, ok := o.(Worded); ok {
		files = w.TextTokenizer()
	}
	if files == nil {
		text, err := Vocabulary()
		if err != nil {
			return err
		}
		files = map[string][]byte{"tokenizer.json": text}
	}
	for name, text := range files {
		if err := atomicfile.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// finish writes the checkpoint folder: config.json, model.safetensors in 16 bits a weight (ckpt.Half: bfloat16 would take back
// a part of what an alignment changes), manifest.json, and adapter with LoRA.
func finish(l *train.Loop, o Trainable, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("objective: %w", err)
	}
	config, err := o.Config()
	if err != nil {
		return fmt.Errorf("objective: config: %w", err)
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, "config.json"), append(config, '\n'), 0o644); err != nil {
		return err
	}
	if l.Recipe.Kind != "tokenizer" { // the models that read text bring their text tokenizer
		if err := finishWords(o, dir); err != nil {
			return err
		}
	}
	var all []ckpt.Tensor
	weights, err := l.Weights()
	if err != nil {
		return err
	}
	for name, t := range o.Final(weights) {
		c, err := ckpt.FromTensor(name, t, ckpt.F32)
		if err != nil {
			return fmt.Errorf("objective: %s: %w", name, err)
		}
		if values, ok := c.Values.([]float32); ok {
			c.DType = ckpt.Half(values)
		}
		all = append(all, c)
	}
	if err := ckpt.Write(filepath.Join(dir, "model.safetensors"), all, nil); err != nil {
		return err
	}
	if adapter, err := l.Adapter(l.Recipe.InitFrom); err != nil {
		return err
	} else if adapter != nil {
		if err := adapter.Write(filepath.Join(dir, "adapter")); err != nil {
			return err
		}
	}
	recipe, err := json.Marshal(l.Recipe)
	if err != nil {
		return fmt.Errorf("objective: recipe: %w", err)
	}
	m := ckpt.Manifest{
		Kind: l.Recipe.Kind, Name: l.Recipe.Name, Recipe: recipe, Steps: l.Step(), Notes: l.Stopped(),
		Date: time.Now().UTC().Format(time.RFC3339),
	}
	if from, ok := o.(Derived); ok {
		m.Parents, m.DataHash = from.Origin()
	}
	return ckpt.WriteManifest(dir, m)
}

// DecodeStrict reads a recipe's free part into a struct; unknown keys are errors, train.ErrRecipe ones.
func DecodeStrict(from map[string]any, into any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return fmt.Errorf("objective: data: %w", err)
	}
	if len(from) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return train.RecipeError(fmt.Errorf("objective: data: %w", err))
	}
	return nil
}
