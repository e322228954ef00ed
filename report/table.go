package report

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table is a small table that is shown in several formats from one source.
type Table struct {
	Title  string
	Header []string
	Rows   [][]string // as wide as the header
	Footer []string   // nil for none
}

// Format names a way to write a table.
type Format string

// The formats of a table.
const (
	Text     Format = "text"
	Markdown Format = "markdown"
	CSV      Format = "csv"
	HTML     Format = "html"
)

// Render writes the table in a format, with a final newline. Columns of numbers are aligned right, the first one never.
func (t Table) Render(f Format) (string, error) {
	w := table.NewWriter()
	w.AppendHeader(row(t.Header))
	for i, r := range t.Rows {
		if len(r) != len(t.Header) {
			return "", fmt.Errorf("report: table row %d has %d cells, the header has %d", i, len(r), len(t.Header))
		}
		w.AppendRow(row(r))
	}
	if t.Footer != nil {
		w.AppendFooter(row(t.Footer))
	}
	style := table.StyleLight
	style.Format.Header, style.Format.Footer = text.FormatDefault, text.FormatDefault
	style.Options.DrawBorder, style.Options.SeparateColumns = false, false
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	w.SetStyle(style)
	var columns []table.ColumnConfig
	for i := 1; i < len(t.Header); i++ {
		if !t.numbers(i) {
			continue
		}
		columns = append(columns, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignFooter: text.AlignRight, AlignHeader: text.AlignRight})
	}
	w.SetColumnConfigs(columns)
	w.SuppressTrailingSpaces()
	var s string
	switch f {
	case Text:
		if t.Title != "" {
			s = t.Title + "\n"
		}
		s += w.Render()
	case Markdown:
		if t.Title != "" {
			s = "**" + t.Title + "**\n\n"
		}
		s += w.RenderMarkdown()
	case CSV:
		s = w.RenderCSV()
	case HTML:
		s = w.RenderHTML()
	default:
		return "", fmt.Errorf("report: unknown table format %q (text, markdown, csv, html)", f)
	}
	return strings.TrimRight(s, "\n") + "\n", nil
}

// numbers reports whether every cell of a column is empty or begins like a number.
func (t Table) numbers(column int) bool {
	for _, r := range t.Rows {
		if c := r[column]; c != "" && !strings.ContainsRune("0123456789+-.", rune(c[0])) {
			return false
		}
	}
	return true
}

func row(cells []string) table.Row {
	r := make(table.Row, len(cells))
	for i, c := range cells {
		r[i] = c
	}
	return r
}
