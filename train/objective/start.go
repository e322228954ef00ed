package objective

import (
	"fmt"
	"path/filepath"

	"imagecot/ckpt"
	"imagecot/internal/graphx"

	"github.com/gomlx/gomlx/core/tensors"
)

// startFrom replaces starting weights by those of a checkpoint folder; "" replaces none. Every weight of the checkpoint
// must exist with its shape, and every weight must be in the checkpoint unless fresh says that it starts anew.
func startFrom(dir string, weights map[string]*tensors.Tensor, canonical func(string) string, fresh func(string) bool) error {
	if dir == "" {
		return nil
	}
	f, err := ckpt.OpenModel(dir)
	if err != nil {
		return fmt.Errorf("objective: init_from: %w", err)
	}
	defer f.Close()
	found := map[string]bool{}
	for _, stored := range f.Names() {
		values, err := f.Float32(stored)
		if err != nil {
			return fmt.Errorf("objective: init_from: %w", err)
		}
		info, _ := f.Info(stored)
		t, name := graphx.Tensor(values, info.Shape...), canonical(stored)
		if old := weights[name]; old == nil || !old.Shape().Equal(t.Shape()) {
			return fmt.Errorf("objective: init_from: %s of %s has shape %v, which the recipe's model has no place for", stored, dir, info.Shape)
		}
		weights[name], found[name] = t, true
	}
	for name := range weights {
		if !found[name] && !fresh(name) {
			return fmt.Errorf("objective: init_from: %s lacks %s", dir, name)
		}
	}
	return nil
}

func same(name string) string { return name }
func never(string) bool       { return false }

// parents names checkpoint folders by their roles, in pairs, for a manifest; a role without a folder is left out.
func parents(pairs ...string) ([]ckpt.Parent, error) {
	var out []ckpt.Parent
	for i := 0; i < len(pairs); i += 2 {
		role, dir := pairs[i], pairs[i+1]
		if dir == "" {
			continue
		}
		sum, err := ckpt.HashFile(filepath.Join(dir, ckpt.ModelFile))
		if err != nil {
			return nil, fmt.Errorf("objective: %s: %w", role, err)
		}
		name := filepath.Base(dir)
		if m, err := ckpt.ReadManifest(dir); err == nil {
			name = m.Name
		}
		out = append(out, ckpt.Parent{Role: role, Name: name, SHA256: sum})
	}
	return out, nil
}
