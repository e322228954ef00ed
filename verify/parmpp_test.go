package verify_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/cot/cottest"
	"imagecot/verify"
	"imagecot/verify/parm"
	"imagecot/verify/parmpp"
	"imagecot/verify/questions"

	"pgregory.net/rapid"
)

// plusplus is PARM++ over one generator and one judge.
func plusplus(g *cottest.Generator, j *cottest.Judge, set questions.Set) parmpp.Strategy {
	return parmpp.Strategy{Judge: j, Explainer: j, Corrector: g, Questions: set}
}

// reflections answers the reflection question with these P(yes) in turn, and everything else by fate.
func reflections(p ...float64) func(q cot.Question) *cot.Verdict {
	return func(q cot.Question) *cot.Verdict {
		if q.Kind != cot.Reflection {
			return nil
		}
		v := cottest.Probability(p[0])
		p = p[1:]
		return &v
	}
}

func TestPARMPlusPlusCorrectsUntilAYes(t *testing.T) {
	g := &cottest.Generator{N: steps}
	j := &cottest.Judge{Fate: cottest.FateOf(steps), Say: reflections(.2, .1, .7)}
	sel := choose(t, plusplus(g, j, tiny(t)), g, 4)
	if len(sel.Reflections) != 3 || len(sel.Traces) != 6 || sel.WinnerAt != 5 {
		t.Fatalf("%d rounds, %d paths, winner %d: %+v", len(sel.Reflections), len(sel.Traces), sel.WinnerAt, sel.Reflections)
	}
	first, second, last := sel.Reflections[0], sel.Reflections[1], sel.Reflections[2]
	if first.Corrected != 4 || second.Path != 4 || second.Corrected != 5 || last.Path != 5 || last.Corrected != -1 || last.Reason != "" {
		t.Errorf("rounds do not follow each other: %+v", sel.Reflections)
	}
	if first.Question != "does the image show a photo of a red circle?" || first.Why != "what is wrong?" || !strings.HasSuffix(first.Reason, "is wrong") {
		t.Errorf("first round %+v", first)
	}
	if tr := sel.Traces[4]; tr.Parent != first.Path || !tr.Corrects || tr.Steps != steps || tr.TruncatedAt != 0 {
		t.Errorf("trace of the first correction: %+v", tr)
	}
	if len(j.Explained) != 2 || j.Explained[0].After[0].Answer != "no" || j.Explained[0].After[0].Text != first.Question {
		t.Errorf("reasons asked for: %+v", j.Explained)
	}
	if got := sel.Traces[5].Reason; got != "passes reflection after 2 corrections, P(yes) 0.7000" {
		t.Errorf("reason %q", got)
	}
}

func TestPARMPlusPlusEndsAfterThreeCorrections(t *testing.T) {
	for name, c := range map[string]struct {
		said   []float64
		rounds int
		winner int // index into the rounds
		reason string
	}{
		"second is best": {[]float64{.1, .2, .4, .3}, 0, 2, "no image passes reflection; correction 2 of 3"},
		"none better":    {[]float64{.3, .2, .3, .1}, 0, 0, "none of 3 corrections is better"},
		"one round":      {[]float64{.1, .2}, 1, 1, "correction 1 of 1"},
		"passes at once": {[]float64{.9}, 0, 0, "it passes reflection"},
		"passes at last": {[]float64{.1, .2, .3, .6}, 0, 3, "after 3 corrections"},
	} {
		g := &cottest.Generator{N: steps}
		s := plusplus(g, &cottest.Judge{Fate: cottest.FateOf(steps), Say: reflections(c.said...)}, tiny(t))
		s.Rounds = c.rounds
		sel := choose(t, s, g, 2)
		if len(sel.Reflections) != len(c.said) || sel.Reflections[c.winner].Path != sel.WinnerAt {
			t.Errorf("%s: winner %d after %+v", name, sel.WinnerAt, sel.Reflections)
		}
		if got := sel.Traces[sel.WinnerAt].Reason; !strings.Contains(got, c.reason) {
			t.Errorf("%s: reason %q", name, got)
		}
	}
}

// Whatever the judge says: the result is never worse than PARM's choice, reflection ends with the first yes, the cost is
// what happened, and without reflection PARM++ is PARM.
func TestPARMPlusPlusProperties(t *testing.T) {
	set := tiny(t)
	rapid.Check(t, func(t *rapid.T) {
		ss := rapid.SliceOfNDistinct(rapid.Uint64(), 1, 8, rapid.ID).Draw(t, "seeds")
		rounds := rapid.IntRange(1, 4).Draw(t, "rounds")
		run := func(s cot.Strategy, g cot.Generator) cot.Selection {
			sel, err := s.Select(context.Background(), g, prompt, ss)
			if err != nil {
				t.Fatal(err)
			}
			return sel
		}
		fate := cottest.FateOf(steps)
		lenient := rapid.Float64Range(-.5, .5).Draw(t, "lenient") // P(yes) and P(no) need not add up to 1
		say := func(q cot.Question) *cot.Verdict {
			if q.Kind != cot.Reflection {
				return nil
			}
			quality := fate(q.Image.(cottest.Image).Seed).Quality
			v := cot.Verdict{LogPYes: math.Log(quality), LogPNo: math.Log(1-quality) + lenient}
			return &v
		}
		g := &cottest.Generator{N: steps}
		j := &cottest.Judge{Fate: fate, Threshold: .5, Say: say}
		s := plusplus(g, j, set)
		s.Rounds = rounds
		sel := run(s, g)
		odds := func(r cot.ReflectionTrace) float64 { return r.Verdict.LogPYes - r.Verdict.LogPNo }
		var won cot.ReflectionTrace
		for i, r := range sel.Reflections {
			if r.Path == sel.WinnerAt {
				won = r
			}
			last := i == len(sel.Reflections)-1
			if r.Verdict.Yes() && !last || (r.Corrected < 0) != last || (r.Reason == "") != last {
				t.Fatalf("round %d of %d: %+v", i+1, len(sel.Reflections), r)
			}
		}
		for _, r := range sel.Reflections {
			if odds(r) > odds(won) {
				t.Fatalf("%+v is better than the winner's %+v", r, won)
			}
		}
		if n := len(sel.Reflections); n > rounds+1 || n <= rounds && !sel.Reflections[n-1].Verdict.Yes() {
			t.Fatalf("%d looks at %d rounds, the last says %v", n, rounds, sel.Reflections[n-1].Verdict)
		}
		if c := sel.Cost; c.DecodingSteps != g.Total() || c.JudgeCalls != len(j.Asked)+len(j.Explained) || c.ImagesDecoded != g.Decoded {
			t.Fatalf("cost %+v; really %d steps, %d questions, %d reasons, %d images", c, g.Total(), len(j.Asked), len(j.Explained), g.Decoded)
		}
		if slices.ContainsFunc(sel.Traces, func(tr cot.PathTrace) bool { return tr.Corrects && tr.Steps != steps }) {
			t.Fatalf("%+v", sel.Traces)
		}
		noise := map[uint64]bool{}
		for _, tr := range sel.Traces {
			noise[tr.Seed] = true
		}
		if len(noise) != len(sel.Traces) {
			t.Fatalf("%d seeds for %d paths", len(noise), len(sel.Traces))
		}
		p := run(parm.Strategy{Judge: j, Questions: set}, &cottest.Generator{N: steps})
		if first := sel.Reflections[0].Path; first != p.WinnerAt {
			t.Fatalf("reflected upon path %d, PARM chose %d", first, p.WinnerAt)
		}
		without := run(parmpp.Strategy{Judge: j, Questions: set, NoReflection: true}, &cottest.Generator{N: steps})
		if without.WinnerAt != p.WinnerAt || without.NPrime != p.NPrime || without.Reflections != nil || without.Cost.JudgeCalls != p.Cost.JudgeCalls {
			t.Fatalf("without reflection %+v, PARM %+v", without, p)
		}
	})
}

// silent explains nothing, or fails; half is a corrector that does not finish.
type (
	silent struct{ err error }
	half   struct{ cot.Generator }
)

func (s silent) Explain(context.Context, cot.Question) (string, error) { return "a reason", s.err }

func (half) Correct(_ context.Context, p cot.Prompt, _ *cot.Path, _ string, seed uint64) (*cot.Path, error) {
	return &cot.Path{Prompt: p, Seed: seed, Step: 1}, nil
}

func TestPARMPlusPlusErrors(t *testing.T) {
	ctx, broken := context.Background(), errors.New("broken")
	bad := &cottest.Judge{Fate: table(cottest.Fate{Quality: .1, Clear: 1})}
	g := &cottest.Generator{N: steps}
	s := plusplus(g, bad, tiny(t))
	s.Explainer = silent{broken}
	if _, err := s.Select(ctx, g, prompt, seeds(2)); !errors.Is(err, broken) || !strings.Contains(err.Error(), "round 1") {
		t.Errorf("the explainer's error: %v", err)
	}
	s.Explainer, s.Corrector = silent{}, half{}
	if _, err := s.Select(ctx, g, prompt, seeds(2)); err == nil || !strings.Contains(err.Error(), "step 1 of 6") {
		t.Errorf("half a correction: %v", err)
	}
	s.Questions = questions.Set{}
	if _, err := s.Select(ctx, g, prompt, nil); !errors.Is(err, verify.ErrNoSeeds) {
		t.Errorf("no seeds: %v", err)
	}
}

func TestHighestOdds(t *testing.T) {
	nan := cot.Verdict{LogPYes: math.NaN()}
	for name, c := range map[string]struct {
		verdicts []cot.Verdict
		want     int
	}{
		"first on ties":     {[]cot.Verdict{cottest.Probability(.4), cottest.Probability(.4)}, 0},
		"NaN first":         {[]cot.Verdict{nan, cottest.Probability(.1), cottest.Probability(.2)}, 2},
		"NaN later":         {[]cot.Verdict{cottest.Probability(.1), nan}, 0},
		"all NaN":           {[]cot.Verdict{nan, nan}, 0},
		"yes before P(yes)": {[]cot.Verdict{{LogPYes: -.7, LogPNo: -.6}, {LogPYes: -.8, LogPNo: -2}}, 1},
	} {
		if got := verify.HighestOdds(c.verdicts); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
