package sft

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
	"imagecot/internal/prng"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/train"
	"imagecot/train/objective"
	"imagecot/world"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/parquet-go/parquet-go"
)

// shipped finds the models inside by the name tiny, others by path.
func shipped(name, part string) (fs.FS, error) {
	if name == "tiny" {
		name = filepath.Join("../../tiny", part)
	}
	return os.DirFS(name), nil
}

// grid is an image of the toy: right ones are of one code, wrong ones of another, with a few codes of their own.
func grid(i int, right bool) []int32 {
	code := int32(40)
	if right {
		code = 900
	}
	out := slices.Repeat([]int32{code}, 64)
	for k := range 4 {
		out[k*9] = int32(prng.Derive(uint64(i), "toy", uint64(k)) % 1024)
	}
	return out
}

// dataSet writes rows as a data set of that kind.
func dataSet[Row any](t testing.TB, kind string, rows []Row) string {
	t.Helper()
	dir := t.TempDir()
	if err := parquet.WriteFile(filepath.Join(dir, "part-00000.parquet"), rows); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "recipe.json"), fmt.Appendf(nil, `{"kind":%q}`, kind), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// toyData are data sets of every kind about n images, half of them right, of n/2 training prompts (or of others).
func toyData(t testing.TB, n int, prompts []geneval.Metadata) map[string]string {
	t.Helper()
	var ranking []curate.Image
	var steps []curate.Step
	var parm []curate.Parm
	var reflection []curate.Reflected
	label := map[bool]int32{true: int32(curate.Yes), false: int32(curate.No)}
	for i := range n {
		m, right := prompts[i/2], i%2 == 0
		tokens, at := grid(i, right), int32(i%2)
		ranking = append(ranking, curate.Image{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Path: at, Steps: 2, Samples: append(grid(i, !right), tokens...), Correct: right})
		steps = append(steps, curate.Step{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Path: at, Step: 7, Sample: tokens, Rollouts: 4, Right: at ^ 1})
		row := curate.Parm{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Path: at, Step: 3, Sample: tokens}
		blurred, clear := row, row
		blurred.Clarity = int32(curate.No)
		clear.Step, clear.Clarity, clear.Potential, clear.Outcome = 18, int32(curate.Yes), label[right], label[right]
		parm = append(parm, blurred, clear)
		r := curate.Reflected{Task: m.Tag, Prompt: m.Prompt, Metadata: m.Dump(), Path: at, Image: tokens, Correct: right}
		if !right {
			r.Reason = "the " + m.Include[0].Class + " is missing"
		}
		reflection = append(reflection, r)
	}
	return map[string]string{
		"ranking": dataSet(t, "ranking", ranking), "steps": dataSet(t, "steps", steps),
		"parm": dataSet(t, "parm", parm), "reflection": dataSet(t, "reflection", reflection),
	}
}

// trained are training prompts, two of a task at a time.
func trained(n int) []geneval.Metadata {
	var out []geneval.Metadata
	for i := 0; len(out) < n; i++ {
		for _, task := range []string{geneval.Colors, geneval.Position} {
			out = append(out, world.TrainPrompts(task)[i])
		}
	}
	return out[:n]
}

// authors and transformers are the layouts of small judges with random weights and a text tokenizer of their own, whose
// pictures have 30 pixels a side, of which two are in no patch.
const (
	authors      = "authors"
	transformers = "transformers"
)

// smallJudge writes such a judge's folder.
func smallJudge(t testing.TB, layout string) string {
	t.Helper()
	words := text(t)
	c := llavaov.Tiny(words.VocabSize())
	c.Vision = llavaov.VisionConfig{
		HiddenSize: 16, IntermediateSize: 24, NumHiddenLayers: 2, NumAttentionHeads: 2, NumChannels: 3,
		ImageSize: 30, PatchSize: 7, HiddenAct: "gelu_pytorch_tanh", LayerNormEps: 1e-6,
	}
	c.TowerLayers, c.Pinpoints = 2, [][2]int{{30, 30}, {60, 60}}
	c.Text.HiddenSize, c.Text.IntermediateSize, c.Text.NumHiddenLayers, c.Text.NumAttentionHeads, c.Text.NumKeyValueHeads = 32, 48, 2, 4, 2
	weights := llavaov.Init(c, prng.New(8, 0, prng.Init).Rand())
	config, err := c.JSON()
	if err != nil {
		t.Fatal(err)
	}
	name := func(n string) string { return n }
	if layout == transformers {
		weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
		weights["model.vision_tower.vision_tower.vision_model.post_layernorm.weight"] = tensors.FromFlatDataAndDimensions(make([]float32, 16), 16)
		config, err = json.Marshal(map[string]any{
			"model_type": "llava_onevision", "vision_feature_layer": -1, "vision_aspect_ratio": "anyres_max_9", "tie_word_embeddings": true,
			"text_config": c.Text, "vision_config": c.Vision, "image_grid_pinpoints": c.Pinpoints,
		})
		name = func(n string) string {
			return strings.NewReplacer("model.vision_tower.vision_tower.vision_model.", "vision_tower.vision_model.", "model.mm_projector.0", "multi_modal_projector.linear_1",
				"model.mm_projector.2", "multi_modal_projector.linear_2", "model.image_newline", "image_newline", "model.layers", "language_model.model.layers",
				"model.norm", "language_model.model.norm", "model.embed_tokens", "language_model.model.embed_tokens", "lm_head", "language_model.lm_head").Replace(n)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var all []ckpt.Tensor
	for n, w := range weights {
		one, err := ckpt.FromTensor(name(n), w, ckpt.F32)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	if err := ckpt.Write(filepath.Join(dir, ckpt.ModelFile), all, nil); err != nil {
		t.Fatal(err)
	}
	vocabulary, err := objective.Vocabulary()
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{"config.json": config, "tokenizer.json": vocabulary, "generation_config.json": []byte("{}")} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// judgeRecipe trains a judge on whole data sets.
func judgeRecipe(from, reward string, data map[string]string, kinds ...string) train.Recipe {
	var sources []any
	for _, kind := range kinds {
		sources = append(sources, map[string]any{"from": data[kind], "kind": kind, "share": 1})
	}
	return train.Recipe{
		Kind: "sft", Name: "t", Seed: 9, MaxSteps: 4, Batch: 2, Accum: 1, LR: 1e-3, Beta1: .9, Beta2: .99, Epsilon: 1e-8, Clip: 1, LogEvery: 1, SaveEvery: 2,
		InitFrom: from, Data: map[string]any{"reward": reward, "sources": sources, "tokenizer": "tiny"},
	}
}

// decoder is the generator of an export, which only decodes.
type decoder struct {
	cot.Generator
	tokens *magvit.Tokenizer
}

func (d decoder) Decode(ctx context.Context, paths []*cot.Path) ([]image.Image, error) {
	var tokens [][]int32
	for _, p := range paths {
		tokens = append(tokens, p.Sample)
	}
	return pictures(ctx, d.tokens, tokens)
}

func pictures(ctx context.Context, t *magvit.Tokenizer, tokens [][]int32) ([]image.Image, error) {
	decoded, err := t.Decode(ctx, tokens)
	out := make([]image.Image, len(decoded))
	for i, img := range decoded {
		out[i] = img
	}
	return out, err
}

func openDecoder(t testing.TB) *magvit.Tokenizer {
	t.Helper()
	tok, err := magvit.Open(enginetest.Go(t), "../../tiny/tokenizer", magvit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
