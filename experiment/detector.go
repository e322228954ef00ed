package experiment

import (
	"fmt"

	"imagecot/geneval"
	"imagecot/models/clip"
	"imagecot/models/mask2former"

	"github.com/gomlx/compute"
)

// DetectorOptions say how GenEval's own evaluator is opened.
type DetectorOptions struct {
	Weights string // folder of Mask2Former
	CLIP    string // folder of CLIP; "" for prompts that ask for no colour
	// Given are options of the original, each KEY=VALUE.
	Given []string
	// Short bounds the shorter side of the detector's input in pixels; 0 means the published 800.
	Short int
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

// AsksColours reports whether a prompt of a folder in GenEval's layout asks for a colour.
func AsksColours(dir string) (bool, error) {
	folders, err := geneval.ReadFolders(dir)
	if err != nil {
		return false, err
	}
	for _, f := range folders {
		for _, c := range f.Metadata.Include {
			if c.Color != "" && c.Count > 0 {
				return true, nil
			}
		}
	}
	return false, nil
}
