package experiment

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"imagecot/ckpt"
	"imagecot/models/clip"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/models/mask2former"
	"imagecot/models/showo"
)

// Mapping says what a checkpoint is and what its tensors are for.
type Mapping struct {
	Model   string            // "" if no model of this program knows the names
	Uses    map[string]string // tensor in the file -> weight or weights of the model; "" if nobody reads it
	Missing []string          // weights of the model that the file has not, in order
}

// source is where a model keeps a weight in the file, in its shape.
type source struct {
	name  string
	shape []int
}

// MapTensors finds the model whose names the file has. config is its config.json; nil or an unreadable one means the
// published architecture.
func MapTensors(config []byte, f *ckpt.File) Mapping {
	has := func(part string) bool {
		return slices.ContainsFunc(f.Names(), func(n string) bool { return strings.Contains(n, part) })
	}
	switch {
	case has(".lora_A."):
		return mapAdapter(f)
	case has("mm_projector.") && has("vision_tower") || has("multi_modal_projector."):
		return mapLLaVA(config, f)
	case has("showo."):
		cfg, err := showo.LoadConfig(config)
		if err != nil {
			cfg, _ = showo.LoadConfig([]byte(`{"codebook_size":8192,"llm_vocab_size":50295,"mask_token_id":58497,"num_vq_tokens":256,"vocab_size":58498}`))
		}
		return mapShapes("Show-o", showo.Shapes(cfg), f)
	case has("encoder.conv_in.") && has("decoder.conv_in."):
		cfg, err := magvit.LoadConfig(config)
		if err != nil {
			cfg = magvit.Official()
		}
		m := mapShapes("MAGVIT-v2", magvit.Shapes(cfg), f)
		for name := range m.Uses {
			if strings.HasPrefix(name, "quantize.") {
				m.Uses[name] = "the codebook, which is compared with what it must be"
			}
		}
		return m
	case has("visual.conv1.") || has("text_model.embeddings."):
		cfg, err := clip.LoadConfig(config)
		if err != nil {
			cfg = clip.ViTL14()
		}
		return mapTable("CLIP", clip.Table(cfg, has("visual.conv1.")), f)
	case has("pixel_decoder.") || has("pixel_level_module."):
		cfg, err := mask2former.LoadConfig(config)
		if err != nil {
			cfg = mask2former.SwinSmallCOCO()
		}
		return mapTable("Mask2Former", mask2former.Table(cfg, has("pixel_decoder.")), f)
	}
	return Mapping{Uses: map[string]string{}}
}

// mapAdapter names what the tensors of a LoRA adapter change.
func mapAdapter(f *ckpt.File) Mapping {
	m := Mapping{Model: "LoRA adapter", Uses: map[string]string{}}
	for _, name := range f.Names() {
		module := strings.TrimPrefix(name, "base_model.model.")
		for _, part := range []string{"A", "B"} {
			if at, ok := strings.CutSuffix(module, ".lora_"+part+".weight"); ok {
				m.Uses[name] = part + " of the change of " + at + ".weight"
			}
		}
		if m.Uses[name] == "" {
			m.Uses[name] = "in the place of " + module
		}
	}
	return m
}

// mapLLaVA translates the four naming schemes.
func mapLLaVA(config []byte, f *ckpt.File) Mapping {
	cfg, err := llavaov.LoadConfig(config)
	if len(config) == 0 || err != nil {
		return Mapping{Model: "LLaVA-OneVision, its config.json is missing", Uses: canonicalNames(f)}
	}
	table := map[string]source{}
	stored := map[string]string{}
	for _, name := range f.Names() {
		stored[llavaov.Canonical(name)] = name
	}
	for weight, shape := range llavaov.Shapes(cfg) {
		at := source{weight, shape}
		if name, ok := stored[weight]; ok {
			at.name = name
		}
		table[weight] = at
	}
	if name, ok := stored["lm_head.weight"]; ok {
		table["lm_head.weight"] = source{name, []int{cfg.Text.VocabSize, cfg.Text.HiddenSize}}
	}
	return mapSources("LLaVA-OneVision", table, f)
}

func canonicalNames(f *ckpt.File) map[string]string {
	out := map[string]string{}
	for _, name := range f.Names() {
		out[name] = llavaov.Canonical(name)
	}
	return out
}

func mapShapes(model string, shapes map[string][]int, f *ckpt.File) Mapping {
	table := map[string]source{}
	for name, shape := range shapes {
		table[name] = source{name, shape}
	}
	return mapSources(model, table, f)
}

func mapTable(model string, sources map[string]ckpt.Source, f *ckpt.File) Mapping {
	table := map[string]source{}
	for weight, s := range sources {
		table[weight] = source{s.Name, s.Shape}
	}
	return mapSources(model, table, f)
}

// mapSources turns the table weight -> source around.
func mapSources(model string, table map[string]source, f *ckpt.File) Mapping {
	m := Mapping{Model: model, Uses: map[string]string{}}
	for _, name := range f.Names() {
		m.Uses[name] = ""
	}
	for _, weight := range slices.Sorted(maps.Keys(table)) {
		s := table[weight]
		info, ok := f.Info(s.name)
		if !ok {
			m.Missing = append(m.Missing, weight)
			continue
		}
		use := weight
		if !slices.Equal(info.Shape, s.shape) {
			use += fmt.Sprintf(", which wants %v", s.shape)
		}
		if m.Uses[s.name] != "" {
			use = m.Uses[s.name] + " + " + use
		}
		m.Uses[s.name] = use
	}
	return m
}

// ConfigOf reads the config.json of a model folder, nil if there is none.
func ConfigOf(dir fs.FS) []byte {
	text, err := fs.ReadFile(dir, "config.json")
	if err != nil || !json.Valid(text) {
		return nil
	}
	return text
}
