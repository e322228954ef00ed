package clip

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"os"
	"sync"

	"imagecot/ckpt"
	"imagecot/geneval"
	"imagecot/internal/graphx"
	"imagecot/internal/imgio"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// LogitFactor is GenEval's factor on cosines, whatever the model's own logit scale is. It changes no answer.
const LogitFactor = 100

// templates of the sentences that stand for a colour of a class, in GenEval's words.
var templates = []string{"a photo of a %[1]s %[2]s", "a photo of a %[1]s-colored %[2]s", "a photo of a %[1]s object"}

// Colours names colours as GenEval does: the zero-shot classifier over crops. It implements geneval.ColourClassifier and
// may be used from several goroutines.
type Colours struct {
	cfg   Config
	tok   *Tokenizer
	crop  geneval.CropOptions
	text  *graphx.Program // ids [sentences, T] -> classifier [colours, P]
	image *graphx.Program // pixels [1, S, S, 3], classifier -> logits [1, colours]

	mu      sync.Mutex
	byClass map[string]*tensors.Tensor
}

// NewColours prepares the classifier over weights as LoadWeights returns them.
func NewColours(be compute.Backend, c Config, w *graphx.Weights, tok *Tokenizer, crop geneval.CropOptions) (*Colours, error) {
	if tok.context > c.Text.Context {
		return nil, fmt.Errorf("clip: the tokenizer gives up to %d ids, the model takes %d", tok.context, c.Text.Context)
	}
	k := &Colours{cfg: c, tok: tok, crop: crop, byClass: map[string]*tensors.Tensor{}}
	policy := graphx.PolicyFor(be)
	var err error
	k.text, err = graphx.NewProgram(be, "clip text", w, policy, func(s graphx.Scope, in []*Node) []*Node {
		return []*Node{Classifier(TextFeatures(s, c, in[0], nil), len(templates))}
	})
	if err != nil {
		return nil, err
	}
	k.image, err = graphx.NewProgram(be, "clip image", w, policy, func(s graphx.Scope, in []*Node) []*Node {
		return []*Node{Logits(ImageFeatures(s, c, in[0], nil), in[1], LogitFactor)}
	})
	return k, err
}

// OpenColours opens a model folder: weights, vocab.json and merges.txt, and config.json or open_clip_config.json; with
// neither of the last two the model is taken for OpenAI's ViT-L/14.
func OpenColours(be compute.Backend, dir string, crop geneval.CropOptions) (*Colours, error) {
	c, err := openConfigFile(dir)
	if err != nil {
		return nil, err
	}
	tok, err := OpenTokenizer(os.DirFS(dir), c.Text.Context)
	if err != nil {
		return nil, err
	}
	f, err := ckpt.OpenModel(dir)
	if err != nil {
		return nil, fmt.Errorf("clip: %w", err)
	}
	w, err := LoadWeights(c, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return NewColours(be, c, w, tok, crop)
}

func openConfigFile(dir string) (Config, error) {
	for _, name := range []string{"config.json", "open_clip_config.json"} {
		text, err := fs.ReadFile(os.DirFS(dir), name)
		if err == nil {
			return LoadConfig(text)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return Config{}, fmt.Errorf("clip: %w", err)
		}
	}
	return ViTL14(), nil
}

// Classify names the colour of each object of a class.
func (k *Colours) Classify(ctx context.Context, img image.Image, class string, objects []geneval.Detection) ([]string, error) {
	classifier, err := k.classifier(class)
	if err != nil {
		return nil, err
	}
	rgb, names := imgio.RGB(img), geneval.Colours()
	answers := make([]string, len(objects))
	for i, object := range objects {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		crop, err := geneval.Crop(rgb, object, k.crop)
		if err != nil {
			return nil, err
		}
		size := k.cfg.Vision.ImageSize
		pixels := AppendPixels(nil, CentreSquare(crop, size))
		out, err := k.image.Run(graphx.Tensor(pixels, 1, size, size, 3), classifier)
		if err != nil {
			return nil, err
		}
		answers[i] = names[argmax(graphx.Floats(out[0]))]
	}
	return answers, nil
}

func argmax(v []float32) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}

// classifier of a class, [colours, P], computed once.
func (k *Colours) classifier(class string) (*tensors.Tensor, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.byClass[class]; t != nil {
		return t, nil
	}
	rows, n := k.tok.rows(sentences(class))
	out, err := k.text.Run(graphx.Tensor(rows, len(rows)/n, n))
	if err != nil {
		return nil, err
	}
	k.byClass[class] = out[0]
	return out[0], nil
}

// sentences of a class: those of the first colour, then those of the second and so on.
func sentences(class string) []string {
	var out []string
	for _, colour := range geneval.Colours() {
		for _, template := range templates {
			out = append(out, fmt.Sprintf(template, colour, class))
		}
	}
	return out
}
