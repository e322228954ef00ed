package experiment

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"imagecot/geneval"
	"imagecot/models/clip"
	"imagecot/models/mask2former"
	"imagecot/world"

	"github.com/gomlx/compute"
)

// DetectorOptions say how GenEval's own evaluator is opened.
type DetectorOptions struct {
	Weights string // folder of Mask2Former, or a preset's name
	CLIP    string // folder of CLIP, or a preset's name; "" for prompts that ask for no colour
	// Given are options of the original, each KEY=VALUE.
	Given []string
	// Short bounds the shorter side of the detector's input in pixels; 0 means the published 800.
	Short int
}

// The presets of the models that GenEval's own evaluator is made of.
const (
	detectorPreset = "geneval-detector"
	clipPreset     = "clip-vit-l-14"
)

// Resolved turns names of presets into folders. What is not named is the preset of GenEval's own model; CLIP's is needed
// only where a prompt asks for a colour.
func (o DetectorOptions) Resolved(colours bool) (DetectorOptions, error) {
	for _, part := range []struct {
		name         *string
		preset, what string
		needed       bool
	}{{&o.Weights, detectorPreset, "Mask2Former finds the objects", true}, {&o.CLIP, clipPreset, "CLIP names the colours that prompts ask for", colours}} {
		if *part.name == "" && !part.needed {
			continue
		}
		name := *part.name
		if name == "" {
			name = part.preset
		} else if info, err := os.Stat(name); err == nil && info.IsDir() {
			continue
		}
		dir, published, err := Published(name)
		switch {
		case err != nil:
			return o, fmt.Errorf("experiment: detector: %s, and its weights are not there: %w", part.what, err)
		case !published:
			return o, fmt.Errorf("experiment: detector: %s, and %q is neither a folder nor a preset: %w", part.what, name, fs.ErrNotExist)
		}
		*part.name = dir
	}
	return o, nil
}

// OpenDetector opens GenEval's own evaluator: Mask2Former finds objects, CLIP names colours.
func OpenDetector(be compute.Backend, o DetectorOptions) (geneval.Evaluator, error) {
	rules, crop, err := geneval.ParseOptions(o.Given)
	if err != nil {
		return geneval.Evaluator{}, fmt.Errorf("experiment: %w", err)
	}
	e := geneval.Evaluator{Classes: geneval.Classes(), Options: rules}
	options := mask2former.Options{Classes: e.Classes, Floor: min(rules.Threshold, rules.CountingThreshold)}
	if o.Short > 0 {
		options.Short, options.Long = o.Short, o.Short*5/3
	}
	if e.Detector, err = mask2former.OpenDetector(be, o.Weights, options); err != nil {
		return e, fmt.Errorf("experiment: detector: %w", err)
	}
	if o.CLIP == "" {
		return e, nil
	}
	if e.Colours, err = clip.OpenColours(be, o.CLIP, crop); err != nil {
		return e, fmt.Errorf("experiment: colours: %w", err)
	}
	return e, nil
}

// TinyWorld says whether the generator draws the tiny world's images, which have a detector and prompts of their own.
func (p *Pipeline) TinyWorld() bool { return p.tinyWorld() }

// UseGenEval has images of full size evaluated by GenEval's own models, the presets that Resolved names. Images of the tiny
// world keep their exact detector.
func (p *Pipeline) UseGenEval(prompts []geneval.Metadata) (err error) {
	if p.tinyWorld() {
		return nil
	}
	p.evaluate, p.Models["detector"], err = openGenEval(p.backend, prompts)
	return err
}

// OpenEvaluator opens who judges images of a side of that many pixels: the tiny world's exact detector, or GenEval's own models.
// It is an align/policy.Evaluators.
func OpenEvaluator(be compute.Backend, side int, prompts []geneval.Metadata) (Evaluate, string, error) {
	if side == world.Side {
		return world.Evaluator().Evaluate, "", nil
	}
	return openGenEval(be, prompts)
}

// openGenEval opens the presets that Resolved names, and says what they are.
func openGenEval(be compute.Backend, prompts []geneval.Metadata) (Evaluate, string, error) {
	o, err := DetectorOptions{}.Resolved(slices.ContainsFunc(prompts, asksColour))
	if err != nil {
		return nil, "", err
	}
	id, err := o.Identity()
	if err != nil {
		return nil, "", err
	}
	e, err := OpenDetector(be, o)
	return e.Evaluate, id, err
}

func asksColour(m geneval.Metadata) bool {
	return slices.ContainsFunc(m.Include, func(c geneval.Clause) bool { return c.Color != "" && c.Count > 0 })
}

// AsksColours reports whether a prompt of a folder in GenEval's layout asks for a colour.
func AsksColours(dir string) (bool, error) {
	folders, err := geneval.ReadFolders(dir)
	if err != nil {
		return false, err
	}
	for _, f := range folders {
		if asksColour(f.Metadata) {
			return true, nil
		}
	}
	return false, nil
}

// Identity is everything that decides the verdicts of the evaluator that the options open: hashes of the weights, options,
// input size.
func (o DetectorOptions) Identity() (string, error) {
	parts := []string{fmt.Sprint(slices.Sorted(slices.Values(o.Given))), fmt.Sprint(o.Short)}
	for _, part := range []struct{ name, dir string }{{"detector", o.Weights}, {"clip", o.CLIP}} {
		if part.dir == "" {
			continue
		}
		id, err := identify(part.name, os.DirFS(part.dir)) // wherever it lies
		if err != nil {
			return "", fmt.Errorf("experiment: detector: %w", err)
		}
		parts = append(parts, id)
	}
	return strings.Join(parts, "\n"), nil
}
