// Package report shows what a run did: the step images and questions behind one selection (Figs. 4 and 5 of the
// paper as an interactive page), tables, and curves over N (Fig. 3). Everything it writes is a function of its input
// alone, without dates or seconds, so equal runs give equal bytes. It knows no tensors, no models and no strategies.
package report

import (
	"encoding/json"
	"fmt"

	"imagecot/cot"
)

// Run is one finished selection together with everything that led to it.
type Run struct {
	Format    int               `json:"format"` // version of this layout, 1
	Recipe    any               `json:"recipe"` // what repeats the run
	Models    map[string]string `json:"models"` // role -> name and hash of the checkpoint
	Steps     int               `json:"steps"`  // decoding steps of a whole path
	Selection cot.Selection     `json:"selection"`
}

// TraceJSON is the content of trace.json: the run, indented, with a final newline and without seconds.
func TraceJSON(r Run) ([]byte, error) {
	r.Format = 1
	r.Selection.Cost.Seconds = 0
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("report: trace: %w", err)
	}
	return append(b, '\n'), nil
}
