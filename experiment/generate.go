package experiment

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"imagecot/cot"
	"imagecot/internal/atomicfile"
	"imagecot/internal/imgio"
	"imagecot/internal/prng"
	"imagecot/report"
)

// Generated is one prompt's image with the reasoning that led to it.
type Generated struct {
	Selection cot.Selection
	Image     image.Image
	recorder  *report.Recorder
	pipeline  *Pipeline
}

// Generate selects one image for a prompt.
func (p *Pipeline) Generate(ctx context.Context, arm Arm, prompt cot.Prompt) (*Generated, error) {
	defer arm.forget(prompt.Text)
	seeds := make([]uint64, p.Recipe.N)
	for i := range seeds {
		seeds[i] = prng.PathSeed(p.Recipe.Seed, prompt.Text, i)
	}
	start := time.Now()
	rec := report.NewRecorder(p.Generator)
	sel, img, err := choose(ctx, rec, arm, prompt, seeds)
	if err != nil {
		return nil, err
	}
	sel.Cost.Seconds = time.Since(start).Seconds()
	return &Generated{Selection: sel, Image: img, recorder: rec, pipeline: p}, nil
}

// Write puts image.png, trace.json and report.html into a folder, all or none. The same run leaves the same bytes: what differs from
// machine to machine (seconds, engine) is not in them.
func (g *Generated) Write(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	p := g.pipeline
	run := report.Run{Recipe: p.Recipe, Models: p.Models, Steps: p.Generator.Steps(), Selection: g.Selection}
	run.Selection = finite(run.Selection)
	trace, err := report.TraceJSON(run)
	if err != nil {
		return err
	}
	var seeds []uint64
	for _, t := range run.Selection.Traces {
		seeds = append(seeds, t.Seed)
	}
	if err := g.recorder.Complete(ctx, seeds); err != nil {
		return err
	}
	page, err := report.Page(run, g.Image, g.recorder)
	if err != nil {
		return err
	}
	png, err := p.EncodePNG(g.Image, g.Selection)
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFiles(dir, map[string][]byte{"trace.json": trace, "report.html": page, "image.png": png}, 0o644); err != nil {
		return fmt.Errorf("experiment: %w", err)
	}
	return nil
}

// finite replaces NaN and infinite logarithms, which JSON cannot hold, by -1e30: a judge that gave none was not sure of
// anything.
func finite(sel cot.Selection) cot.Selection {
	fix := func(v cot.Verdict) cot.Verdict {
		for _, log := range []*float64{&v.LogPYes, &v.LogPNo} {
			if math.IsNaN(*log) || math.IsInf(*log, 0) {
				*log = -1e30
			}
		}
		return v
	}
	sel.Traces = slices.Clone(sel.Traces)
	for i, t := range sel.Traces {
		asked := slices.Clone(t.Asked)
		for j := range asked {
			asked[j].Verdict = fix(asked[j].Verdict)
		}
		sel.Traces[i].Asked = asked
	}
	sel.Reflections = slices.Clone(sel.Reflections)
	for i, r := range sel.Reflections {
		sel.Reflections[i].Verdict = fix(r.Verdict)
	}
	return sel
}

// pngRecipe is the JSON under the key imagecot in a PNG: what repeats the image, and why it was chosen.
type pngRecipe struct {
	Format   int               `json:"format"`
	Prompt   string            `json:"prompt"`
	Recipe   Recipe            `json:"recipe"`
	Models   map[string]string `json:"models"`
	Path     int               `json:"path"`
	PathSeed uint64            `json:"path_seed"`
	Reason   string            `json:"reason,omitempty"`
	NPrime   int               `json:"n_prime"`
}

// EncodePNG writes an image with its recipe in text chunks: `parameters` as other programs spell it, and `imagecot`.
func (p *Pipeline) EncodePNG(img image.Image, sel cot.Selection) ([]byte, error) {
	if sel.WinnerAt < 0 || sel.WinnerAt >= len(sel.Traces) {
		return nil, fmt.Errorf("experiment: winner %d of %d paths", sel.WinnerAt, len(sel.Traces))
	}
	w, r := sel.Traces[sel.WinnerAt], p.Recipe
	text, err := json.Marshal(pngRecipe{
		Format: 1, Prompt: sel.Prompt.Text, Recipe: r, Models: p.Models, Path: w.Index, PathSeed: w.Seed, Reason: w.Reason, NPrime: sel.NPrime,
	})
	if err != nil {
		return nil, fmt.Errorf("experiment: image: %w", err)
	}
	b := img.Bounds()
	parameters := fmt.Sprintf("%s\nSteps: %d, Sampler: MaskGIT, CFG scale: %g, Seed: %d, Size: %dx%d, Model: %s, Strategy: %s, N: %d",
		strings.ReplaceAll(sel.Prompt.Text, "\n", " "), r.Steps, r.Guidance, r.Seed, b.Dx(), b.Dy(), r.Generator, r.Strategy, r.N)
	var buf bytes.Buffer
	err = imgio.EncodePNG(&buf, img, imgio.Text{Key: "parameters", Value: parameters}, imgio.Text{Key: "imagecot", Value: string(text)})
	if err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
