package curate

import (
	"context"
	"image"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/world"
)

// scenes decodes a token as a picture of its shade, and shows the objects that each shade stands for.
type scenes struct {
	coin
	objects map[uint8][]geneval.Detection
	looked  int
}

func (s *scenes) Detect(_ context.Context, img image.Image, _ []string) ([]geneval.Detection, error) {
	s.looked++
	return s.objects[img.(*image.Gray).GrayAt(0, 0).Y], nil
}

func object(class, colour string, x float32) geneval.Detection {
	return geneval.Detection{Class: class, Colour: colour, Score: .95, Box: [4]float32{x, 10, x + 10, 20}}
}

func TestRelabelledImagesFitOtherPrompts(t *testing.T) {
	heart, square := object("heart", "red", 0), object("square", "blue", 40) // heart left of square
	s := &scenes{objects: map[uint8][]geneval.Detection{1: {heart, square}, 2: {heart}, 3: {}}}
	e := world.Evaluator()
	e.Detector = s
	drawn := func(prompt string, seed uint64, token int32) Image {
		m, err := world.ParsePrompt(prompt)
		if err != nil {
			t.Fatal(err)
		}
		return Image{Task: m.Tag, Prompt: prompt, Metadata: m.Dump(), Seed: seed, Steps: 2, Samples: []int32{0, token}}
	}
	var images []Image
	for i, prompt := range []string{
		"a photo of a heart right of a square", "a photo of a square right of a heart", "a photo of a square left of a heart",
		"a photo of a red heart and a blue square", "a photo of a blue heart and a red square", "a photo of a star",
	} {
		for token := range int32(3) {
			images = append(images, drawn(prompt, uint64(10*i)+uint64(token), token+1))
		}
	}
	from := t.TempDir()
	if err := rebuild(from, images, 4); err != nil {
		t.Fatal(err)
	}
	r := Relabelled{Dir: t.TempDir(), From: from, PerPrompt: 2, Seed: 3, PartSize: 5, Generator: s, Judge: e.Look}
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.looked != len(images) {
		t.Errorf("the detector looked %d times at %d images", s.looked, len(images))
	}
	rows, err := ReadTraining[Image](r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	own := map[uint64]string{}
	for _, img := range images {
		own[img.Seed] = img.Scene()
	}
	for _, row := range rows {
		// Only images with both objects say anything here: right where they lie so, wrong where they lie or look otherwise.
		if row.Final()[0] != 1 || row.Scene() == own[row.Seed] || row.Correct != (row.Reason == "") || !strings.Contains(row.Details, "square") {
			t.Errorf("token %d of %s for %q: correct %t, %q", row.Final()[0], own[row.Seed], row.Prompt, row.Correct, row.Reason)
		}
		if row.Correct {
			count[row.Prompt]++
		} else {
			count[row.Prompt]--
		}
	}
	want := map[string]int{ // two of a label; "heart right of square" and "square left of heart" are one scene, and no image of it fits it
		"a photo of a heart right of a square": -2, "a photo of a square left of a heart": -2, "a photo of a square right of a heart": 2,
		"a photo of a red heart and a blue square": 2, "a photo of a blue heart and a red square": -2,
	}
	for prompt, n := range want {
		if count[prompt] != n {
			t.Errorf("%q has %d right or wrong images, want %d", prompt, count[prompt], n)
		}
	}
	if len(count) != len(want) {
		t.Errorf("prompts %v", count)
	}
	if err := (Relabelled{Dir: t.TempDir(), From: from, PerPrompt: 0, PartSize: 1}).Run(t.Context()); err == nil {
		t.Error("no image of a label passed")
	}
	s.objects = nil
	r.Dir = t.TempDir()
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "none of the 18 images") {
		t.Errorf("nothing fits: %v", err)
	}
}

var _ cot.Generator = (*scenes)(nil)
