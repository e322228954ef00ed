package verify_test

import (
	"context"
	"errors"
	"image"
	"math"
	"testing"

	"imagecot/cot"
	"imagecot/cot/cottest"
	"imagecot/verify"
	"imagecot/verify/bestofn"
	"imagecot/verify/orm"
	"imagecot/verify/parm"
	"imagecot/verify/prm"
	"imagecot/verify/questions"
	"imagecot/verify/single"

	"pgregory.net/rapid"
)

const steps = 6

var prompt = cot.Prompt{Text: "a photo of a red circle"}

// table gives seeds 0, 1, .. the fates in turn.
func table(fates ...cottest.Fate) func(uint64) cottest.Fate {
	return func(seed uint64) cottest.Fate { return fates[int(seed)%len(fates)] }
}

func seeds(n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(i)
	}
	return out
}

func tiny(t testing.TB) questions.Set {
	t.Helper()
	set, err := questions.Get("tiny")
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func choose(t testing.TB, s cot.Strategy, g cot.Generator, n int) cot.Selection {
	t.Helper()
	sel, err := s.Select(context.Background(), g, prompt, seeds(n))
	if err != nil {
		t.Fatal(err)
	}
	if sel.Winner.Step != g.Steps() {
		t.Fatalf("winner stands at step %d of %d", sel.Winner.Step, g.Steps())
	}
	return sel
}

func TestSingleIsTheFirstPath(t *testing.T) {
	g := &cottest.Generator{N: steps}
	sel := choose(t, single.Strategy{}, g, 3)
	if sel.Winner.Seed != 0 || sel.Cost.DecodingSteps != steps || sel.Cost.JudgeCalls != 0 || g.Decoded != 0 {
		t.Errorf("%+v, %d decoded", sel, g.Decoded)
	}
}

func TestORMKeepsTheHighestPYesAndTheFirstOnTies(t *testing.T) {
	fate := table(cottest.Fate{Quality: .2}, cottest.Fate{Quality: .9}, cottest.Fate{Quality: .5}, cottest.Fate{Quality: .9})
	g, j := &cottest.Generator{N: steps}, &cottest.Judge{Fate: fate}
	sel := choose(t, orm.Strategy{Judge: j, Questions: tiny(t)}, g, 4)
	if sel.WinnerAt != 1 || sel.NPrime != 4 {
		t.Errorf("winner %d of %d", sel.WinnerAt, sel.NPrime)
	}
	if c := sel.Cost; c.DecodingSteps != 4*steps || c.JudgeCalls != 4 || c.ImagesDecoded != 4 || g.Decoded != 4 {
		t.Errorf("cost %+v", c)
	}
	if got := j.Asked[0].Text; got != "does it show a photo of a red circle?" {
		t.Errorf("asked %q", got)
	}
}

func TestNaNNeverWins(t *testing.T) {
	nan := cot.Verdict{LogPYes: math.NaN(), LogPNo: math.NaN()}
	say := func(q cot.Question) *cot.Verdict {
		if q.Path == 0 {
			return &nan
		}
		return nil
	}
	j := &cottest.Judge{Fate: table(cottest.Fate{Quality: .9, Clear: 2}), Say: say}
	for name, s := range map[string]cot.Strategy{
		"orm":  orm.Strategy{Judge: j, Questions: tiny(t)},
		"parm": parm.Strategy{Judge: j, Questions: tiny(t)},
	} {
		if sel := choose(t, s, &cottest.Generator{N: steps}, 2); sel.WinnerAt != 1 {
			t.Errorf("%s: winner %d", name, sel.WinnerAt)
		}
	}
	_, err := orm.Strategy{Judge: j, Questions: tiny(t)}.Select(context.Background(), &cottest.Generator{N: steps}, prompt, seeds(1))
	if !errors.Is(err, verify.ErrNoVerdict) {
		t.Errorf("all NaN: %v", err)
	}
}

func TestPRMFollowsTheMostConfidentContinuation(t *testing.T) {
	fate := table(cottest.Fate{Quality: .2}, cottest.Fate{Quality: .7}, cottest.Fate{Quality: .5})
	g, j := &cottest.Generator{N: steps}, &cottest.Judge{Fate: fate}
	sel := choose(t, prm.Strategy{Judge: j, Questions: tiny(t)}, g, 3)
	if sel.Winner.Seed != 1 {
		t.Errorf("winner has seed %d", sel.Winner.Seed)
	}
	if c := sel.Cost; c.DecodingSteps != 3*steps || c.JudgeCalls != 3*steps {
		t.Errorf("cost %+v: want N*T steps and questions", c)
	}
	for _, q := range j.Asked {
		if q.Kind != cot.Process {
			t.Fatalf("asked %s", q.Kind)
		}
	}
}

func TestPARMTruncatesForGood(t *testing.T) {
	fate := table(
		cottest.Fate{Quality: .9, Clear: 2},
		cottest.Fate{Quality: .1, Clear: 3},
		cottest.Fate{Quality: .95, Clear: 4},
		cottest.Fate{Quality: .99, Clear: 0})
	g, j := &cottest.Generator{N: steps}, &cottest.Judge{Fate: fate, Threshold: .5}
	sel := choose(t, parm.Strategy{Judge: j, Questions: tiny(t)}, g, 4)
	if sel.WinnerAt != 2 || sel.NPrime != 2 {
		t.Errorf("winner %d of %d", sel.WinnerAt, sel.NPrime)
	}
	for seed, want := range []int{steps, 3, steps, steps} {
		if got := g.Advanced(uint64(seed)); got != want {
			t.Errorf("path %d took %d steps, want %d", seed, got, want)
		}
	}
	asked := map[int]map[cot.QuestionKind][]int{}
	for _, q := range j.Asked {
		if asked[q.Path] == nil {
			asked[q.Path] = map[cot.QuestionKind][]int{}
		}
		asked[q.Path][q.Kind] = append(asked[q.Path][q.Kind], q.Step)
		if q.Kind == cot.Potential && (len(q.After) != 1 || q.After[0].Answer != "yes" || q.After[0].Text != "is it clear?") {
			t.Errorf("potential is no follow-up of clarity: %+v", q.After)
		}
	}
	for path, want := range []int{2, 3, 4, steps} { // clarity is asked until the first yes
		if got := len(asked[path][cot.Clarity]); got != want {
			t.Errorf("path %d: clarity asked %d times, want %d", path, got, want)
		}
	}
	if got := asked[0][cot.Potential]; len(got) != 1 || got[0] != 2 {
		t.Errorf("potential of path 0 asked at %v, want once, at the first clear step", got)
	}
	if got := asked[1][cot.Outcome]; got != nil {
		t.Errorf("outcome of a truncated path was asked")
	}
	if tr := sel.Traces[1]; tr.TruncatedAt != 3 || tr.Reason == "" {
		t.Errorf("trace of the truncated path: %+v", tr)
	}
}

func TestPARMWithoutSurvivorsFinishesTheLeastDenied(t *testing.T) {
	fate := table(cottest.Fate{Quality: .1, Clear: 2}, cottest.Fate{Quality: .4, Clear: 3}, cottest.Fate{Quality: .3, Clear: 2})
	g, j := &cottest.Generator{N: steps}, &cottest.Judge{Fate: fate, Threshold: .5}
	sel := choose(t, parm.Strategy{Judge: j, Questions: tiny(t)}, g, 3)
	if sel.WinnerAt != 1 || sel.NPrime != 0 {
		t.Errorf("winner %d, N' = %d", sel.WinnerAt, sel.NPrime)
	}
	if got := sel.Cost.DecodingSteps; got != steps+2+2 {
		t.Errorf("%d decoding steps, want %d: only the winner is finished", got, steps+4)
	}
	sel = choose(t, parm.Strategy{Judge: &cottest.Judge{Fate: table(cottest.Fate{Quality: 1})}, Questions: tiny(t)}, &cottest.Generator{N: steps}, 2)
	if sel.WinnerAt != 0 || sel.NPrime != 0 {
		t.Errorf("nothing ever clear: winner %d, N' = %d", sel.WinnerAt, sel.NPrime)
	}
}

func TestErrorsComeThrough(t *testing.T) {
	broken := errors.New("broken")
	fate := table(cottest.Fate{Quality: .5, Clear: 1})
	for name, s := range map[string]func(j cot.Judge) cot.Strategy{
		"orm":  func(j cot.Judge) cot.Strategy { return orm.Strategy{Judge: j, Questions: tiny(t)} },
		"prm":  func(j cot.Judge) cot.Strategy { return prm.Strategy{Judge: j, Questions: tiny(t)} },
		"parm": func(j cot.Judge) cot.Strategy { return parm.Strategy{Judge: j, Questions: tiny(t)} },
	} {
		ctx := context.Background()
		if _, err := s(&cottest.Judge{Err: broken}).Select(ctx, &cottest.Generator{N: steps}, prompt, seeds(2)); !errors.Is(err, broken) {
			t.Errorf("%s: judge's error: %v", name, err)
		}
		good := s(&cottest.Judge{Fate: fate})
		if _, err := good.Select(ctx, &cottest.Generator{N: steps, Err: broken}, prompt, seeds(2)); !errors.Is(err, broken) {
			t.Errorf("%s: generator's error: %v", name, err)
		}
		if _, err := good.Select(ctx, &cottest.Generator{N: steps}, prompt, nil); !errors.Is(err, verify.ErrNoSeeds) {
			t.Errorf("%s: no seeds: %v", name, err)
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := good.Select(cancelled, &cottest.Generator{N: steps}, prompt, seeds(2)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cancelled: %v", name, err)
		}
	}
}

func TestProperties(t *testing.T) {
	set := tiny(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "n")
		fates := make([]cottest.Fate, n)
		for i := range fates {
			fates[i] = cottest.Fate{Quality: float64(rapid.IntRange(1, 99).Draw(t, "quality")) / 100, Clear: rapid.IntRange(0, steps).Draw(t, "clear")}
		}
		fate := table(fates...)
		g := &cottest.Generator{N: steps}
		sel, err := parm.Strategy{Judge: &cottest.Judge{Fate: fate, Threshold: .5}, Questions: set}.Select(context.Background(), g, prompt, seeds(n))
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		for i, tr := range sel.Traces {
			total += tr.Steps
			if tr.TruncatedAt > 0 && i != sel.WinnerAt && g.Advanced(tr.Seed) != tr.TruncatedAt {
				t.Fatalf("path %d was truncated at %d and took %d steps", i, tr.TruncatedAt, g.Advanced(tr.Seed))
			}
		}
		if total != sel.Cost.DecodingSteps || total > n*steps {
			t.Fatalf("%d steps in the traces, %d in the cost, %d at most", total, sel.Cost.DecodingSteps, n*steps)
		}
		last := 0. // with an oracle, best of N on nested seeds never falls
		oracle := bestofn.Strategy{Name: "oracle", Score: func(_ context.Context, _ cot.Prompt, img image.Image) (float64, error) {
			return fate(img.(cottest.Image).Seed).Quality, nil
		}}
		for k := 1; k <= n; k++ {
			sel, err := oracle.Select(context.Background(), &cottest.Generator{N: steps}, prompt, seeds(k))
			if err != nil {
				t.Fatal(err)
			}
			q := fate(sel.Winner.Seed).Quality
			if q < last {
				t.Fatalf("best of %d is %v, of %d it was %v", k, q, k-1, last)
			}
			last = q
		}
	})
}
