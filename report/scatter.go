package report

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// CostSeries is what one strategy reaches at several costs, with rising N as a rule.
type CostSeries struct {
	Name   string
	Points []CostPoint
}

// CostPoint is a score with its 95 % interval at a cost.
type CostPoint struct {
	Cost          float64
	Value, Lo, Hi float64
}

// The sides of a cost chart in pixels; the legend stands right of the plot.
const (
	plotWidth, plotHeight = 560, 400
	plotLeft, plotTop     = 56, 40
	legendWidth           = 330
	legendLine            = 18
)

var (
	seriesColours = []string{"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#e08214", "#17a2b8", "#8c564b", "#e377c2", "#7f7f7f", "#a6a61b"}
	seriesDashes  = []string{"", "6 3", "2 3", "9 3 2 3"}
)

// CostSVG draws scores over cost. The axis of the cost is log(1 + cost), because strategies differ by factors and the
// baseline asks no judge at all. It has nothing from outside and no script.
func CostSVG(title, unit string, series []CostSeries) ([]byte, error) {
	most, low, high := 0.0, math.Inf(1), math.Inf(-1)
	for _, s := range series {
		for _, p := range s.Points {
			most, low, high = max(most, p.Cost), min(low, p.Lo), max(high, p.Hi)
		}
	}
	if math.IsInf(low, 0) {
		return nil, fmt.Errorf("report: cost chart %q: no points to draw", title)
	}
	low, high = math.Floor(low*10)/10, math.Ceil(high*10)/10
	if high <= low {
		high = low + .1
	}
	x := func(cost float64) float64 { return plotLeft + plotWidth*math.Log1p(cost)/math.Log1p(max(most, 1)) }
	y := func(v float64) float64 { return plotTop + plotHeight*(high-v)/(high-low) }
	height := max(plotTop+plotHeight+60, plotTop+legendLine*len(series)+20)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		plotLeft+plotWidth+legendWidth, height, plotLeft+plotWidth+legendWidth, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="%d" y="22" font-size="15">%s</text>`+"\n", plotLeft, html.EscapeString(title))
	for v := low; v <= high+1e-9; v += .1 {
		fmt.Fprintf(&b, `<path d="M%d %.1fh%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.1f</text>`+"\n", plotLeft, y(v), plotWidth, plotLeft-6, y(v)+4, v)
	}
	for _, c := range ticks(most) {
		fmt.Fprintf(&b, `<path d="M%.1f %dv%d" stroke="#eee"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			x(c), plotTop, plotHeight, x(c), plotTop+plotHeight+18, strconv.FormatFloat(c, 'g', 4, 64))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", plotLeft+plotWidth/2, plotTop+plotHeight+40, html.EscapeString(unit))
	for i, s := range series {
		colour, dash := seriesColours[i%len(seriesColours)], seriesDashes[i/len(seriesColours)%len(seriesDashes)]
		line := make([]string, len(s.Points))
		for k, p := range s.Points {
			line[k] = fmt.Sprintf("%.1f,%.1f", x(p.Cost), y(p.Value))
			fmt.Fprintf(&b, `<path d="M%.1f %.1fV%.1f" stroke="%s" stroke-opacity=".35"/><circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%s: %.3f (%.3f to %.3f) at %.4g</title></circle>`+"\n",
				x(p.Cost), y(p.Lo), y(p.Hi), colour, x(p.Cost), y(p.Value), colour, html.EscapeString(s.Name), p.Value, p.Lo, p.Hi, p.Cost)
		}
		ly := plotTop + legendLine*i + 8
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-dasharray="%s"/>`, strings.Join(line, " "), colour, dash)
		fmt.Fprintf(&b, `<path d="M%d %dh20" stroke="%s" stroke-width="2" stroke-dasharray="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			plotLeft+plotWidth+14, ly, colour, dash, plotLeft+plotWidth+40, ly+4, html.EscapeString(s.Name))
	}
	b.WriteString("</svg>\n")
	return []byte(b.String()), nil
}

// ticks are 0 and 1, 2, 5, 10, ... up to the largest cost; only every third of many.
func ticks(most float64) []float64 {
	out := []float64{0}
	for decade := .1; decade <= most; decade *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if c := decade * m; c <= most && (most < 50 || c >= 1) {
				out = append(out, math.Round(c*10)/10)
			}
		}
	}
	return out
}
