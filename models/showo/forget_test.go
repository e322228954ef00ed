package showo

import (
	"fmt"
	"slices"
	"testing"

	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"

	"github.com/gomlx/compute"
)

// TestForgetFollowsNewWeights replaces the weights of a generator that has decoded.
func TestForgetFollowsNewWeights(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		cfg := small()
		w, other := lively(cfg), lively(cfg)
		for _, name := range other.Names() {
			flat := graphx.Floats(other.Get(name))
			slices.Reverse(flat)
			other.Set(name, graphx.Tensor(flat, Shapes(cfg)[name]...))
		}
		draw := func(g *Generator) string {
			paths := start(t, g, "abc", 1, 2, 3)
			for range g.Steps() {
				if err := g.Advance(t.Context(), paths); err != nil {
					t.Fatal(err)
				}
			}
			return fmt.Sprint(paths[0].Tokens, paths[1].Tokens, paths[2].Tokens)
		}
		g, err := NewGenerator(be, cfg, w, letters{}, nil, testOptions)
		if err != nil {
			t.Fatal(err)
		}
		h, err := NewGenerator(be, cfg, other, letters{}, nil, testOptions)
		if err != nil {
			t.Fatal(err)
		}
		before, want := draw(g), draw(h)
		for _, name := range w.Names() {
			w.Set(name, other.Get(name))
		}
		g.Forget()
		if after := draw(g); before == want || after != want {
			t.Errorf("with new weights %s, want %s (before: %s)", after, want, before)
		}
	})
}

// TestKeysAreOnTheEngineBeforeTheyAreShared: the first use of a tensor by two goroutines at once can fail.
func TestKeysAreOnTheEngineBeforeTheyAreShared(t *testing.T) {
	g := newGenerator(t, enginetest.Go(t), testOptions)
	p, err := g.decoder.Condition(g.prompts.Condition(letters{}.Encode("abc")))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := g.decoder.keysOf([]*Prefix{p, p})
	if err != nil {
		t.Fatal(err)
	}
	if !keys.IsOnDevice(0) {
		t.Error("the keys of a tile are not on the engine")
	}
}
