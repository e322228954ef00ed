package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
)

//go:embed document.html
var documentText string

var documentTemplate = template.Must(template.New("document").Parse(documentText))

// Document is a page of sections: tables, charts and pictures, in one file without external resources.
type Document struct {
	Title    string
	Lead     []string // paragraphs
	Sections []Section
}

// Section is a part of a document; everything but the title may be empty.
type Section struct {
	Title string
	Notes []string
	Table *Table
	SVG   []byte // a drawing of this package
	Shows []Show
}

// Show is one prompt with pictures side by side, before and after.
type Show struct {
	Prompt   string
	Pictures []Picture
}

// Picture is an image with what there is to say about it.
type Picture struct {
	Caption string
	PNG     []byte
	Right   bool
	Reason  string   // why it is not right
	Said    []string // what a judge said before each correction that led to it
}

// URL is the picture as it stands in the page.
func (p Picture) URL() template.URL {
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(p.PNG)) //nolint:gosec // our own bytes
}

// Chart is the section's drawing, as it stands in the page.
func (s Section) Chart() template.HTML { return template.HTML(s.SVG) } //nolint:gosec // drawn by this package, escaped there

// HTML writes the document.
func (d Document) HTML() ([]byte, error) {
	for _, s := range d.Sections {
		if s.Table == nil {
			continue
		}
		for i, r := range s.Table.Rows {
			if len(r) != len(s.Table.Header) {
				return nil, fmt.Errorf("report: section %q: row %d has %d cells, the header has %d", s.Title, i, len(r), len(s.Table.Header))
			}
		}
	}
	var b bytes.Buffer
	if err := documentTemplate.Execute(&b, d); err != nil {
		return nil, fmt.Errorf("report: document: %w", err)
	}
	return b.Bytes(), nil
}
