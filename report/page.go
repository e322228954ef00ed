package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/jpeg"
	"image/png"
	"slices"

	"golang.org/x/image/draw"

	"imagecot/cot"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

const (
	thumbSide    = 128 // the largest side of a step image in the page, in pixels; final images keep their size
	thumbQuality = 88  // of its JPEG, in percent: a page has hundreds of them
)

// page is what the template shows.
type page struct {
	Run       Run
	Final     template.URL
	Winner    cot.PathTrace
	NPrime    bool // the strategy keeps some of the paths
	Questions []questionView
	Rounds    []roundView
	Paths     []pathView
	Idle      []int // paths that were never decoded
	StepsOfN  int   // decoding steps that all started paths would have taken to their ends
}

type questionView struct {
	Kind  cot.QuestionKind
	Text  string
	Count int
}

// roundView is one reflection of PARM++.
type roundView struct {
	cot.ReflectionTrace
	Number int
	Image  template.URL // of the path that was looked at
	Asked  askedView
	Won    bool
}

type pathView struct {
	cot.PathTrace
	Won   bool
	Cells []cellView
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
// every path's step images, every verdict, where and why a path was truncated, the rounds of PARM++, the winner and the
// cost. A step image that the recorder has not is left out; see Recorder.Complete.
func Page(r Run, final image.Image, rec *Recorder) ([]byte, error) {
	sel := r.Selection
	if sel.WinnerAt < 0 || sel.WinnerAt >= len(sel.Traces) {
		return nil, fmt.Errorf("report: page: winner %d of %d paths", sel.WinnerAt, len(sel.Traces))
	}
	v := page{Run: r, Winner: sel.Traces[sel.WinnerAt], Questions: questionsOf(sel)}
	v.NPrime = slices.Contains([]string{"parm", "parmpp", "search", "threshold"}, sel.Strategy)
	var err error
	if v.Final, err = pngURL(final); err != nil {
		return nil, err
	}
	if v.Rounds, err = roundsOf(r, rec); err != nil {
		return nil, err
	}
	for i, t := range sel.Traces {
		if t.Parent < 0 {
			v.StepsOfN += r.Steps
		}
		if t.Steps == 0 {
			v.Idle = append(v.Idle, t.Index)
			continue
		}
		cells, err := cellsOf(t, r.Steps, rec)
		if err != nil {
			return nil, err
		}
		v.Paths = append(v.Paths, pathView{t, i == sel.WinnerAt, cells})
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("report: page: %w", err)
	}
	return b.Bytes(), nil
}

// questionsOf lists the different questions of a selection in the order of their first appearance, requests for a reason
// last.
func questionsOf(sel cot.Selection) []questionView {
	var out []questionView
	count := func(kind cot.QuestionKind, text string) {
		i := slices.IndexFunc(out, func(q questionView) bool { return q.Kind == kind && q.Text == text })
		if i < 0 {
			i = len(out)
			out = append(out, questionView{Kind: kind, Text: text})
		}
		out[i].Count++
	}
	for _, t := range sel.Traces {
		for _, a := range t.Asked {
			count(a.Kind, a.Text)
		}
	}
	for _, r := range sel.Reflections {
		if r.Why != "" {
			count(cot.Reason, r.Why)
		}
	}
	return out
}

// roundsOf are the rounds of PARM++ with their images.
func roundsOf(r Run, rec *Recorder) ([]roundView, error) {
	var out []roundView
	for i, t := range r.Selection.Reflections {
		if t.Path < 0 || t.Path >= len(r.Selection.Traces) {
			return nil, fmt.Errorf("report: page: round %d is about path %d of %d", i+1, t.Path, len(r.Selection.Traces))
		}
		v := roundView{ReflectionTrace: t, Number: i + 1, Won: t.Path == r.Selection.WinnerAt}
		v.Asked = viewOf(cot.Asked{Kind: cot.Reflection, Verdict: t.Verdict})
		if img := rec.Image(r.Selection.Traces[t.Path].Seed, r.Steps); img != nil {
			var err error
			if v.Image, err = pngURL(img); err != nil {
				return nil, err
			}
		}
		out = append(out, v)
	}
	return out, nil
}

// stepsOf is the range of steps that a path took itself; a fork's earlier ones are its parent's.
func stepsOf(t cot.PathTrace, steps int) (first, last int) {
	if t.Parent < 0 || t.Corrects {
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
			if c.Image, err = thumbURL(img); err != nil {
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

// pngURL holds an image as it is.
func pngURL(img image.Image) (template.URL, error) {
	if img == nil {
		return "", fmt.Errorf("report: page: no image")
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return "", fmt.Errorf("report: page: %w", err)
	}
	return dataURL("png", b.Bytes()), nil
}

// thumbURL holds an image in few bytes: shrunk to thumbSide, as JPEG.
func thumbURL(img image.Image) (template.URL, error) {
	if b := img.Bounds(); max(b.Dx(), b.Dy()) > thumbSide {
		f := thumbSide / float64(max(b.Dx(), b.Dy()))
		small := image.NewRGBA(image.Rect(0, 0, max(1, int(float64(b.Dx())*f)), max(1, int(float64(b.Dy())*f))))
		draw.CatmullRom.Scale(small, small.Bounds(), img, b, draw.Src, nil)
		img = small
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: thumbQuality}); err != nil {
		return "", fmt.Errorf("report: page: %w", err)
	}
	return dataURL("jpeg", b.Bytes()), nil
}

func dataURL(kind string, data []byte) template.URL {
	return template.URL("data:image/" + kind + ";base64," + base64.StdEncoding.EncodeToString(data)) //nolint:gosec // our own bytes
}
