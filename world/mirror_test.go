package world

import (
	"testing"

	"imagecot/geneval"
)

// TestMirror: a mirrored render is a render again, and of it a prompt is true exactly when the mirrored prompt is true of
// the scene.
func TestMirror(t *testing.T) {
	rng := source(5)
	told := map[bool]int{}
	for range 60 {
		s := Ordinary.Draw(rng)
		var pixels, flipped [Side * Side * 3]float32
		RenderInto(pixels[:], s)
		mirrored := s
		mirrored.Objects = nil
		for _, o := range s.Objects {
			o.Col = Cells - o.Size.Block() - o.Col
			mirrored.Objects = append(mirrored.Objects, o)
		}
		RenderInto(flipped[:], mirrored)
		Mirror(flipped[:])
		if pixels != flipped {
			t.Fatalf("%+v: the mirrored render of the mirrored scene differs", s)
		}
		for _, m := range AllPrompts(geneval.Position) {
			turned, err := ParsePrompt(MirrorText(m.Prompt))
			if err != nil {
				t.Fatal(err)
			}
			if mirrored.Satisfies(turned) != s.Satisfies(m) {
				t.Fatalf("%+v: %q is %v, its mirror image differs", s, m.Prompt, s.Satisfies(m))
			}
			told[s.Satisfies(m)]++
		}
	}
	if told[true] == 0 || told[false] == 0 {
		t.Errorf("verdicts %v: want some of both", told)
	}
}
