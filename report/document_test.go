package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
)

func TestDocumentIsEscapedAndWhole(t *testing.T) {
	d := Document{Title: "a & b", Lead: []string{"<i>"}, Sections: []Section{
		{Title: "t", Table: &Table{Header: []string{"x"}, Rows: [][]string{{"<b>1</b>"}}}},
		{Title: "g", Shows: []Show{{Prompt: `"><script>`, Pictures: []Picture{{Caption: "before", PNG: []byte{1, 2, 3}, Reason: "expected 2 stars"}, {Caption: "after", Right: true, Said: []string{"one star too many"}}}}}},
	}}
	b, err := d.HTML()
	check(t, err)
	for _, want := range []string{"a &amp; b", "&lt;i&gt;", "&lt;b&gt;1", "&lt;script&gt;", "base64,AQID", "expected 2 stars", "right", "corrected: one star too many"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("page lacks %q", want)
		}
	}
	if m := regexp.MustCompile(`(src|href)="[^d]`).Find(b); m != nil || bytes.Contains(b, []byte("<script")) {
		t.Errorf("external or executable: %q", m)
	}
	d.Sections[0].Table.Rows[0] = nil
	if _, err := d.HTML(); err == nil {
		t.Error("a ragged row passed")
	}
}

// The chart is well-formed XML with one mark a point, a dearer point further right, a better one higher.
func TestCostSVG(t *testing.T) {
	svg, err := CostSVG("score <cost>", "decoding steps", []CostSeries{
		{"a & b", []CostPoint{{18, .4, .3, .5}, {360, .6, .5, .7}}}, {"none", []CostPoint{{0, .5, .4, .6}}},
	})
	check(t, err)
	dec := xml.NewDecoder(bytes.NewReader(svg))
	var circles [][2]string
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles = append(circles, [2]string{e.Attr[0].Value, e.Attr[1].Value})
		}
	}
	if len(circles) != 3 || len(circles[0][0]) > len(circles[1][0]) || circles[0][0] >= circles[1][0] || circles[0][1] <= circles[1][1] || circles[2][0] != "56.0" {
		t.Errorf("circles %v", circles)
	}
	if !strings.Contains(string(svg), "a &amp; b") {
		t.Error("names are not escaped")
	}
	if _, err := CostSVG("", "", nil); err == nil {
		t.Error("no points, no error")
	}
}
