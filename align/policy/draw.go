package policy

import (
	"errors"
	"fmt"
	"math"
	"os"

	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/graphx"
	"imagecot/maskgit"
	"imagecot/models/magvit"
	"imagecot/models/showo"
	"imagecot/world"

	"github.com/gomlx/compute"
)

// Drawing says which images are drawn, and how.
type Drawing struct {
	Tokenizer   string  `json:"tokenizer"` // image tokenizer: tiny for the shipped one, a preset or a folder
	Prompts     string  `json:"prompts"`   // prompt file of `imagecot curate prompts`; "" draws Count from the tiny world's
	Count       int     `json:"count"`
	Steps       int     `json:"steps"`
	Guidance    float64 `json:"guidance"`
	Temperature float64 `json:"temperature"`
	// Rule is how the temperature falls over the steps; "" means the tiny world's, which Show-o's own decoding does not have.
	Rule maskgit.TemperatureRule `json:"temperature_rule,omitempty"`
}

// DefaultDrawing draws images that differ: the paper's steps and guidance at a high temperature.
func DefaultDrawing() Drawing {
	o := showo.TinyOptions()
	return Drawing{Tokenizer: "tiny", Count: 320, Steps: o.Steps, Guidance: o.Guidance, Temperature: 5}
}

// Options of the decoder.
func (d Drawing) Options() showo.Options {
	o := showo.TinyOptions()
	o.Steps, o.Guidance, o.Temperature = d.Steps, d.Guidance, d.Temperature
	if d.Rule != "" {
		o.Rule = d.Rule
	}
	return o
}

// Validate reports settings that nothing can be drawn with.
func (d Drawing) Validate() error {
	if d.Tokenizer == "" {
		return errors.New("policy: drawing: tokenizer is missing")
	}
	if d.Prompts == "" && d.Count < 1 {
		return fmt.Errorf("policy: drawing: %d prompts and no prompt file", d.Count)
	}
	return d.Options().Validate()
}

// List is the prompts: those of the file, or Count drawn by seed. One that asks for the scene of a test prompt is refused.
func (d Drawing) List(seed uint64) ([]geneval.Metadata, error) {
	if d.Prompts == "" {
		pools := map[string][]geneval.Metadata{}
		for _, task := range geneval.Tasks() {
			pools[task] = world.TrainPrompts(task)
		}
		return curate.Prompts(d.Count, seed, pools, world.TestPrompts())
	}
	f, err := os.Open(d.Prompts)
	if err != nil {
		return nil, fmt.Errorf("policy: prompts: %w", err)
	}
	defer f.Close()
	list, err := geneval.ReadPrompts(f)
	if err != nil {
		return nil, fmt.Errorf("policy: prompts: %s: %w", d.Prompts, err)
	}
	for _, m := range list {
		key, err := geneval.Key(m)
		if err != nil {
			return nil, fmt.Errorf("policy: prompts: %s: %w", d.Prompts, err)
		}
		if curate.Test(key) {
			return nil, fmt.Errorf("policy: prompts: %s: %q asks for the scene of a test prompt", d.Prompts, m.Prompt)
		}
	}
	return list, nil
}

// OpenImages opens the image tokenizer, which must have the policy's codes. Where images are not the tiny world's the prompts
// must not be either, nor the rule by which the temperature falls.
func (p *Policy) OpenImages(be compute.Backend, open Folders, d Drawing) (*magvit.Tokenizer, error) {
	name := d.Tokenizer
	dir, err := open(name, "tokenizer")
	if err != nil {
		return nil, fmt.Errorf("policy: tokenizer: %w", err)
	}
	t, err := magvit.OpenFS(be, dir, ".", magvit.Options{})
	if err != nil {
		return nil, fmt.Errorf("policy: tokenizer %s: %w", name, err)
	}
	if codes := t.Config().Codes(); codes != p.Config.CodebookSize {
		return nil, fmt.Errorf("policy: the tokenizer %s has %d codes, the generator %d", name, codes, p.Config.CodebookSize)
	}
	switch side := p.Side(t); {
	case side == world.Side:
	case d.Prompts == "":
		return nil, fmt.Errorf("policy: prompts is missing: those of the tiny world are not for images of %d pixels, and `imagecot curate prompts --scale full` draws others", side)
	case d.Rule == "":
		return nil, fmt.Errorf("policy: temperature_rule is missing: the tiny world's, %s, is not for images of %d pixels; Show-o's own is %s", d.Options().Rule, side, maskgit.Compound)
	}
	return t, nil
}

// Side is that of an image in pixels.
func (p *Policy) Side(images *magvit.Tokenizer) int {
	return int(math.Round(math.Sqrt(float64(p.Config.NumVQTokens)))) * images.Config().Factor()
}

// Generator draws with the given weights, which belong to the caller. images may be nil if nothing is decoded.
func (p *Policy) Generator(be compute.Backend, w *graphx.Weights, images showo.ImageDecoder, d Drawing) (*showo.Generator, error) {
	return showo.NewGenerator(be, p.Config, w, p.Text, images, d.Options())
}
