package verify_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"imagecot/cot"
	"imagecot/cot/cottest"
	"imagecot/verify"
	"imagecot/verify/beam"
	"imagecot/verify/orm"
	"imagecot/verify/parm"
	"imagecot/verify/questions"
	"imagecot/verify/search"
	"imagecot/verify/selfverify"
	"imagecot/verify/threshold"

	"pgregory.net/rapid"
)

// extensions are the strategies beyond the paper over one judge.
func extensions(j cot.Judge, set questions.Set) map[string]cot.Strategy {
	return map[string]cot.Strategy{
		"beam":      beam.Strategy{Judge: j, Questions: set, Width: 2, At: []int{2, 4}},
		"search":    search.Strategy{Judge: j, Questions: set},
		"threshold": threshold.Strategy{Judge: j, Questions: set, Wave: 2, Threshold: .8},
		"self":      selfverify.Strategy{Judge: j, Questions: set},
	}
}

// small seeds are named by their token in full, so that a judge of tokens knows them.
func smallSeeds(t *rapid.T) []uint64 {
	return rapid.SliceOfNDistinct(rapid.Uint64Max(math.MaxInt32), 1, 9, rapid.ID).Draw(t, "seeds")
}

// The cost is what happened and never above that of the ORM; the winner is whole, and its story is told; no two paths of
// one seed stand at the same step, and a fork starts where its parent stood.
func TestExtensionsKeepTheBooks(t *testing.T) {
	set := tiny(t)
	rapid.Check(t, func(t *rapid.T) {
		ss := smallSeeds(t)
		for name := range extensions(nil, set) {
			type at struct {
				seed uint64
				step int
			}
			seen, most := map[at]bool{}, 0
			g := &cottest.Generator{N: steps, OnBatch: func(paths []*cot.Path) error {
				most = max(most, len(paths))
				for _, p := range paths {
					if seen[at{p.Seed, p.Step}] {
						t.Fatalf("%s: a step of seed %d at %d was taken twice", name, p.Seed, p.Step)
					}
					seen[at{p.Seed, p.Step}] = true
				}
				return nil
			}}
			j := &cottest.Judge{Fate: cottest.FateOf(steps), Threshold: .5}
			sel, err := extensions(j, set)[name].Select(context.Background(), g, prompt, ss)
			if err != nil {
				t.Fatal(err)
			}
			asked, taken := 0, 0
			for i, trace := range sel.Traces {
				asked, taken = asked+len(trace.Asked), taken+trace.Steps
				if trace.Index != i || trace.Parent >= i {
					t.Fatalf("%s: trace %d: %+v", name, i, trace)
				}
			}
			if c := sel.Cost; c.DecodingSteps != g.Total() || taken != g.Total() || c.JudgeCalls != len(j.Asked) || asked != len(j.Asked) || c.ImagesDecoded != g.Decoded {
				t.Fatalf("%s: cost %+v; really %d steps, %d questions, %d images", name, c, g.Total(), len(j.Asked), g.Decoded)
			}
			if g.Total() > len(ss)*steps || most > len(ss) {
				t.Fatalf("%s: %d steps, %d paths at once, of %d seeds", name, g.Total(), most, len(ss))
			}
			if sel.Strategy != name || sel.Winner.Step != steps || slices.Contains(sel.Winner.Tokens, cot.Masked) || sel.Traces[sel.WinnerAt].Reason == "" {
				t.Fatalf("%s: %+v", name, sel)
			}
		}
	})
}

func TestExtensionsPassErrorsOn(t *testing.T) {
	ctx, broken := context.Background(), errors.New("broken")
	for name, s := range extensions(&cottest.Judge{Err: broken}, tiny(t)) {
		if _, err := s.Select(ctx, &cottest.Generator{N: steps}, prompt, seeds(3)); !errors.Is(err, broken) {
			t.Errorf("%s: judge's error: %v", name, err)
		}
		if _, err := s.Select(ctx, &cottest.Generator{N: steps, Err: broken}, prompt, seeds(3)); !errors.Is(err, broken) {
			t.Errorf("%s: generator's error: %v", name, err)
		}
		if _, err := s.Select(ctx, &cottest.Generator{N: steps}, prompt, nil); !errors.Is(err, verify.ErrNoSeeds) {
			t.Errorf("%s: no seeds: %v", name, err)
		}
	}
	nan := cot.Verdict{LogPYes: math.NaN(), LogPNo: math.NaN()}
	lost := &cottest.Judge{Fate: table(cottest.Fate{Quality: .9, Clear: 1}), Say: func(q cot.Question) *cot.Verdict {
		if q.Kind == cot.Outcome {
			return &nan
		}
		return nil
	}}
	for name, s := range extensions(lost, tiny(t)) {
		if _, err := s.Select(ctx, &cottest.Generator{N: steps}, prompt, seeds(3)); !errors.Is(err, verify.ErrNoVerdict) {
			t.Errorf("%s: no verdict: %v", name, err)
		}
	}
}

func TestBeamForksTheMostConfident(t *testing.T) {
	fate := table(cottest.Fate{Quality: .3}, cottest.Fate{Quality: .8}, cottest.Fate{Quality: .5}, cottest.Fate{Quality: .7})
	for kind, s := range map[cot.QuestionKind]beam.Strategy{cot.Potential: {}, cot.Process: {Kind: cot.Process}} {
		j := &cottest.Judge{Fate: fate, Threshold: .5}
		s.Judge, s.Questions = j, tiny(t) // width 2 of 4; steps 3, 4 and 5 of 6
		sel := choose(t, s, &cottest.Generator{N: steps}, 4)
		if sel.Winner.Seed != 1 || sel.Cost.DecodingSteps != 4*steps || sel.Cost.JudgeCalls != 4*4 {
			t.Errorf("%s: seed %d, %+v", kind, sel.Winner.Seed, sel.Cost)
		}
		if j.Asked[0].Kind != kind || j.Asked[0].Step != 3 || j.Asked[15].Kind != cot.Outcome {
			t.Errorf("%s: asked %s at step %d first", kind, j.Asked[0].Kind, j.Asked[0].Step)
		}
		for path, want := range map[int]cot.PathTrace{ // seeds 2 and 0 are truncated, their noise goes on in forks of 1 and 3
			2: {TruncatedAt: 3, Parent: -1, Seed: 2, Steps: 3}, 4: {Parent: 1, Seed: 2, TruncatedAt: 4, Steps: 1}, 5: {Parent: 3, Seed: 0, TruncatedAt: 4, Steps: 1},
		} {
			got := sel.Traces[path]
			if got.TruncatedAt != want.TruncatedAt || got.Parent != want.Parent || got.Seed != want.Seed || got.Steps != want.Steps {
				t.Errorf("%s: path %d: %+v", kind, path, got)
			}
		}
	}
}

// A beam as wide as N is the ORM; one of width 1 at every step asks what the PRM asks.
func TestBeamBetweenORMAndPRM(t *testing.T) {
	set := tiny(t)
	rapid.Check(t, func(t *rapid.T) {
		ss := smallSeeds(t)
		run := func(s cot.Strategy) cot.Selection {
			sel, err := s.Select(context.Background(), &cottest.Generator{N: steps}, prompt, ss)
			if err != nil {
				t.Fatal(err)
			}
			return sel
		}
		j := &cottest.Judge{Fate: cottest.FateOf(steps)}
		wide, o := run(beam.Strategy{Judge: j, Questions: set, Width: len(ss) + 1}), run(orm.Strategy{Judge: j, Questions: set})
		if wide.WinnerAt != o.WinnerAt || len(wide.Traces) != len(ss) {
			t.Fatalf("a beam of all paths chose %d of %d, the ORM %d", wide.WinnerAt, len(wide.Traces), o.WinnerAt)
		}
		narrow := run(beam.Strategy{Judge: j, Questions: set, Width: 1, At: []int{1, 2, 3, 4, 5, steps}, Kind: cot.Process})
		if narrow.Cost.JudgeCalls != len(ss)*steps || len(narrow.Traces) != len(ss)+(len(ss)-1)*(steps-1) || narrow.Winner.Seed != o.Winner.Seed {
			t.Fatalf("%+v: the judge sees the seeds' qualities: the best one wins", narrow.Cost)
		}
	})
}

// Search keeps N paths under way as long as one has potential; without truncation it is PARM.
func TestSearchReplacesTruncatedPaths(t *testing.T) {
	fate := table(
		cottest.Fate{Quality: .1, Clear: 1}, // truncated at 1, before anything has potential
		cottest.Fate{Quality: .6, Clear: 2},
		cottest.Fate{Quality: .7, Clear: 2},
		cottest.Fate{Quality: .2, Clear: 4},
		cottest.Fate{Quality: .3, Clear: 4},
		cottest.Fate{Quality: .4, Clear: 6}) // truncated at the end, where a fork is of no use
	g, j := &cottest.Generator{N: steps}, &cottest.Judge{Fate: fate, Threshold: .5}
	sel := choose(t, search.Strategy{Judge: j, Questions: tiny(t)}, g, 6)
	var forks []cot.PathTrace
	for _, tr := range sel.Traces[6:] {
		tr.Asked, tr.Reason = nil, ""
		forks = append(forks, tr)
	}
	want := []cot.PathTrace{{Index: 6, Seed: 0, Parent: 2, Steps: 4}, {Index: 7, Seed: 3, Parent: 1, Steps: 2}, {Index: 8, Seed: 4, Parent: 2, Steps: 2}}
	if len(forks) != 3 || forks[0].Parent != 2 || forks[1].Parent != 1 || forks[2].Parent != 2 {
		t.Errorf("forks %+v, want %+v", forks, want)
	}
	for i, f := range forks {
		if f.Seed != want[i].Seed || f.Steps != want[i].Steps {
			t.Errorf("fork %+v, want %+v", f, want[i])
		}
	}
	if sel.NPrime != 5 || sel.Winner.Seed != 2 || sel.Cost.DecodingSteps != 6*steps-1 { // one step passed before path 0 could be replaced
		t.Errorf("N' = %d, seed %d, %d steps", sel.NPrime, sel.Winner.Seed, sel.Cost.DecodingSteps)
	}
}

func TestSearchAgainstPARM(t *testing.T) {
	set := tiny(t)
	rapid.Check(t, func(t *rapid.T) {
		ss := smallSeeds(t)
		gate := rapid.SampledFrom([]float64{0, .5}).Draw(t, "threshold")
		run := func(s cot.Strategy) cot.Selection {
			sel, err := s.Select(context.Background(), &cottest.Generator{N: steps}, prompt, ss)
			if err != nil {
				t.Fatal(err)
			}
			return sel
		}
		j := &cottest.Judge{Fate: cottest.FateOf(steps), Threshold: gate}
		p, s := run(parm.Strategy{Judge: j, Questions: set}), run(search.Strategy{Judge: j, Questions: set})
		if s.NPrime < p.NPrime || s.Cost.DecodingSteps < p.Cost.DecodingSteps || (p.NPrime == 0) != (s.NPrime == 0) {
			t.Fatalf("PARM kept %d in %d steps, search %d in %d", p.NPrime, p.Cost.DecodingSteps, s.NPrime, s.Cost.DecodingSteps)
		}
		if len(s.Traces) == len(ss) && (s.WinnerAt != p.WinnerAt || s.Cost.JudgeCalls != p.Cost.JudgeCalls) {
			t.Fatalf("nothing was replaced: search chose %d, PARM %d", s.WinnerAt, p.WinnerAt)
		}
	})
}

func TestThresholdStopsWhenOneIsCertain(t *testing.T) {
	fate := table(cottest.Fate{Quality: .6}, cottest.Fate{Quality: .7}, cottest.Fate{Quality: .85}, cottest.Fate{Quality: .2}, cottest.Fate{Quality: .99})
	j := &cottest.Judge{Fate: fate}
	s := threshold.Strategy{Judge: j, Questions: tiny(t), Wave: 2, Threshold: .8, Whole: true}
	sel := choose(t, s, &cottest.Generator{N: steps}, 5)
	if sel.WinnerAt != 2 || sel.NPrime != 4 || sel.Cost.DecodingSteps != 4*steps || sel.Cost.JudgeCalls != 4 {
		t.Errorf("winner %d of %d, %+v", sel.WinnerAt, sel.NPrime, sel.Cost)
	}
	if tr := sel.Traces[4]; tr.Steps != 0 || tr.Reason != "not needed" || tr.TruncatedAt != 0 {
		t.Errorf("the path that was not needed: %+v", tr)
	}
	s.Threshold, s.Wave = 0, 0
	if sel = choose(t, s, &cottest.Generator{N: steps}, 5); sel.WinnerAt != 4 || sel.Cost.DecodingSteps != 5*steps {
		t.Errorf("at .9 in waves of 4: winner %d, %+v", sel.WinnerAt, sel.Cost)
	}
}

// With a threshold that nothing passes the choice is the ORM's or PARM's at their cost; with any threshold the cost is at
// most that, and what is chosen passes it or is that choice.
func TestThresholdAgainstORMAndPARM(t *testing.T) {
	set := tiny(t)
	rapid.Check(t, func(t *rapid.T) {
		ss := smallSeeds(t)
		wave := rapid.IntRange(1, 5).Draw(t, "wave")
		at := rapid.SampledFrom([]float64{1.5, .7, .3}).Draw(t, "threshold")
		j := &cottest.Judge{Fate: cottest.FateOf(steps), Threshold: .5}
		for whole, all := range map[bool]cot.Strategy{true: orm.Strategy{Judge: j, Questions: set}, false: parm.Strategy{Judge: j, Questions: set}} {
			want, err := all.Select(context.Background(), &cottest.Generator{N: steps}, prompt, ss)
			if err != nil {
				t.Fatal(err)
			}
			s := threshold.Strategy{Judge: j, Questions: set, Wave: wave, Threshold: at, Whole: whole}
			got, err := s.Select(context.Background(), &cottest.Generator{N: steps}, prompt, ss)
			if err != nil {
				t.Fatal(err)
			}
			if quality := cottest.FateOf(steps)(got.Winner.Seed).Quality; got.WinnerAt != want.WinnerAt && quality < at {
				t.Fatalf("chose %d of quality %v, %s chose %d", got.WinnerAt, quality, want.Strategy, want.WinnerAt)
			}
			if got.Cost.DecodingSteps > want.Cost.DecodingSteps || at > 1 && got.Cost.DecodingSteps != want.Cost.DecodingSteps {
				t.Fatalf("%d steps, %s takes %d", got.Cost.DecodingSteps, want.Strategy, want.Cost.DecodingSteps)
			}
		}
	})
}

func TestSelfVerificationReadsTokens(t *testing.T) {
	fate := table(cottest.Fate{Quality: .2}, cottest.Fate{Quality: .9}, cottest.Fate{Quality: .5})
	g, j := &cottest.Generator{N: steps}, &cottest.Judge{Fate: fate}
	sel := choose(t, selfverify.Strategy{Judge: j, Questions: tiny(t)}, g, 3)
	if sel.WinnerAt != 1 || sel.Cost.ImagesDecoded != 0 || g.Decoded != 0 || sel.Cost.JudgeCalls != 3 {
		t.Errorf("winner %d, %+v, %d decoded", sel.WinnerAt, sel.Cost, g.Decoded)
	}
	if q := j.Asked[1]; q.Image != nil || q.Kind != cot.Outcome || q.Step != steps {
		t.Errorf("asked %+v", q)
	}
}
