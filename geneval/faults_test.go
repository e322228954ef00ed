package geneval

import (
	"slices"
	"testing"
)

// TestCountFaults takes its reasons from verdicts on detections.
func TestCountFaults(t *testing.T) {
	m := Templates{}
	at := func(class, colour string, x float32) Detection {
		return Detection{Class: class, Colour: colour, Score: .99, Box: [4]float32{x, 40, x + 20, 60}}
	}
	var rows []Row
	judge := func(m Metadata, found ...Detection) {
		kept := Keep([]string{"cat", "dog"}, found, m.Tag, DefaultOptions())
		right, reasons, err := Verdict(m, kept, func(_ string, objects []Detection) (names []string, err error) {
			for _, o := range objects {
				names = append(names, o.Colour)
			}
			return names, nil
		}, DefaultOptions())
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, NewRow("0000.png", m, Result{Correct: right, Reasons: reasons, Kept: kept}))
	}
	left := m.Position("cat", LeftOf, "dog")
	judge(left, at("cat", "red", 10), at("dog", "red", 60))
	judge(left, at("cat", "red", 60), at("dog", "red", 10))
	judge(left, at("dog", "red", 10))
	judge(left, at("cat", "red", 10))
	bound := m.Binding("red", "cat", "blue", "dog")
	judge(bound, at("cat", "red", 10), at("dog", "blue", 60))
	judge(bound, at("cat", "blue", 10), at("dog", "red", 60))
	judge(bound, at("cat", "red", 10), at("dog", "red", 60))
	judge(bound, at("dog", "red", 60)) // one is not there, the other has the wrong colour: the first counts
	judge(m.Counting("cat", 2), at("cat", "red", 10), at("cat", "red", 40), at("cat", "red", 70))
	judge(m.Counting("cat", 2), at("cat", "red", 10))

	got, err := CountFaults(rows)
	if err != nil {
		t.Fatal(err)
	}
	want := []Faults{
		{Tag: Counting, Images: 2, TooFew: 1, TooMany: 1},
		{Tag: Position, Images: 4, Right: 1, TooFew: 2, Position: 1},
		{Tag: ColorAttr, Images: 4, Right: 1, TooFew: 1, Colour: 2},
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%+v, want %+v", got, want)
	}
	if a, b, c := got[0].RightOfShown(), got[1].RightOfShown(), got[2].RightOfShown(); a != 0 || b != .5 || c != 1./3 {
		t.Errorf("right of those that show all: %v, %v, %v", a, b, c)
	}
	rows[1].Reason = "it is ugly"
	if _, err := CountFaults(rows); err == nil {
		t.Error("a reason that no verdict gives is counted")
	}
}

func TestTooFew(t *testing.T) {
	for reason, want := range map[string]bool{
		"expected cat>=1, found 0":                           true,
		"expected baseball bat>=3, found 2":                  true,
		"expected green dog>=1, found 0 green; and 1 blue":   false,
		"expected cat<3, found 4":                            false,
		"expected cat left of target, found right of target": false,
		"no target for cat to be left of":                    false,
		"":                                                   false,
	} {
		if got := TooFew([]string{"", reason}); got != want {
			t.Errorf("%q: %v, want %v", reason, got, want)
		}
	}
	if TooFew(nil) {
		t.Error("no reason at all")
	}
}
