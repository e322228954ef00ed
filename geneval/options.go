package geneval

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseOptions reads the original's options, each KEY=VALUE, on top of its defaults: threshold, counting_threshold,
// max_objects, max_overlap, position_threshold, bgcolor, crop.
func ParseOptions(given []string) (Options, CropOptions, error) {
	o, crop := DefaultOptions(), DefaultCropOptions()
	shares := map[string]*float32{
		"threshold": &o.Threshold, "counting_threshold": &o.CountingThreshold, "max_overlap": &o.MaxOverlap,
		"position_threshold": &o.PositionThreshold,
	}
	for _, text := range given {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return o, crop, fmt.Errorf("geneval: option %q, want KEY=VALUE", text)
		}
		var err error
		switch {
		case shares[key] != nil:
			var v float64
			if v, err = strconv.ParseFloat(value, 32); err == nil && !(v >= 0 && v <= 1) {
				err = fmt.Errorf("%s is not in 0..1", value)
			}
			*shares[key] = float32(v)
		case key == "max_objects":
			if o.MaxObjects, err = strconv.Atoi(value); err == nil && o.MaxObjects < 1 {
				err = fmt.Errorf("%s is less than 1", value)
			}
		case key == "bgcolor":
			crop.Background, err = ParseBackground(value)
		case key == "crop":
			crop.Whole = value != "1"
		default:
			err = fmt.Errorf("%q is not known", key)
		}
		if err != nil {
			return o, crop, fmt.Errorf("geneval: option %s: %w", key, err)
		}
	}
	return o, crop, nil
}
