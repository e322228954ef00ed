package showo

import (
	"fmt"
	"io/fs"
	"os"
	"path"
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
// The error is a *ckpt.Mismatch, which names the first few that differ and guesses at the cause.
func Check(cfg Config, w *graphx.Weights) error {
	have := map[string][]int{}
	for _, name := range w.Names() {
		have[name] = w.Get(name).Shape().Dimensions
	}
	return compare(cfg, have)
}

// CheckFile is Check for an open checkpoint, before anything of it is loaded.
func CheckFile(cfg Config, f *ckpt.File) error { return compare(cfg, f.Shapes()) }

func compare(cfg Config, have map[string][]int) error {
	faults := ckpt.Compare("showo", have, Shapes(cfg))
	if faults == nil {
		return nil
	}
	faults.Guess = guess(cfg, faults)
	return faults
}

// guess says what a wrong checkpoint may be.
func guess(cfg Config, f *ckpt.Mismatch) string {
	whole := len(f.Missing) == 0
	switch {
	case whole && f.Unknown("mm_projector."):
		return "a w-clip-vit checkpoint, which understands images through CLIP; take showlab/show-o"
	case f.Unknown("lora_"):
		return "a LoRA adapter; merge it into its base first"
	case f.Unknown("module.showo."):
		return "saved from a wrapped model: all names begin with module."
	case f.Unknown("diffusion_head") || f.Unknown("und_trans") || f.Unknown("fusion_proj"):
		return "a Show-o2 checkpoint, another architecture"
	case f.Unknown("encoder.conv_in."):
		return "the weights of an image tokenizer"
	case f.Unknown("model.layers.") && !f.Unknown("showo."):
		return "a language model alone"
	}
	for _, m := range f.Misshapen {
		switch {
		case m.Name == imagePositions:
			return fmt.Sprintf("an image of %d tokens where config.json says %d", m.Got[0], cfg.NumVQTokens)
		case strings.HasPrefix(m.Name, "showo.lm_head.") || strings.HasSuffix(m.Name, "embed_tokens.weight") && len(m.Got) == 2 && m.Got[1] == m.Want[1]:
			return fmt.Sprintf("a vocabulary of %d where config.json says %d", m.Got[0], cfg.VocabSize)
		}
	}
	return "does config.json belong to these weights"
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
	if err := CheckFile(cfg, f); err != nil {
		return cfg, nil, err
	}
	t, err := f.Tensors()
	if err != nil {
		return Config{}, nil, fmt.Errorf("showo: %w", err)
	}
	return cfg, graphx.NewWeights(t), nil
}

// Open is OpenFS for a folder on disk.
func Open(dir string) (Config, *graphx.Weights, error) { return OpenFS(os.DirFS(dir), ".") }
