package verify_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/cot/cottest"
	"imagecot/verify"
	"imagecot/verify/bestofn"
	"imagecot/verify/orm"
	"imagecot/verify/parm"
	"imagecot/verify/parmpp"
	"imagecot/verify/prm"
	"imagecot/verify/questions"
	"imagecot/verify/search"
	"imagecot/verify/single"
	"imagecot/verify/threshold"

	"pgregory.net/rapid"
)

// strategies are all of them over one judge.
func strategies(j cot.Judge, set questions.Set) map[string]cot.Strategy {
	return map[string]cot.Strategy{
		"single": single.Strategy{},
		"orm":    orm.Strategy{Judge: j, Questions: set},
		"prm":    prm.Strategy{Judge: j, Questions: set},
		"parm":   parm.Strategy{Judge: j, Questions: set},
	}
}

// story is what happened to the path of each seed, without its place among the others.
func story(sel cot.Selection) map[uint64]cot.PathTrace {
	out := map[uint64]cot.PathTrace{}
	for _, t := range sel.Traces {
		t.Index = 0
		if t.Seed == sel.Winner.Seed {
			t.Reason = "" // names N
		}
		out[t.Seed] = t
	}
	return out
}

// What happens to a path depends on its seed alone: not on its place, and not on the company it keeps.
func TestAPathIsItsSeed(t *testing.T) {
	set := tiny(t)
	rapid.Check(t, func(t *rapid.T) {
		ss := rapid.SliceOfNDistinct(rapid.Uint64(), 1, 8, rapid.ID).Draw(t, "seeds")
		shuffled := rapid.Permutation(ss).Draw(t, "order")
		fate := func(seed uint64) cottest.Fate { // qualities that noise cannot push to 0 or 1, where verdicts would tie
			f := cottest.FateOf(steps)(seed)
			f.Quality = .3 + .4*f.Quality
			return f
		}
		judge := func() *cottest.Judge {
			return &cottest.Judge{Fate: fate, Threshold: .5, Noise: cottest.Gaussian(.02)}
		}
		for name, s := range map[string]cot.Strategy{
			"orm": orm.Strategy{Judge: judge(), Questions: set}, "parm": parm.Strategy{Judge: judge(), Questions: set},
		} {
			sel, err := s.Select(context.Background(), &cottest.Generator{N: steps}, prompt, ss)
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.Select(context.Background(), &cottest.Generator{N: steps}, prompt, shuffled)
			if err != nil {
				t.Fatal(err)
			}
			if again.Winner.Seed != sel.Winner.Seed || again.NPrime != sel.NPrime || !reflect.DeepEqual(story(again), story(sel)) {
				t.Fatalf("%s: another order of seeds, another outcome:\n%+v\n%+v", name, sel.Traces, again.Traces)
			}
			for _, seed := range ss {
				alone, err := s.Select(context.Background(), &cottest.Generator{N: steps}, prompt, []uint64{seed})
				if err != nil {
					t.Fatal(err)
				}
				with, without := story(sel)[seed], story(alone)[seed]
				if n := min(len(with.Asked), len(without.Asked)); !reflect.DeepEqual(with.Asked[:n], without.Asked[:n]) {
					t.Fatalf("%s: seed %d was judged otherwise alone:\n%+v\n%+v", name, seed, with, without)
				}
				if with.TruncatedAt != without.TruncatedAt {
					t.Fatalf("%s: seed %d truncated at %d among %d, at %d alone", name, seed, with.TruncatedAt, len(ss), without.TruncatedAt)
				}
			}
		}
	})
}

// The cost is what the generator and the judge really did, and the winner is complete.
func TestCostIsWhatHappened(t *testing.T) {
	set := tiny(t)
	rapid.Check(t, func(t *rapid.T) {
		ss := rapid.SliceOfNDistinct(rapid.Uint64(), 1, 8, rapid.ID).Draw(t, "seeds")
		for name := range strategies(nil, set) {
			j := &cottest.Judge{Fate: cottest.FateOf(steps), Threshold: .5}
			g := &cottest.Generator{N: steps}
			sel, err := strategies(j, set)[name].Select(context.Background(), g, prompt, ss)
			if err != nil {
				t.Fatal(err)
			}
			done := 0
			for _, seed := range ss {
				done += g.Advanced(seed)
			}
			asked := 0
			for _, trace := range sel.Traces {
				asked += len(trace.Asked)
			}
			if c := sel.Cost; c.DecodingSteps != done || c.JudgeCalls != len(j.Asked) || asked != len(j.Asked) || c.ImagesDecoded != g.Decoded {
				t.Fatalf("%s: cost %+v; really %d steps, %d questions (%d in the traces), %d images", name, c, done, len(j.Asked), asked, g.Decoded)
			}
			if sel.Strategy != name || sel.Prompt != prompt || slices.Contains(sel.Winner.Tokens, cot.Masked) || sel.Winner.Step != steps {
				t.Fatalf("%s: %+v", name, sel)
			}
			if w := sel.Traces[sel.WinnerAt]; w.Seed != sel.Winner.Seed || w.Reason == "" {
				t.Fatalf("%s: the winner's trace is %+v, its seed %d", name, w, sel.Winner.Seed)
			}
		}
	})
}

// PARM never decodes more steps than the ORM, and chooses what the ORM chooses if every path has potential.
func TestPARMAgainstORM(t *testing.T) {
	set := tiny(t)
	rapid.Check(t, func(t *rapid.T) {
		ss := rapid.SliceOfNDistinct(rapid.Uint64(), 1, 8, rapid.ID).Draw(t, "seeds")
		always := func(seed uint64) cottest.Fate {
			return cottest.Fate{Quality: cottest.FateOf(steps)(seed).Quality, Clear: 2}
		}
		run := func(s cot.Strategy) cot.Selection {
			sel, err := s.Select(context.Background(), &cottest.Generator{N: steps}, prompt, ss)
			if err != nil {
				t.Fatal(err)
			}
			return sel
		}
		j := &cottest.Judge{Fate: always}
		o, p := run(orm.Strategy{Judge: j, Questions: set}), run(parm.Strategy{Judge: j, Questions: set})
		if o.Winner.Seed != p.Winner.Seed || p.NPrime != len(ss) {
			t.Fatalf("with potential everywhere PARM chose %d (N' = %d), the ORM %d", p.Winner.Seed, p.NPrime, o.Winner.Seed)
		}
		j = &cottest.Judge{Fate: cottest.FateOf(steps), Threshold: .5}
		if p = run(parm.Strategy{Judge: j, Questions: set}); p.Cost.DecodingSteps > o.Cost.DecodingSteps {
			t.Fatalf("PARM took %d steps, the ORM %d", p.Cost.DecodingSteps, o.Cost.DecodingSteps)
		}
	})
}

func TestPARMNeverClearTakesTheLowestPNoOfClarity(t *testing.T) {
	j := &cottest.Judge{Fate: table(cottest.Fate{}), Say: func(q cot.Question) *cot.Verdict {
		v := cottest.Probability([]float64{.1, .4, .3}[q.Path])
		if q.Step < steps {
			v = cottest.Probability([]float64{.1, .2, .3}[q.Path]) // earlier answers do not count
		}
		return &v
	}}
	sel := choose(t, parm.Strategy{Judge: j, Questions: tiny(t)}, &cottest.Generator{N: steps}, 3)
	if sel.WinnerAt != 1 || sel.NPrime != 0 {
		t.Errorf("winner %d, N' = %d", sel.WinnerAt, sel.NPrime)
	}
	if sel.Traces[0].Reason != "never clear" || sel.Traces[0].TruncatedAt != steps {
		t.Errorf("%+v", sel.Traces[0])
	}
}

func TestPARMDeniedComesBeforeNeverClear(t *testing.T) {
	fate := table(cottest.Fate{Quality: .9}, cottest.Fate{Quality: .01, Clear: 2})
	j := &cottest.Judge{Fate: fate, Threshold: .5}
	if sel := choose(t, parm.Strategy{Judge: j, Questions: tiny(t)}, &cottest.Generator{N: steps}, 2); sel.WinnerAt != 1 {
		t.Errorf("winner %d: a path that is never clear has P(no) = 1", sel.WinnerAt)
	}
}

// A tie and a verdict that is no number are no yes.
func TestPARMNeedsAYes(t *testing.T) {
	for name, v := range map[string]cot.Verdict{"tie": cottest.Probability(.5), "NaN": {LogPYes: math.NaN(), LogPNo: math.NaN()}} {
		for _, kind := range []cot.QuestionKind{cot.Clarity, cot.Potential} {
			j := &cottest.Judge{Fate: table(cottest.Fate{Quality: .9, Clear: 1}), Say: func(q cot.Question) *cot.Verdict {
				if q.Kind == kind {
					return &v
				}
				return nil
			}}
			if sel := choose(t, parm.Strategy{Judge: j, Questions: tiny(t)}, &cottest.Generator{N: steps}, 1); sel.NPrime != 0 {
				t.Errorf("%s counts as yes to %s", name, kind)
			}
		}
	}
}

// P(yes) and P(no) need not add up to 1: the ORM goes by P(yes).
func TestORMGoesByPYes(t *testing.T) {
	j := &cottest.Judge{Fate: table(cottest.Fate{}), Say: func(q cot.Question) *cot.Verdict {
		return &[]cot.Verdict{{LogPYes: -1, LogPNo: -9}, {LogPYes: -.5, LogPNo: -1}}[q.Path]
	}}
	if sel := choose(t, orm.Strategy{Judge: j, Questions: tiny(t)}, &cottest.Generator{N: steps}, 2); sel.WinnerAt != 1 {
		t.Errorf("winner %d", sel.WinnerAt)
	}
}

// PARM and all that builds on it can begin to ask later.
func TestFromAsksLater(t *testing.T) {
	set := tiny(t)
	for name, with := range map[string]func(j *cottest.Judge) cot.Strategy{
		"parm":      func(j *cottest.Judge) cot.Strategy { return parm.Strategy{Judge: j, Questions: set, From: 4} },
		"search":    func(j *cottest.Judge) cot.Strategy { return search.Strategy{Judge: j, Questions: set, From: 4} },
		"threshold": func(j *cottest.Judge) cot.Strategy { return threshold.Strategy{Judge: j, Questions: set, From: 4} },
		"parmpp": func(j *cottest.Judge) cot.Strategy {
			return parmpp.Strategy{Judge: j, Questions: set, From: 4, NoReflection: true}
		},
	} {
		j := &cottest.Judge{Fate: table(cottest.Fate{Quality: .9, Clear: 2}), Threshold: .5}
		choose(t, with(j), &cottest.Generator{N: steps}, 2)
		if first := j.Asked[0].Step; first != 4 {
			t.Errorf("%s asked first at step %d, want 4", name, first)
		}
	}
}

func TestBestOfNScores(t *testing.T) {
	score := func(values ...float64) bestofn.Score {
		return func(_ context.Context, _ cot.Prompt, img image.Image) (float64, error) {
			return values[img.(cottest.Image).Seed], nil
		}
	}
	nan := math.NaN()
	sel := choose(t, bestofn.Strategy{Score: score(nan, -3, -1, -1)}, &cottest.Generator{N: steps}, 4)
	if sel.WinnerAt != 2 || sel.Strategy != "bestofn" || sel.Traces[1].Reason != "score -3" {
		t.Errorf("winner %d by %s: %+v", sel.WinnerAt, sel.Strategy, sel.Traces)
	}
	_, err := bestofn.Strategy{Score: score(nan, nan)}.Select(context.Background(), &cottest.Generator{N: steps}, prompt, seeds(2))
	if !errors.Is(err, verify.ErrNoVerdict) {
		t.Errorf("all NaN: %v", err)
	}
	broken := errors.New("broken")
	_, err = bestofn.Strategy{Score: func(context.Context, cot.Prompt, image.Image) (float64, error) { return 0, broken }}.
		Select(context.Background(), &cottest.Generator{N: steps}, prompt, seeds(2))
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "path 0") {
		t.Errorf("the score's error: %v", err)
	}
}

// Cancelled in the middle, a selection ends before the next step.
func TestCancelInTheMiddle(t *testing.T) {
	for name, s := range strategies(&cottest.Judge{Fate: table(cottest.Fate{Quality: .5, Clear: 5})}, tiny(t)) {
		ctx, cancel := context.WithCancel(context.Background())
		g := &cottest.Generator{N: steps, OnBatch: func(paths []*cot.Path) error {
			if paths[0].Step == 2 {
				cancel()
			}
			return nil
		}}
		if _, err := s.Select(ctx, g, prompt, seeds(1)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if got := g.Advanced(0); got != 3 {
			t.Errorf("%s: %d steps, want 3", name, got)
		}
	}
}

// watcher keeps what an observer is shown.
type watcher []string

func (w *watcher) Judged(path *cot.Path, img image.Image) {
	if shown := img.(cottest.Image); shown.Seed != path.Seed || shown.Step != path.Step {
		*w = append(*w, "a mixed-up image")
	}
	*w = append(*w, fmt.Sprint(path.Index, "@", path.Step))
}

func TestTheObserverSeesEveryJudgedImageOnce(t *testing.T) {
	fate := table(cottest.Fate{Quality: .9, Clear: 2}, cottest.Fate{Quality: .1, Clear: 1})
	var seen watcher
	s := parm.Strategy{Judge: &cottest.Judge{Fate: fate, Threshold: .5}, Questions: tiny(t), Observer: &seen}
	choose(t, s, &cottest.Generator{N: 3}, 2)
	if want := (watcher{"0@1", "1@1", "0@2", "0@3"}); !slices.Equal(seen, want) {
		t.Errorf("seen %v, want %v", seen, want)
	}
}

// short answers with fewer verdicts than it was asked for.
type short struct{}

func (short) Ask(context.Context, []cot.Question) ([]cot.Verdict, error) { return nil, nil }

func TestFaultyJudges(t *testing.T) {
	ctx, g := context.Background(), &cottest.Generator{N: steps}
	for name, s := range map[string]cot.Strategy{
		"0 verdicts":                         orm.Strategy{Judge: short{}, Questions: tiny(t)},
		"no judge":                           orm.Strategy{Questions: tiny(t)},
		"no wording of the clarity question": parm.Strategy{Judge: short{}},
	} {
		if _, err := s.Select(ctx, g, prompt, seeds(2)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want one that says %q", err, name)
		}
	}
}
