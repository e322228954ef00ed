package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imagecot/ckpt"
	"imagecot/internal/atomicfile"

	"github.com/gomlx/gomlx/core/tensors"
)

// progress is state.json of a checkpoint. The folder is complete if and only if this file exists: it is written last.
type progress struct {
	Step   int    `json:"step"`
	Recipe Recipe `json:"recipe"`
}

// kept is how many checkpoints stay, the best one aside.
const kept = 2

func checkpointOf(dir string, step int) string {
	return filepath.Join(dir, "checkpoints", fmt.Sprintf("step-%08d", step))
}

// Save writes DIR/checkpoints/step-N and removes all but the newest two and the best one (Chooser).
func (l *Loop) Save(dir string) error {
	at := checkpointOf(dir, l.step)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	learnt := map[string]*tensors.Tensor{}
	for _, n := range l.learnt() {
		learnt[n] = l.params[n]
	}
	if err := writeTensors(filepath.Join(at, "model.safetensors"), learnt, ckpt.F32); err != nil {
		return err
	}
	if err := writeTensors(filepath.Join(at, "optimizer.safetensors"), l.state, ckpt.F32); err != nil {
		return err
	}
	text, err := json.MarshalIndent(progress{l.step, l.Recipe}, "", "  ")
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if err := atomicfile.WriteFile(filepath.Join(at, "state.json"), text, 0o644); err != nil {
		return err
	}
	l.saved = at
	all, err := checkpoints(dir)
	if err != nil {
		return err
	}
	for _, old := range all[:max(0, len(all)-kept)] {
		if old == checkpointOf(dir, l.Best()) {
			continue
		}
		if err := os.RemoveAll(old); err != nil {
			return fmt.Errorf("train: %w", err)
		}
	}
	return nil
}

// Resume continues from the newest complete checkpoint below dir; without one it does nothing. The recipe must be the
// one that the checkpoint was made with.
func (l *Loop) Resume(dir string) (bool, error) {
	all, err := checkpoints(dir)
	if err != nil || len(all) == 0 {
		return false, err
	}
	return true, l.load(all[len(all)-1])
}

// Return goes back to the step that the objective finds best: to its checkpoint below dir, or to the starting weights. It
// does nothing where the objective does not choose.
func (l *Loop) Return(dir string) error {
	switch best := l.Best(); best {
	case -1, l.step:
		return nil
	case 0:
		var err error
		if l.params, err = l.Objective.Init(); err != nil {
			return fmt.Errorf("train: starting weights: %w", err)
		}
		if _, err = l.Recipe.adapt(l.params); err != nil {
			return err
		}
		l.step = 0
		l.state, err = l.Recipe.newState(l.params, l.rules)
		return err
	default:
		return l.load(checkpointOf(dir, best))
	}
}

// load reads a checkpoint.
func (l *Loop) load(at string) error {
	text, err := os.ReadFile(filepath.Join(at, "state.json"))
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	var p progress
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("train: %s: %w", at, err)
	}
	p.Recipe.Recompute = l.Recipe.Recompute // it changes memory and time only
	if was, now := mustJSON(p.Recipe), mustJSON(l.Recipe); was != now {
		return fmt.Errorf("train: %s was made with another recipe; use another output folder, or remove it", at)
	}
	if err := readTensors(filepath.Join(at, "model.safetensors"), l.learnt(), l.params); err != nil {
		return err
	}
	if err := readTensors(filepath.Join(at, "optimizer.safetensors"), l.keys, l.state); err != nil {
		return err
	}
	l.step, l.saved = p.Step, at
	return nil
}

// checkpoints lists complete checkpoints, oldest first.
func checkpoints(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "checkpoints"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	var out []string
	for _, e := range entries {
		at := filepath.Join(dir, "checkpoints", e.Name())
		if _, err := os.Stat(filepath.Join(at, "state.json")); err == nil && strings.HasPrefix(e.Name(), "step-") {
			out = append(out, at)
		}
	}
	slices.Sort(out)
	return out, nil
}

func writeTensors(path string, from map[string]*tensors.Tensor, d ckpt.DType) error {
	var all []ckpt.Tensor
	for _, n := range slices.Sorted(maps.Keys(from)) {
		t, err := ckpt.FromTensor(n, from[n], d)
		if err != nil {
			return fmt.Errorf("train: %s: %w", n, err)
		}
		all = append(all, t)
	}
	return ckpt.Write(path, all, nil)
}

func readTensors(path string, names []string, into map[string]*tensors.Tensor) error {
	f, err := ckpt.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, n := range names {
		t, err := f.Tensor(n)
		if err != nil {
			return fmt.Errorf("train: %s: %w", path, err)
		}
		if !t.Shape().Equal(into[n].Shape()) {
			return fmt.Errorf("train: %s: %s has shape %s, want %s", path, n, t.Shape(), into[n].Shape())
		}
		into[n] = t
	}
	return nil
}

func mustJSON(r Recipe) string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // a recipe was read from YAML and always has a JSON form
	}
	return string(text)
}
