package report

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imagecot/cot"
)

// fakeGenerator has three steps; the single token of a path counts them, and so does the colour of its image.
type fakeGenerator struct{ decoded int }

func (*fakeGenerator) Steps() int { return 3 }
func (*fakeGenerator) Start(_ context.Context, p cot.Prompt, seeds []uint64) ([]*cot.Path, error) {
	var out []*cot.Path
	for i, s := range seeds {
		out = append(out, &cot.Path{Index: i, Seed: s, Prompt: p, Tokens: []int32{cot.Masked}, Sample: []int32{0}})
	}
	return out, nil
}

func (*fakeGenerator) Advance(_ context.Context, paths []*cot.Path) error {
	for _, p := range paths {
		p.Step++
		p.Sample[0] = int32(p.Step)
	}
	return nil
}
func (*fakeGenerator) Fork(p *cot.Path, seed uint64) *cot.Path { c := *p; c.Seed = seed; return &c }
func (g *fakeGenerator) Decode(_ context.Context, paths []*cot.Path) ([]image.Image, error) {
	out := make([]image.Image, len(paths))
	for i, p := range paths {
		g.decoded++
		img := image.NewGray(image.Rect(0, 0, 4, 4))
		img.SetGray(0, 0, color.Gray{Y: uint8(p.Sample[0])})
		out[i] = img
	}
	return out, nil
}

// runOfTwo plays two paths: the first wins, the second is truncated at step 2 after its image was judged.
func runOfTwo(t *testing.T) (Run, image.Image, *Recorder, *fakeGenerator) {
	t.Helper()
	ctx, g := t.Context(), &fakeGenerator{}
	rec := NewRecorder(g)
	prompt := cot.Prompt{Text: `a <script>alert("x")</script> circle`}
	paths, err := rec.Start(ctx, prompt, []uint64{11, 12})
	check(t, err)
	check(t, rec.Advance(ctx, paths))
	check(t, rec.Advance(ctx, paths))
	imgs, err := g.Decode(ctx, paths[1:])
	check(t, err)
	rec.Judged(paths[1], imgs[0])
	check(t, rec.Advance(ctx, paths[:1]))
	imgs, err = rec.Decode(ctx, paths[:1])
	check(t, err)
	sel := cot.Selection{Prompt: prompt, Strategy: "parm", Winner: paths[0], NPrime: 1, Traces: []cot.PathTrace{
		{Index: 0, Seed: 11, Parent: -1, Steps: 3, Reason: "only path left"},
		{
			Index: 1, Seed: 12, Parent: -1, Steps: 2, TruncatedAt: 2, Reason: "no potential",
			Asked: []cot.Asked{{Step: 2, Kind: cot.Potential, Text: "Potential?", Verdict: cot.Verdict{LogPYes: math.Log(.25), LogPNo: math.Log(.75)}}},
		},
	}, Cost: cot.Cost{DecodingSteps: 5, JudgeCalls: 1, ImagesDecoded: 2, Seconds: 1.25}}
	return Run{Steps: 3, Selection: sel, Models: map[string]string{"generator": "fake"}}, imgs[0], rec, g
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPageShowsTheWholeReasoningAndNothingExternal(t *testing.T) {
	run, final, rec, _ := runOfTwo(t)
	b, err := Page(run, final, rec)
	check(t, err)
	s := string(b)
	for _, want := range []string{"truncated at step 2", "no potential", "potential: P(yes) 0.250", "Potential?", "only path left", "5 <span class=\"soft\">of 6</span>", "&lt;script&gt;"} {
		if !strings.Contains(s, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	if strings.Contains(s, "<script>") {
		t.Error("the prompt reaches the page unescaped")
	}
	if m := regexp.MustCompile(`src="([^"]{0,20})`).FindAllStringSubmatch(s, -1); len(m) != 3 {
		t.Errorf("%d images, want 3: the final one, the winner's last step and the judged one", len(m))
	} else {
		for _, x := range m {
			if !strings.HasPrefix(x[1], "data:image/") {
				t.Errorf("external resource %q", x[1])
			}
		}
	}
	for _, x := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(s, -1) {
		if !strings.HasPrefix(x[1], "#path-") || !strings.Contains(s, `id="`+x[1][1:]+`"`) {
			t.Errorf("a link leads to %q", x[1])
		}
	}
	again, err := Page(run, final, rec)
	check(t, err)
	if !bytes.Equal(b, again) {
		t.Error("two pages of one run differ")
	}
}

// After Complete every path shows all of its steps up to where it was truncated, and none beyond; each has an alt text.
func TestPageShowsEveryStepUpToTruncation(t *testing.T) {
	run, final, rec, _ := runOfTwo(t)
	check(t, rec.Complete(t.Context(), []uint64{11, 12}))
	run.Selection.Traces = append(run.Selection.Traces, cot.PathTrace{Index: 2, Seed: 13, Parent: -1, Reason: "not needed"})
	b, err := Page(run, final, rec)
	check(t, err)
	var got []string
	for _, m := range regexp.MustCompile(`<img[^>]* alt="(path [^"]*)"`).FindAllStringSubmatch(string(b), -1) {
		got = append(got, m[1])
	}
	want := []string{"path 0, step 1 of 3", "path 0, step 2 of 3", "path 0, step 3 of 3", "path 1, step 1 of 3", "path 1, step 2 of 3"}
	if !slices.Equal(got, want) {
		t.Errorf("step images %q, want %q", got, want)
	}
	if images := bytes.Count(b, []byte("<img ")); images != len(want)+1 || bytes.Count(b, []byte("alt=")) != images {
		t.Errorf("%d images, %d alt texts", images, bytes.Count(b, []byte("alt=")))
	}
	if !bytes.Contains(b, []byte("not needed: path 2.")) {
		t.Error("the page says nothing of the path that was not decoded")
	}
}

// PARM++: each round shows image, verdict, reason, and where the correction is.
func TestPageShowsReflection(t *testing.T) {
	run, final, rec, _ := runOfTwo(t)
	no := cot.Verdict{LogPYes: math.Log(.125), LogPNo: math.Log(.875)}
	yes := cot.Verdict{LogPYes: math.Log(.75), LogPNo: math.Log(.25)}
	sel := &run.Selection
	sel.Strategy, sel.WinnerAt = "parmpp", 2
	sel.Traces = append(sel.Traces, cot.PathTrace{Index: 2, Seed: 14, Parent: 0, Corrects: true, Steps: 3, Reason: "passes reflection"})
	sel.Reflections = []cot.ReflectionTrace{
		{Path: 0, Question: "good?", Verdict: no, Why: "what is wrong?", Reason: "the <b>circle</b> is missing", Corrected: 2},
		{Path: 2, Question: "good?", Verdict: yes, Corrected: -1},
	}
	_, err := rec.Decode(t.Context(), []*cot.Path{{Index: 2, Seed: 14, Step: 3, Sample: []int32{9}}})
	check(t, err)
	b, err := Page(run, final, rec)
	check(t, err)
	s := string(b)
	for _, want := range []string{
		"the &lt;b&gt;circle&lt;/b&gt; is missing", "reflection: P(yes) 0.125", "does not pass", "reflection: P(yes) 0.750", "<b>reason</b>", "what is wrong?",
		`alt="final image of path 2, round 2"`, `alt="path 2, step 3 of 3"`, "corrects path 0", "kept (N′)",
	} {
		if !strings.Contains(s, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	if n := strings.Count(s, `class="round`); n != 3 { // the list and its two rounds
		t.Errorf("%d rounds", n-1)
	}
	sel.Reflections[0].Path = 9
	if _, err := Page(run, final, rec); err == nil || !strings.Contains(err.Error(), "path 9 of 3") {
		t.Errorf("a round about no path: %v", err)
	}
}

func TestThumbnailsAreSmall(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 512, 256))
	u, err := thumbURL(img)
	check(t, err)
	data, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(u), "data:image/jpeg;base64,"))
	check(t, err)
	small, err := jpeg.Decode(bytes.NewReader(data))
	check(t, err)
	if b := small.Bounds(); b.Dx() != 128 || b.Dy() != 64 {
		t.Errorf("thumbnail of %v", b)
	}
	if _, err := pngURL(nil); err == nil {
		t.Error("no image, no error")
	}
}

func TestCompleteDecodesOnlyWhatIsMissing(t *testing.T) {
	_, _, rec, g := runOfTwo(t)
	before := g.decoded
	check(t, rec.Complete(t.Context(), []uint64{11}))
	if got := g.decoded - before; got != 2 { // steps 1 and 2; step 3 was decoded for the selection
		t.Errorf("decoded %d images, want 2", got)
	}
	for step := 1; step <= 3; step++ {
		img := rec.Image(11, step)
		if img == nil {
			t.Fatalf("no image of step %d", step)
		}
		if y := img.(*image.Gray).GrayAt(0, 0).Y; int(y) != step {
			t.Errorf("step %d shows the sample of step %d", step, y)
		}
	}
	if rec.Image(12, 1) != nil {
		t.Error("a path that was not asked for was decoded")
	}
}

func TestTraceJSONHasNoSeconds(t *testing.T) {
	run, _, _, _ := runOfTwo(t)
	b, err := TraceJSON(run)
	check(t, err)
	var got struct {
		Format    int
		Selection struct {
			Cost  cot.Cost
			Paths []cot.PathTrace
		}
	}
	check(t, json.Unmarshal(b, &got))
	if got.Format != 1 || got.Selection.Cost.Seconds != 0 || got.Selection.Cost.DecodingSteps != 5 || len(got.Selection.Paths) != 2 {
		t.Errorf("trace: %+v", got)
	}
}

func TestPageRefusesAWinnerThatIsNoPath(t *testing.T) {
	run, final, rec, _ := runOfTwo(t)
	run.Selection.WinnerAt = 2
	if _, err := Page(run, final, rec); err == nil || !strings.Contains(err.Error(), "winner 2 of 2") {
		t.Errorf("error %v", err)
	}
}

func TestStepsOfAFork(t *testing.T) {
	for _, c := range []struct {
		trace       cot.PathTrace
		first, last int
	}{
		{cot.PathTrace{Parent: -1, Steps: 18}, 1, 18},
		{cot.PathTrace{Parent: -1, Steps: 18, TruncatedAt: 11}, 1, 18}, // given up at 11, then finished as the last resort
		{cot.PathTrace{Parent: 3, Steps: 1, TruncatedAt: 5}, 5, 5},
		{cot.PathTrace{Parent: 3, Steps: 2}, 17, 18},
	} {
		if first, last := stepsOf(c.trace, 18); first != c.first || last != c.last {
			t.Errorf("%+v: steps %d to %d, want %d to %d", c.trace, first, last, c.first, c.last)
		}
	}
}

func TestTableFormats(t *testing.T) {
	tab := Table{Header: []string{"task", "score"}, Rows: [][]string{{"counting, hard", "0.50"}}, Footer: []string{"overall", "0.50"}}
	for f, want := range map[Format]string{Text: "counting, hard", Markdown: "| counting, hard | 0.50 |", CSV: `"counting, hard",0.50`, HTML: "<td>counting, hard</td>"} {
		s, err := tab.Render(f)
		check(t, err)
		if !strings.Contains(s, want) || !strings.HasSuffix(s, "\n") {
			t.Errorf("%s: %q lacks %q", f, s, want)
		}
	}
	tab.Rows = append(tab.Rows, []string{"short"})
	if _, err := tab.Render(Text); err == nil {
		t.Error("a ragged row passed")
	}
}

func TestCurves(t *testing.T) {
	curves := []Curve{
		{Name: "orm", Points: []Point{{N: 1, Value: .5, Lo: .4, Hi: .6}, {N: 4, Value: .7, Lo: .6, Hi: .8, DecodingSteps: 72}}},
		{Name: "parm", Points: []Point{{N: 4, Value: .75}}},
	}
	s, err := CurvesCSV(curves)
	check(t, err)
	if !strings.Contains(s, "\norm,4,0.7000,0.6000,0.8000,72.0000,0.0000\n") {
		t.Errorf("CSV:\n%s", s)
	}
	svg, err := CurvesSVG("best of N", curves)
	check(t, err)
	if !bytes.HasPrefix(svg, []byte("<svg")) || !bytes.Contains(svg, []byte("parm")) {
		t.Errorf("SVG: %.200s", svg)
	}
	for label, there := range map[string]bool{">0.00<": true, ">0.20<": true, ">1.00<": true, ">1.20<": false, ">2.00<": false} {
		if bytes.Contains(svg, []byte(label)) != there {
			t.Errorf("the axis of scores has %s: %v", label, !there)
		}
	}
	if _, err := CurvesSVG("", nil); err == nil {
		t.Error("no points, no error")
	}
}
