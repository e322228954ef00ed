package experiment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"imagecot/cot"
	"imagecot/geneval"
)

// Measured is the outcome of a reproduction.
type Measured struct {
	Prompts []geneval.Metadata
	points  map[point]*Measurement
	absent  map[point]string
}

// Measurement is one generator and strategy at one N.
type Measurement struct {
	N          int
	Selections int
	Rows       []geneval.Row // one a selection
	Scores     geneval.Scores
	// Cost is the mean of a selection. Seconds are counted at the rates that this run took for a decoding step, a step
	// image and a judge call: what the selection would take by itself, with compilation spread over the whole run.
	Cost     Cost
	Pictures []Picture
}

// Cost is what one selection spends on average.
type Cost struct {
	DecodingSteps float64 `json:"decoding_steps"`
	JudgeCalls    float64 `json:"judge_calls"`
	ImagesDecoded float64 `json:"images_decoded"`
	Seconds       float64 `json:"seconds"`
}

// Picture is a chosen image that the gallery shows.
type Picture struct {
	Prompt  string
	PNG     []byte
	Correct bool
	Reason  string   // of the evaluator, if the image is not right
	Said    []string // by the judge, before each correction
}

// Row returns the measurement that stands for a row (a curve's last one), or nil and why there is none.
func (m *Measured) Row(r TableRow) (*Measurement, string) {
	if r.Absent != "" {
		return nil, r.Absent
	}
	p, _ := r.final()
	return m.points[p], m.absent[p]
}

// Curve returns the measurements of a row in the order of N.
func (m *Measured) Curve(r TableRow) []*Measurement {
	var out []*Measurement
	for _, p := range r.points() {
		if x := m.points[p]; x != nil {
			out = append(out, x)
		}
	}
	return out
}

// collect adds up the finished work of a generator.
func (w *worker) collect(m *Measured) error {
	for _, t := range w.tasks {
		x := &Measurement{N: t.n}
		var sum cot.Cost
		for i, meta := range w.Prompts {
			e, ok := w.finished(t, i)
			if !ok {
				return fmt.Errorf("experiment: the journal lacks %s, N=%d, prompt %d", t.strategy, t.n, i)
			}
			for g, c := range e.Chosen {
				sum = sum.Add(cot.Cost{DecodingSteps: c.Steps, JudgeCalls: c.Calls, ImagesDecoded: c.Decoded})
				x.Rows = append(x.Rows, geneval.Row{
					Filename: fmt.Sprintf("%s/%s", geneval.FolderName(i), geneval.ImageName(g)),
					Tag:      meta.Tag, Prompt: meta.Prompt, Correct: c.Correct, Reason: c.Reason, Metadata: meta.Dump(),
				})
			}
			if c := e.Chosen[0]; w.show[i] {
				x.Pictures = append(x.Pictures, Picture{meta.Prompt, c.PNG, c.Correct, c.Reason, c.Said})
			}
		}
		var err error
		if x.Scores, err = geneval.Score(x.Rows); err != nil {
			return err
		}
		rates, err := readRates(w.Dir, t.generator)
		if err != nil {
			return err
		}
		x.Selections = len(x.Rows)
		k := float64(x.Selections)
		x.Cost = Cost{DecodingSteps: float64(sum.DecodingSteps) / k, JudgeCalls: float64(sum.JudgeCalls) / k, ImagesDecoded: float64(sum.ImagesDecoded) / k}
		x.Cost.Seconds = rates.seconds(x.Cost)
		m.points[t.point] = x
	}
	return nil
}

// rates are how often something was computed and how long it took. Lines of rates.jsonl add up over interrupted runs;
// results do not depend on them, seconds do.
type rates struct {
	Generator string  `json:"generator"`
	Steps     int     `json:"steps"`
	StepsS    float64 `json:"steps_s"`
	Images    int     `json:"images"`
	ImagesS   float64 `json:"images_s"`
	Calls     int     `json:"calls"`
	CallsS    float64 `json:"calls_s"`
}

func (r rates) seconds(c Cost) float64 {
	per := func(count float64, n int, s float64) float64 { return count * s / float64(max(1, n)) }
	return per(c.DecodingSteps, r.Steps, r.StepsS) + per(c.ImagesDecoded, r.Images, r.ImagesS) + per(c.JudgeCalls, r.Calls, r.CallsS)
}

// addRates writes down what was computed since the last call.
func (w *worker) addRates(generator string) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	var r rates
	r.Steps, r.StepsS = w.memo.states.take()
	r.Images, r.ImagesS = w.memo.images.take()
	for _, t := range w.tasks { // what tasks share is taken once, and empty then
		if t.arm.judge != nil {
			n, s := t.arm.judge.take()
			r.Calls, r.CallsS = r.Calls+n, r.CallsS+s
		}
		if t.arm.corrector != nil {
			n, s := t.arm.corrector.paths.take()
			r.Steps, r.StepsS = r.Steps+n*w.memo.Steps(), r.StepsS+s
		}
	}
	if r == (rates{}) {
		return nil
	}
	r.Generator = generator
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("experiment: rates: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(w.Dir, "rates.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("experiment: rates: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("experiment: rates: %w", err)
	}
	return nil
}

// readRates adds up the rates of a generator. A line that a kill cut short does not count.
func readRates(dir, generator string) (rates, error) {
	var sum rates
	text, err := os.ReadFile(filepath.Join(dir, "rates.jsonl"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sum, fmt.Errorf("experiment: rates: %w", err)
	}
	for line := range bytes.Lines(text) {
		var r rates
		if json.Unmarshal(line, &r) != nil || r.Generator != generator {
			continue
		}
		sum.Steps, sum.StepsS = sum.Steps+r.Steps, sum.StepsS+r.StepsS
		sum.Images, sum.ImagesS = sum.Images+r.Images, sum.ImagesS+r.ImagesS
		sum.Calls, sum.CallsS = sum.Calls+r.Calls, sum.CallsS+r.CallsS
	}
	return sum, nil
}
