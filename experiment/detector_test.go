package experiment

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
	"imagecot/models/clip"
	"imagecot/models/mask2former"
)

const (
	tinyMask2Former = `{"backbone_config":{"model_type":"swin","embed_dim":8,"depths":[1,1,1,1],"num_heads":[1,2,2,4],"window_size":3,"mlp_ratio":2},
	"feature_size":32,"mask_feature_size":16,"hidden_dim":32,"num_attention_heads":2,"encoder_layers":1,"encoder_feedforward_dim":24,
	"decoder_layers":3,"dim_feedforward":20,"num_queries":7,"id2label":{%s}}`
	tinyCLIP = `{"projection_dim":10,"text_config":{"hidden_size":12,"intermediate_size":20,"num_hidden_layers":1,"num_attention_heads":3,
	"vocab_size":514,"max_position_embeddings":40,"eos_token_id":513},"vision_config":{"hidden_size":16,"intermediate_size":24,
	"num_hidden_layers":1,"num_attention_heads":2,"image_size":22,"patch_size":7}}`
)

// randomModel writes a model folder with random weights.
func randomModel(t *testing.T, config string, table map[string]ckpt.Source) string {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(5, 6))
	var list []ckpt.Tensor
	for _, name := range slices.Sorted(maps.Keys(table)) {
		shape := table[name].Shape
		values := make([]float32, (ckpt.Info{Shape: shape}).Size())
		for i := range values {
			values[i] = float32(rng.NormFloat64())
		}
		list = append(list, ckpt.Tensor{Name: name, DType: ckpt.F32, Shape: shape, Values: values})
	}
	if err := ckpt.Write(filepath.Join(dir, ckpt.ModelFile), list, nil); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "config.json"), config)
	return dir
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// randomDetector writes both models of GenEval's evaluator at toy size.
func randomDetector(t *testing.T) DetectorOptions {
	t.Helper()
	var labels []string
	for i := range geneval.Classes() {
		labels = append(labels, fmt.Sprintf(`"%d":"x"`, i))
	}
	config := fmt.Sprintf(tinyMask2Former, strings.Join(labels, ","))
	m, err := mask2former.LoadConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	c, err := clip.LoadConfig([]byte(tinyCLIP))
	if err != nil {
		t.Fatal(err)
	}
	o := DetectorOptions{Weights: randomModel(t, config, mask2former.Table(m, false)), CLIP: randomModel(t, tinyCLIP, clip.Table(c, false)), Short: 40}
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
	writeFile(t, filepath.Join(o.CLIP, "vocab.json"), "{"+vocab.String()+`"<|startoftext|>":512,"<|endoftext|>":513}`)
	writeFile(t, filepath.Join(o.CLIP, "merges.txt"), "#version: 0.2\n")
	return o
}

func TestGenEvalsOwnEvaluatorScoresAFolder(t *testing.T) {
	root := t.TempDir()
	for i, metadata := range []string{
		`{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}`,
		`{"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}], "prompt": "a photo of a red car"}`,
	} {
		samples := filepath.Join(root, geneval.FolderName(i), "samples")
		if err := os.MkdirAll(samples, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(root, geneval.FolderName(i), "metadata.jsonl"), metadata)
		img := image.NewRGBA(image.Rect(0, 0, 40, 32))
		for p := range 40 * 32 {
			img.SetRGBA(p%40, p/40, color.RGBA{uint8(p), uint8(p * p), uint8(i * 90), 255})
		}
		f, err := os.Create(filepath.Join(samples, geneval.ImageName(0)))
		if err != nil {
			t.Fatal(err)
		}
		if err := png.Encode(f, img); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if asks, err := AsksColours(root); err != nil || !asks {
		t.Errorf("a prompt asks for red: %t, %v", asks, err)
	}
	o := randomDetector(t)
	o.Given = []string{"threshold=0.001", "max_objects=3"}
	e, err := OpenDetector(enginetest.Go(t), o)
	if err != nil {
		t.Fatal(err)
	}
	// Every class is looked for: random weights find something, and the colour of what they find is asked.
	result, err := e.Evaluate(t.Context(), readPNG(t, filepath.Join(root, "00001/samples/0000.png")), geneval.Metadata{Tag: geneval.SingleObject})
	if err != nil || len(result.Kept) == 0 {
		t.Fatalf("%d classes kept, %v", len(result.Kept), err)
	}
	best := result.Kept[0]
	names, err := e.Colours.Classify(t.Context(), readPNG(t, filepath.Join(root, "00001/samples/0000.png")), best.Class, best.Objects)
	if err != nil || len(names) != len(best.Objects) || len(best.Objects) > 3 {
		t.Errorf("%d colours of %d objects, %v", len(names), len(best.Objects), err)
	}
	rows, err := Score(t.Context(), root, e.Evaluate, func(path string) (image.Image, error) { return readPNG(t, path), nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(root, "results.jsonl")
	if err := WriteRows(out, rows); err != nil {
		t.Fatal(err)
	}
	again, err := ReadRows(out)
	if err != nil || len(again) != 2 || again[1].Prompt != "a photo of a red car" || !strings.HasPrefix(again[0].Details, "{") {
		t.Errorf("rows are %+v, %v", again, err)
	}
}

func TestDetectorWithoutWeightsIsNamed(t *testing.T) {
	be := enginetest.Go(t)
	o := randomDetector(t)
	for name, test := range map[string]struct {
		change func(*DetectorOptions)
		want   string
	}{
		"detector": {func(o *DetectorOptions) { o.Weights = filepath.Join(t.TempDir(), "absent") }, "absent"},
		"clip":     {func(o *DetectorOptions) { o.CLIP = t.TempDir() }, "vocab.json"},
		"option":   {func(o *DetectorOptions) { o.Given = []string{"threshold=2"} }, "threshold"},
		"swapped":  {func(o *DetectorOptions) { o.Weights, o.CLIP = o.CLIP, o.Weights }, "mask2former"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := o
			test.change(&changed)
			if _, err := OpenDetector(be, changed); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}

func readPNG(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}
