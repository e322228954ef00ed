package showo

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"imagecot/ckpt"
	"imagecot/internal/graphx"
)

// Shapes returns the name and shape of every weight, in the checkpoint's layout (a linear weight is [out, in]).
func Shapes(cfg Config) map[string][]int {
	l := cfg.LLM
	d, head := l.HiddenSize, l.HiddenSize/l.Heads
	t := map[string][]int{"showo.model.embed_tokens.weight": {cfg.VocabSize, d}}
	layer := func(name string, shape ...int) {
		t[name+".weight"], t[name+".bias"] = shape, shape[:1]
	}
	for i := range l.Layers {
		at := fmt.Sprintf("showo.model.layers.%d.", i)
		layer(at+"input_layernorm", d)
		for _, part := range []string{"q_proj", "k_proj", "v_proj", "dense"} {
			layer(at+"self_attn."+part, d, d)
		}
		if l.QKLayerNorm {
			layer(at+"self_attn.q_layernorm", head)
			layer(at+"self_attn.k_layernorm", head)
		}
		layer(at+"mlp.fc1", l.IntermediateSize, d)
		layer(at+"mlp.fc2", d, l.IntermediateSize)
	}
	layer("showo.model.final_layernorm", d)
	layer("showo.lm_head", cfg.VocabSize, d)
	if l.ImagePositionEmbeddings {
		t[imagePositions] = []int{cfg.NumVQTokens, d}
	}
	return t
}

// Check compares weights with the architecture: every tensor of Shapes must be there in its shape, and nothing else.
// The error names the first few that differ.
func Check(cfg Config, w *graphx.Weights) error {
	shapes := Shapes(cfg)
	var faults []string
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		if t := w.Get(name); t == nil {
			faults = append(faults, fmt.Sprintf("%q is missing", name))
		} else if got := t.Shape().Dimensions; !slices.Equal(got, shapes[name]) {
			faults = append(faults, fmt.Sprintf("%q has shape %v, want %v", name, got, shapes[name]))
		}
	}
	for _, name := range w.Names() {
		if _, ok := shapes[name]; !ok {
			faults = append(faults, fmt.Sprintf("%q is not used", name))
		}
	}
	const shown = 5
	switch {
	case len(faults) == 0:
		return nil
	case len(faults) > shown:
		return fmt.Errorf("showo: weights: %s and %d more", strings.Join(faults[:shown], ", "), len(faults)-shown)
	}
	return fmt.Errorf("showo: weights: %s", strings.Join(faults, ", "))
}

// OpenFS reads a model folder of a file system, for example an embedded one: config.json, and model.safetensors (or its
// shards) or pytorch_model.safetensors. The weights are checked against the architecture.
func OpenFS(fsys fs.FS, dir string) (Config, *graphx.Weights, error) {
	data, err := fs.ReadFile(fsys, path.Join(dir, "config.json"))
	if err != nil {
		return Config{}, nil, fmt.Errorf("showo: %w", err)
	}
	cfg, err := LoadConfig(data)
	if err != nil {
		return Config{}, nil, err
	}
	f, err := ckpt.OpenModelFS(fsys, dir)
	if err != nil {
		return Config{}, nil, fmt.Errorf("showo: %w", err)
	}
	defer f.Close()
	t, err := f.Tensors()
	if err != nil {
		return Config{}, nil, fmt.Errorf("showo: %w", err)
	}
	w := graphx.NewWeights(t)
	return cfg, w, Check(cfg, w)
}

// Open is OpenFS for a folder on disk.
func Open(dir string) (Config, *graphx.Weights, error) { return OpenFS(os.DirFS(dir), ".") }
