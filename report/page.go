package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/png"
	"slices"

	"golang.org/x/image/draw"

	"imagecot/cot"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// thumbSide is the largest side of a step image in the page; final images keep their size.
const thumbSide = 160

// page is what the template shows.
type page struct {
	Run       Run
	Final     template.URL
	Winner    cot.PathTrace
	Questions []questionView
	Paths     []pathView
	StepsOfN  int // decoding steps that all started paths would have taken to their ends
}

type questionView struct {
	Kind  cot.QuestionKind
	Text  string
	Count int
}

type pathView struct {
	cot.PathTrace
	Won       bool
	Truncated bool
	Cells     []cellView
}

type cellView struct {
	Step  int
	Image template.URL
	Asked []askedView
}

type askedView struct {
	Kind    cot.QuestionKind
	Yes     bool
	P       string
	LogYes  string
	LogNo   string
	Percent int
}

// Page writes report.html: one file without external resources, readable on a phone, in light and in dark. It shows
// every path's step images, every verdict, where and why a path was truncated, the winner and the cost.
func Page(r Run, final image.Image, rec *Recorder) ([]byte, error) {
	sel := r.Selection
	if sel.WinnerAt < 0 || sel.WinnerAt >= len(sel.Traces) {
		return nil, fmt.Errorf("report: page: winner %d of %d paths", sel.WinnerAt, len(sel.Traces))
	}
	finalURL, err := dataURL(final, 0)
	if err != nil {
		return nil, err
	}
	v := page{Run: r, Final: finalURL, Winner: sel.Traces[sel.WinnerAt], Questions: questionsOf(sel)}
	for i, t := range sel.Traces {
		pv := pathView{PathTrace: t, Won: i == sel.WinnerAt, Truncated: t.TruncatedAt > 0}
		if pv.Cells, err = cellsOf(t, r.Steps, rec); err != nil {
			return nil, err
		}
		if t.Parent < 0 {
			v.StepsOfN += r.Steps
		}
		v.Paths = append(v.Paths, pv)
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("report: page: %w", err)
	}
	return b.Bytes(), nil
}

// questionsOf lists the different questions of a selection in the order of their first appearance.
func questionsOf(sel cot.Selection) []questionView {
	var out []questionView
	for _, t := range sel.Traces {
		for _, a := range t.Asked {
			i := slices.IndexFunc(out, func(q questionView) bool { return q.Kind == a.Kind && q.Text == a.Text })
			if i < 0 {
				i = len(out)
				out = append(out, questionView{Kind: a.Kind, Text: a.Text})
			}
			out[i].Count++
		}
	}
	return out
}

// stepsOf is the range of steps that a path took itself; a fork's earlier ones are its parent's.
func stepsOf(t cot.PathTrace, steps int) (first, last int) {
	if t.Parent < 0 {
		return 1, max(t.Steps, t.TruncatedAt)
	}
	last = steps
	if t.TruncatedAt > 0 {
		last = t.TruncatedAt
	}
	return last - t.Steps + 1, last
}

// cellsOf lists the steps of a path that have an image or a verdict.
func cellsOf(t cot.PathTrace, steps int, rec *Recorder) ([]cellView, error) {
	var out []cellView
	first, last := stepsOf(t, steps)
	for step := first; step <= last; step++ {
		c := cellView{Step: step}
		for _, a := range t.Asked {
			if a.Step == step {
				c.Asked = append(c.Asked, viewOf(a))
			}
		}
		img := rec.Image(t.Seed, step)
		if img == nil && c.Asked == nil {
			continue
		}
		if img != nil {
			var err error
			if c.Image, err = dataURL(img, thumbSide); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	return out, nil
}

func viewOf(a cot.Asked) askedView {
	p := a.Verdict.PYes()
	return askedView{
		Kind: a.Kind, Yes: a.Verdict.Yes(), P: fmt.Sprintf("%.3f", p), Percent: min(100, max(0, int(100*p+.5))),
		LogYes: fmt.Sprintf("%.4f", a.Verdict.LogPYes), LogNo: fmt.Sprintf("%.4f", a.Verdict.LogPNo),
	}
}

// dataURL encodes an image as PNG inside a URL, shrunk to the largest side given (0 = as it is).
func dataURL(img image.Image, side int) (template.URL, error) {
	if img == nil {
		return "", fmt.Errorf("report: page: no image")
	}
	if b := img.Bounds(); side > 0 && max(b.Dx(), b.Dy()) > side {
		f := float64(side) / float64(max(b.Dx(), b.Dy()))
		small := image.NewRGBA(image.Rect(0, 0, max(1, int(float64(b.Dx())*f)), max(1, int(float64(b.Dy())*f))))
		draw.CatmullRom.Scale(small, small.Bounds(), img, b, draw.Src, nil)
		img = small
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		return "", fmt.Errorf("report: page: %w", err)
	}
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(buf.Bytes())), nil //nolint:gosec // our own bytes
}
