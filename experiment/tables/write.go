package tables

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imagecot/experiment"
	"imagecot/internal/atomicfile"
	"imagecot/report"
)

// Write puts everything into a folder:
//
//	index.html, report.md     all tables, charts, claims
//	TABLE.md .html .csv .json each table or figure by itself; a figure has TABLE.svg
//	cost-steps.svg, ...       score against cost
//	claims.md .csv .json      what the paper claims, with verdicts
//	gallery.html              before and after
//	rows/TABLE/ROW.jsonl      the verdict on every image, for imagecot compare
func (r Results) Write(dir string) error {
	w := writer{dir: dir}
	whole := report.Document{Title: "Tables of the paper, measured again", Lead: r.lead()}
	for _, t := range r.Tables {
		s := t.section()
		whole.Sections = append(whole.Sections, s)
		text, err := t.Data().Render(report.CSV)
		if t.Curve {
			text, err = report.CurvesCSV(t.Curves())
		}
		w.check(err)
		w.table(t.Name, s, text, t)
		for _, row := range t.Rows {
			if row.found != nil {
				w.check(os.MkdirAll(filepath.Join(dir, "rows", t.Name), 0o755))
				w.check(experiment.WriteRows(filepath.Join(dir, "rows", t.Name, row.Name+".jsonl"), row.found.Rows))
			}
		}
	}
	for _, c := range charts {
		svg, err := report.CostSVG("GenEval score against "+c.unit, c.unit+" an image", r.costs(c.of))
		if err != nil { // nothing was measured
			continue
		}
		w.file("cost-"+c.name+".svg", svg)
		whole.Sections = append(whole.Sections, report.Section{Title: "Score against " + c.unit, SVG: svg})
	}
	layout := r.ClaimsLayout()
	claims := report.Section{Title: "Claims", Notes: []string{claimsNote, r.made()}, Table: &layout}
	text, err := layout.Render(report.CSV)
	w.check(err)
	w.table("claims", claims, text, struct {
		Command string         `json:"command"`
		Seed    uint64         `json:"seed"`
		Claims  []ClaimVerdict `json:"claims"`
	}{r.Command, r.Seed, r.Claims})
	whole.Sections = append(whole.Sections, claims)
	w.page("index.html", whole)
	w.file("report.md", []byte(w.markdown(whole)))
	w.page("gallery.html", r.gallery())
	return w.err
}

const claimsNote = "Differences of overall scores, paired over prompts, with 95 % bootstrap intervals over prompts. A claim holds if all of its " +
	"comparisons hold (or, where it says so, one of them); it does not if one is refuted. No correction for their number is made."

// lead says how everything was measured.
func (r Results) lead() []string {
	out := []string{
		fmt.Sprintf("%d prompts, run seed %d, N at most %d. Under each row the paper's numbers (GenEval, 553 prompts x 4 images, Show-o, N = 20): another world, so "+
			"compare differences, not levels.", r.Prompts, r.Seed, r.N),
		"Intervals: 95 %, bootstrap over prompts within tasks; a task whose prompts all came out alike gets Jeffreys' interval. Rows with N below the size of " +
			"the bank are measured on all groups of N paths (one group where the strategy forks paths of its own). Costs are means of one image; seconds are counted at the rates of this run for a step, a step " +
			"image and a question, as if the row had run by itself; reasons and corrections of PARM++ count like any question and step.",
		r.made(),
	}
	if missing := r.Missing(); len(missing) > 0 {
		out = append(out, fmt.Sprintf("%d rows were not measured, because what they need is not in this build:", len(missing)))
		var said []string
		for _, row := range missing {
			if !slices.Contains(said, row.Missing) {
				said = append(said, row.Missing)
			}
		}
		out = append(out, said...)
	}
	return out
}

// made says how to make the results again.
func (r Results) made() string {
	return fmt.Sprintf("Made by: %s (seed %d, %d prompts)", r.Command, r.Seed, r.Prompts)
}

// section is a table or figure with its notes.
func (t Table) section() report.Section {
	layout := t.Layout()
	s := report.Section{Title: t.Source + ": " + t.Title, Table: &layout}
	if t.Note != "" {
		s.Notes = append(s.Notes, t.Note)
	}
	if t.Curve {
		layout = t.CurveLayout()
		if svg, err := report.CurvesSVG(t.Title, t.Curves()); err == nil { // no points: no chart
			s.SVG = svg
		}
	}
	for _, i := range t.Inconsistencies {
		s.Notes = append(s.Notes, "The paper disagrees with itself: "+i.Text)
	}
	for _, r := range t.Rows {
		if r.Missing != "" && r.Absent == "" {
			s.Notes = append(s.Notes, r.Title+": "+r.Missing)
		}
	}
	return s
}

// charts are the costs that scores are drawn against.
var charts = []struct {
	name, unit string
	of         func(experiment.Cost) float64
}{
	{"steps", "decoding steps", func(c experiment.Cost) float64 { return c.DecodingSteps }},
	{"calls", "judge calls", func(c experiment.Cost) float64 { return c.JudgeCalls }},
	{"seconds", "seconds", func(c experiment.Cost) float64 { return c.Seconds }},
}

// costs are all strategies on all generators, each with every N that was measured.
func (r Results) costs(of func(experiment.Cost) float64) []report.CostSeries {
	var out []report.CostSeries
	seen := map[*experiment.Measurement]bool{}
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			list := row.all
			if list == nil && row.found != nil {
				list = []*experiment.Measurement{row.found}
			}
			name := row.Generator + ", " + row.Strategy
			for _, x := range list {
				if seen[x] {
					continue
				}
				seen[x] = true
				i := slices.IndexFunc(out, func(s report.CostSeries) bool { return s.Name == name })
				if i < 0 {
					i = len(out)
					out = append(out, report.CostSeries{Name: name})
				}
				out[i].Points = append(out[i].Points, report.CostPoint{Cost: of(x.Cost), Value: x.Scores.Overall, Lo: x.Scores.CI95[0], Hi: x.Scores.CI95[1]})
			}
		}
	}
	for _, s := range out {
		slices.SortStableFunc(s.Points, func(a, b report.CostPoint) int { return cmp.Compare(a.Cost, b.Cost) })
	}
	return out
}

// gallery shows each prompt's pictures side by side, a section a table, the baseline first.
func (r Results) gallery() report.Document {
	d := report.Document{Title: "Before and after", Lead: []string{"The first prompts of each task. A green line under a picture: the evaluator finds it right."}}
	for _, t := range r.Tables {
		if t.Curve {
			continue
		}
		s := report.Section{Title: t.Source + ": " + t.Title}
		for i := range r.measured.Prompts {
			show := report.Show{Prompt: r.measured.Prompts[i].Prompt}
			add := func(title string, m *experiment.Measurement) {
				at := slices.IndexFunc(m.Pictures, func(p experiment.Picture) bool { return p.Prompt == show.Prompt })
				if at >= 0 {
					p := m.Pictures[at]
					show.Pictures = append(show.Pictures, report.Picture{Caption: title, PNG: p.PNG, Right: p.Correct, Reason: p.Reason, Said: p.Said})
				}
			}
			if t.before != nil {
				add("before: the baseline", t.before)
			}
			for _, row := range t.Rows {
				if row.found != nil && row.found != t.before {
					add(row.Title, row.found)
				}
			}
			if len(show.Pictures) > 1 {
				s.Shows = append(s.Shows, show)
			}
		}
		if s.Shows != nil {
			d.Sections = append(d.Sections, s)
		}
	}
	return d
}

// writer writes files until one fails.
type writer struct {
	dir string
	err error
}

func (w *writer) check(err error) {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("tables: %w", err)
	}
}

func (w *writer) file(name string, text []byte) {
	if w.err == nil {
		w.check(atomicfile.WriteFile(filepath.Join(w.dir, name), text, 0o644))
	}
}

func (w *writer) page(name string, d report.Document) {
	text, err := d.HTML()
	w.check(err)
	w.file(name, text)
}

// table writes a section by itself in all formats.
func (w *writer) table(name string, s report.Section, csv string, value any) {
	d := report.Document{Title: s.Title, Sections: []report.Section{s}}
	w.file(name+".md", []byte(w.markdown(d)))
	w.page(name+".html", d)
	w.file(name+".csv", []byte(csv))
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	w.check(enc.Encode(value))
	w.file(name+".json", b.Bytes())
	if s.SVG != nil {
		w.file(name+".svg", s.SVG)
	}
}

// markdown writes a document without its charts, which lie beside it.
func (w *writer) markdown(d report.Document) string {
	var b strings.Builder
	b.WriteString("# " + d.Title + "\n")
	for _, p := range d.Lead {
		b.WriteString("\n" + p + "\n")
	}
	for _, s := range d.Sections {
		if s.Table == nil {
			continue
		}
		if len(d.Sections) > 1 {
			b.WriteString("\n## " + s.Title + "\n")
		}
		b.WriteString("\n")
		for _, n := range s.Notes {
			b.WriteString("- " + n + "\n")
		}
		text, err := s.Table.Render(report.Markdown)
		w.check(err)
		b.WriteString("\n" + text)
	}
	return b.String()
}

// Unmeasured reports whether not a single row was measured.
func (r Results) Unmeasured() bool {
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			if row.found != nil {
				return false
			}
		}
	}
	return true
}
