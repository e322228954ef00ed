package untrained

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/tensors"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/geneval"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/clip"
	"imagecot/models/magvit"
	"imagecot/models/mask2former"
	"imagecot/models/showo"
	"imagecot/preset"
	"imagecot/tiny"
)

// Tokens is how many tokens an image of the published generator has, Side its side in pixels.
const (
	Tokens = 4
	Side   = 16
)

// presets are published models of toy size: Show-o, whose words lie in a repository of their own, and its image tokenizer.
const presets = `
- {name: small, role: generator, about: Show-o, repo: org/small, files: [config.json, pytorch_model.safetensors], licence: MIT,
   tokenizer: small-images, text: small-words, resolution: 16, decoding: {steps: 3, guidance: 1.75, temperature: 1}}
- {name: small-images, role: tokenizer, about: MAGVIT-v2, repo: org/images, files: [config.json, model.safetensors], licence: MIT}
- {name: small-words, role: text, about: words, repo: org/words, files: [tokenizer.json], licence: MIT}
`

// Publish puts small into the presets of a home of imagecot, and its files, those of what it needs, and GenEval's detector and CLIP
// at toy size into a hub's cache: all that images which are not the tiny world's are drawn and evaluated with.
func Publish(home, cache string) error {
	if err := writeFile(filepath.Join(home, "presets", "small.yaml"), []byte(presets)); err != nil {
		return err
	}
	text, err := tiny.TextTokenizer()
	if err != nil {
		return err
	}
	return errors.Join(
		publishGenerator(cache, text),
		writeFile(filepath.Join(repository(cache, "org/words"), "tokenizer.json"), append(slices.Clone(text), '\n')), // its own, by its bytes
		publishDetector(cache),
		writeFile(filepath.Join(repository(cache, "openai/clip-vit-large-patch14"), "tokenizer.json"), []byte("{}")), // asked for beside the older layout
		WriteColours(repository(cache, "openai/clip-vit-large-patch14")),
	)
}

var commit = strings.Repeat("a", 40)

// repository is the folder of a repository's files in a hub's cache, in which its main branch is made known.
func repository(cache, name string) string {
	dir := filepath.Join(cache, "models--"+strings.ReplaceAll(name, "/", "--"))
	_ = writeFile(filepath.Join(dir, "refs", "main"), []byte(commit)) // what follows fails where this does
	return filepath.Join(dir, "snapshots", commit)
}

func writeFile(to string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("untrained: %w", err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		return fmt.Errorf("untrained: %w", err)
	}
	return nil
}

func publishGenerator(cache string, text []byte) error {
	words, err := bpe.Load(text)
	if err != nil {
		return err
	}
	eos, _ := words.TokenID("<|endoftext|>")
	images := magvit.Tiny()
	images.CodebookDim, images.Encoder.ZChannels, images.Decoder.ZChannels = 3, 3, 3
	cfg := showo.Tiny(words.VocabSize(), eos)
	cfg.VocabSize += images.Codes() - cfg.CodebookSize
	cfg.CodebookSize, cfg.NumVQTokens, cfg.MaskTokenID, cfg.MaxSeqLength = images.Codes(), Tokens, int32(cfg.VocabSize-1), 128
	cfg.LLM.HiddenSize, cfg.LLM.IntermediateSize, cfg.LLM.Layers, cfg.LLM.Heads, cfg.LLM.KeyValueHeads = 16, 32, 1, 2, 2
	rng := prng.New(3, 0, prng.Init).Rand()
	weights, err := showo.Init(cfg, rng, showo.InitOptions{})
	if err != nil {
		return err
	}
	generatorConfig, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("untrained: %w", err)
	}
	imagesConfig, err := json.Marshal(images)
	if err != nil {
		return fmt.Errorf("untrained: %w", err)
	}
	generator := repository(cache, "org/small")
	if err := errors.Join(save(generator, generatorConfig, weights), save(repository(cache, "org/images"), imagesConfig, magvit.Init(images, rng))); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(generator, ckpt.ModelFile), filepath.Join(generator, ckpt.PublishedFile)); err != nil {
		return fmt.Errorf("untrained: %w", err)
	}
	return nil
}

// publishDetector puts the detector where `imagecot pull --allow-pickle` leaves it: the published file beside what was made of it.
func publishDetector(cache string) error {
	detector, err := preset.Find("geneval-detector")
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, "imagecot", detector.Name)
	return errors.Join(WriteDetector(dir), writeFile(filepath.Join(dir, path.Base(detector.URL)), nil))
}

const (
	detectorConfig = `{"backbone_config":{"model_type":"swin","embed_dim":8,"depths":[1,1,1,1],"num_heads":[1,2,2,4],"window_size":3,"mlp_ratio":2},
	"feature_size":32,"mask_feature_size":16,"hidden_dim":32,"num_attention_heads":2,"encoder_layers":1,"encoder_feedforward_dim":24,
	"decoder_layers":3,"dim_feedforward":20,"num_queries":7,"id2label":{%s}}`
	coloursConfig = `{"projection_dim":10,"text_config":{"hidden_size":12,"intermediate_size":20,"num_hidden_layers":1,"num_attention_heads":3,
	"vocab_size":514,"max_position_embeddings":40,"eos_token_id":513},"vision_config":{"hidden_size":16,"intermediate_size":24,
	"num_hidden_layers":1,"num_attention_heads":2,"image_size":22,"patch_size":7}}`
)

// WriteDetector makes a Mask2Former of toy size that knows GenEval's classes.
func WriteDetector(dir string) error {
	var labels []string
	for i := range geneval.Classes() {
		labels = append(labels, fmt.Sprintf(`"%d":"x"`, i))
	}
	config := fmt.Sprintf(detectorConfig, strings.Join(labels, ","))
	c, err := mask2former.LoadConfig([]byte(config))
	if err != nil {
		return err
	}
	return save(dir, []byte(config), normal(mask2former.Table(c, false)))
}

// WriteColours makes a CLIP of toy size, whose tokens are bytes.
func WriteColours(dir string) error {
	c, err := clip.LoadConfig([]byte(coloursConfig))
	if err != nil {
		return err
	}
	var vocab strings.Builder
	for b := range 256 { // the files' alphabet: printable Latin-1 as it is, the others from U+0100 on
		r := rune(b)
		if b < 33 {
			r = rune(0x100 + b)
		} else if b >= 127 && b <= 160 {
			r = rune(0x100 + 33 + b - 127)
		} else if b == 173 {
			r = 0x143
		}
		fmt.Fprintf(&vocab, "%q:%d,%q:%d,", string(r), b, string(r)+"</w>", 256+b)
	}
	return errors.Join(
		save(dir, []byte(coloursConfig), normal(clip.Table(c, false))),
		writeFile(filepath.Join(dir, "vocab.json"), []byte("{"+vocab.String()+`"<|startoftext|>":512,"<|endoftext|>":513}`)),
		writeFile(filepath.Join(dir, "merges.txt"), []byte("#version: 0.2\n")),
	)
}

// normal draws weights of a table's shapes.
func normal(table map[string]ckpt.Source) map[string]*tensors.Tensor {
	rng := rand.New(rand.NewPCG(5, 6))
	out := map[string]*tensors.Tensor{}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		values := make([]float32, (ckpt.Info{Shape: table[name].Shape}).Size())
		for i := range values {
			values[i] = float32(rng.NormFloat64())
		}
		out[name] = graphx.Tensor(values, table[name].Shape...)
	}
	return out
}
