package report

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-analyze/charts"
)

// Point is one measured value of a curve over N with its 95 % interval and its cost.
type Point struct {
	N             int
	Value, Lo, Hi float64
	DecodingSteps float64 // a prompt, on average
	JudgeCalls    float64 // a prompt, on average
}

// Curve is a score of one strategy over the number of candidates N (Fig. 3).
type Curve struct {
	Name   string
	Points []Point // ascending N
}

// CurvesCSV writes one line a point.
func CurvesCSV(curves []Curve) (string, error) {
	var b strings.Builder
	w := csv.NewWriter(&b)
	rows := [][]string{{"strategy", "n", "score", "ci95_low", "ci95_high", "decoding_steps_per_prompt", "judge_calls_per_prompt"}}
	f := func(v float64) string { return strconv.FormatFloat(v, 'f', 4, 64) }
	for _, c := range curves {
		for _, p := range c.Points {
			rows = append(rows, []string{c.Name, strconv.Itoa(p.N), f(p.Value), f(p.Lo), f(p.Hi), f(p.DecodingSteps), f(p.JudgeCalls)})
		}
	}
	if err := w.WriteAll(rows); err != nil {
		return "", fmt.Errorf("report: curves: %w", err)
	}
	return b.String(), nil
}

// CurvesSVG draws the curves over the union of their N, evenly spaced; a curve has a gap where it was not measured.
func CurvesSVG(title string, curves []Curve) ([]byte, error) {
	var ns []int
	for _, c := range curves {
		for _, p := range c.Points {
			ns = append(ns, p.N)
		}
	}
	slices.Sort(ns)
	ns = slices.Compact(ns)
	if len(ns) == 0 {
		return nil, fmt.Errorf("report: curves: no points to draw")
	}
	labels := make([]string, len(ns))
	for i, n := range ns {
		labels[i] = strconv.Itoa(n)
	}
	var series charts.LineSeriesList
	var names []string
	for _, c := range curves {
		values := slices.Repeat([]float64{charts.GetNullValue()}, len(ns))
		for _, p := range c.Points {
			values[slices.Index(ns, p.N)] = p.Value
		}
		series = append(series, charts.LineSeries{Name: c.Name, Values: values})
		names = append(names, c.Name)
	}
	opt := charts.NewLineChartOptionWithSeries(series)
	opt.Theme = charts.GetTheme(charts.ThemeLight)
	opt.Title = charts.TitleOption{Text: title}
	opt.Legend = charts.LegendOption{SeriesNames: names, Offset: charts.OffsetRight}
	opt.XAxis.Labels = labels
	opt.XAxis.Title = "N"
	opt.YAxis[0].Title = "score"
	opt.YAxis[0].Min, opt.YAxis[0].Max = charts.Ptr(0.), charts.Ptr(1.)
	opt.YAxis[0].LabelCount = 6
	opt.ValueFormatter = func(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }
	p := charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: 720, Height: 420})
	if err := p.LineChart(opt); err != nil {
		return nil, fmt.Errorf("report: curves: %w", err)
	}
	b, err := p.Bytes()
	if err != nil {
		return nil, fmt.Errorf("report: curves: %w", err)
	}
	return b, nil
}
