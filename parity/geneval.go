package parity

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/gomlx/compute"

	"imagecot/geneval"
)

// The kinds of GenEval need no engine: verdicts, texts and scores only.
func init() {
	plain := func(run func(*Case) error) Runner {
		return func(_ context.Context, _ compute.Backend, c *Case) error { return run(c) }
	}
	register("geneval-verdicts", plain(genevalVerdicts))
	register("geneval-templates", plain(genevalTemplates))
	register("geneval-overlap", plain(genevalOverlap))
	register("geneval-summary", plain(genevalSummary))
}

// eachLine decodes every line of cases.jsonl into a fresh T and hands it to check, whose error says which line cannot
// be computed. No line at all is an error.
func eachLine[T any](c *Case, check func(T) error) error {
	file, err := os.Open(c.Path("cases.jsonl"))
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewReader(file)
	found := false
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(bytes.TrimSpace(line)) > 0 {
			found = true
			var item T
			failed := json.Unmarshal(line, &item)
			if failed == nil {
				failed = check(item)
			}
			if failed != nil {
				return fmt.Errorf("cases.jsonl line %d: %w", n, failed)
			}
		}
		if err != nil {
			break
		}
	}
	if !found {
		return errors.New("cases.jsonl holds no case")
	}
	return nil
}

// verdictCase is one line of a geneval-verdicts case.
type verdictCase struct {
	ID         string
	Metadata   geneval.Metadata
	Options    map[string]float64
	Detections []struct {
		Class string
		Box   [4]float32
		Score float32
		Color string
	}
	Expect struct {
		Correct    bool
		Reason     string
		Kept       map[string][]int
		ColorAsked []json.RawMessage `json:"color_asked"`
		Details    *string
	}
}

// genevalVerdicts compares kept objects, colour questions, verdicts, reasons and the details of the results file.
func genevalVerdicts(c *Case) error {
	return eachLine(c, func(v verdictCase) error {
		options, err := verdictOptions(v.Options)
		if err != nil {
			return err
		}
		found := make([]geneval.Detection, len(v.Detections))
		for i, d := range v.Detections {
			found[i] = geneval.Detection{Class: d.Class, Box: d.Box, Score: d.Score, Colour: d.Color}
		}
		kept := geneval.Keep(geneval.Classes(), found, v.Metadata.Tag, options)
		rows := map[string][]int{}
		for _, k := range kept {
			rows[k.Class] = k.Rows
		}
		c.CompareExact("kept", v.ID, rows, v.Expect.Kept)
		asked := []string{}
		correct, reasons, err := geneval.Verdict(v.Metadata, kept, func(class string, objects []geneval.Detection) ([]string, error) {
			row, err := json.Marshal([]any{class, rows[class][:len(objects)]})
			asked = append(asked, string(row))
			names := make([]string, len(objects))
			for i, o := range objects {
				names[i] = o.Colour
			}
			return names, err
		}, options)
		if err != nil {
			return err
		}
		c.CompareExact("correct", v.ID, correct, v.Expect.Correct)
		c.CompareExact("reason", v.ID, strings.Join(reasons, "\n"), v.Expect.Reason)
		want := []string{}
		for _, raw := range v.Expect.ColorAsked {
			var b bytes.Buffer
			if err := json.Compact(&b, raw); err != nil {
				return err
			}
			want = append(want, b.String())
		}
		c.CompareExact("color_asked", v.ID, asked, want)
		if v.Expect.Details != nil {
			c.CompareExact("details", v.ID, geneval.Details(kept), *v.Expect.Details)
		}
		return nil
	})
}

func verdictOptions(values map[string]float64) (geneval.Options, error) {
	o := geneval.DefaultOptions()
	for name, v := range values {
		switch name {
		case "threshold":
			o.Threshold = float32(v)
		case "counting_threshold":
			o.CountingThreshold = float32(v)
		case "max_objects":
			o.MaxObjects = int(v)
		case "max_overlap":
			o.MaxOverlap = float32(v)
		case "position_threshold":
			o.PositionThreshold = float32(v)
		default:
			return o, fmt.Errorf("unknown option %q", name)
		}
	}
	return o, nil
}

// templateCase is one line of a geneval-templates case.
type templateCase struct {
	ID, Tag, Prompt, Position string
	Objects, Colors           []string
	Count                     int
	Metadata                  geneval.Metadata
}

// genevalTemplates compares prompt texts and metadata, byte for byte.
func genevalTemplates(c *Case) error {
	return eachLine(c, func(v templateCase) error {
		need := map[string][2]int{
			geneval.SingleObject: {1, 0}, geneval.TwoObject: {2, 0}, geneval.Counting: {1, 0},
			geneval.Colors: {1, 1}, geneval.Position: {2, 0}, geneval.ColorAttr: {2, 2},
		}
		want, known := need[v.Tag]
		if !known || len(v.Objects) != want[0] || len(v.Colors) != want[1] || v.Count < 0 || v.Count > 10 {
			return fmt.Errorf("tag %q with %d objects, %d colours, count %d", v.Tag, len(v.Objects), len(v.Colors), v.Count)
		}
		var t geneval.Templates
		var m geneval.Metadata
		switch v.Tag {
		case geneval.SingleObject:
			m = t.Single(v.Objects[0])
		case geneval.TwoObject:
			m = t.Two(v.Objects[0], v.Objects[1])
		case geneval.Counting:
			m = t.Counting(v.Objects[0], v.Count)
		case geneval.Colors:
			m = t.Colour(v.Colors[0], v.Objects[0])
		case geneval.Position:
			m = t.Position(v.Objects[0], v.Position, v.Objects[1])
		case geneval.ColorAttr:
			m = t.Binding(v.Colors[0], v.Objects[0], v.Colors[1], v.Objects[1])
		}
		c.CompareExact("prompt", v.ID, m.Prompt, v.Prompt)
		c.CompareExact("metadata", v.ID, m.Dump(), v.Metadata.Dump())
		return nil
	})
}

// overlapCase is one line of a geneval-overlap case.
type overlapCase struct {
	ID, Key  string
	Metadata geneval.Metadata
	InTest   bool `json:"in_test"`
}

// genevalOverlap compares the keys that keep training prompts apart from test prompts.
func genevalOverlap(c *Case) error {
	return eachLine(c, func(v overlapCase) error {
		key, err := geneval.Key(v.Metadata)
		if err != nil {
			return err
		}
		c.CompareExact("key", v.ID, key, v.Key)
		c.CompareExact("in_test", v.ID, geneval.InTest(key), v.InTest)
		return nil
	})
}

// summaryCase is one entry of a geneval-summary case's expected.json.
type summaryCase struct {
	File       string
	Images     int
	Prompts    int
	ImageRate  float64  `json:"image_rate"`
	PromptRate float64  `json:"prompt_rate"`
	TaskOrder  []string `json:"task_order"`
	Tasks      map[string]taskCounts
	Overall    float64
	Stdout     string
}

type taskCounts struct {
	Correct, N int
	Score      float64
}

// genevalSummary compares counts, scores and print-out of results files, and the files written again, byte for byte.
func genevalSummary(c *Case) error {
	text, err := os.ReadFile(c.Path("expected.json"))
	if err != nil {
		return err
	}
	var cases map[string]summaryCase
	if err := json.Unmarshal(text, &cases); err != nil {
		return fmt.Errorf("expected.json: %w", err)
	}
	for name, want := range cases {
		file, err := os.ReadFile(c.Path(filepath.Base(want.File)))
		if err != nil {
			return err
		}
		rows, err := geneval.ReadRows(bytes.NewReader(file))
		if err != nil {
			return fmt.Errorf("%s: %w", want.File, err)
		}
		var again bytes.Buffer
		for _, row := range rows {
			if err := geneval.WriteRow(&again, row); err != nil {
				return err
			}
		}
		c.Check("written again", bytes.Equal(again.Bytes(), file), "%s: the bytes differ", name)
		s, err := geneval.Score(rows)
		if err != nil {
			return fmt.Errorf("%s: %w", want.File, err)
		}
		c.CompareExact("stdout", name, s.Summary(), want.Stdout)
		c.CompareExact("counts", name, []int{s.Images, s.Prompts}, []int{want.Images, want.Prompts})
		order := []string{}
		got, expected := []float64{s.ImageRate, s.PromptRate, s.Overall}, []float64{want.ImageRate, want.PromptRate, want.Overall}
		for _, t := range s.Tasks {
			order = append(order, t.Tag)
			w := want.Tasks[t.Tag]
			c.CompareExact("counts", name+" "+t.Tag, []int{t.Correct, t.N}, []int{w.Correct, w.N})
			got, expected = append(got, t.Score), append(expected, w.Score)
		}
		c.CompareExact("task_order", name, order, want.TaskOrder)
		c.CompareWith("scores", got, expected)
	}
	return nil
}
