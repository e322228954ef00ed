package train

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"imagecot/internal/enginetest"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
)

// watched is a line that is shown the weights before each step and tells their first number.
type watched struct {
	line
	seen   map[int]float32 // step -> first weight
	order  []string        // what was called
	stopAt int
	blind  map[int]bool // steps without a look
}

func (w *watched) Look(_ context.Context, step int, weights map[string]*tensors.Tensor) error {
	w.seen[step] = tensors.MustCopyFlatData[float32](weights["w"])[0]
	w.order = append(w.order, fmt.Sprint("look ", step))
	if step == w.stopAt {
		return fmt.Errorf("%w: enough", ErrStop)
	}
	return nil
}

func (w *watched) Looks(step int) bool { return !w.blind[step] }

func (w *watched) Batch(i int) ([]*tensors.Tensor, error) {
	w.order = append(w.order, fmt.Sprint("batch ", i))
	return w.line.Batch(i)
}

func (w *watched) Figures() map[string]float64 {
	return map[string]float64{"first_weight": float64(w.seen[len(w.seen)-1])}
}

// figures keeps what was logged.
type figures []map[string]float64

func (f *figures) Log(_ int, values map[string]float64) error {
	*f = append(*f, values)
	return nil
}

func TestAnOnlineObjectiveSeesTheWeightsBeforeItsBatches(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		for _, accum := range []int{1, 2} {
			o, log := &watched{line: line{batch: 8, nanAt: -1}, seen: map[int]float32{}, stopAt: -1}, &figures{}
			r := recipe(t, fmt.Sprintf("max_steps: 3\ngradient_accumulation_steps: %d\n", accum))
			l, err := New(be, r, o, log)
			if err != nil {
				t.Fatal(err)
			}
			var after []float32
			if err := l.Run(t.Context(), func(int) error {
				after = append(after, tensors.MustCopyFlatData[float32](l.params["w"])[0])
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if o.seen[0] != .1 || o.seen[1] != after[0] || o.seen[2] != after[1] || o.seen[3] != after[2] || after[0] == after[1] {
				t.Errorf("saw %v, the weights were %v", o.seen, after)
			}
			want := "[look 0 batch 0 look 1 batch 1 look 2 batch 2 look 3]"
			if accum == 2 {
				want = "[look 0 batch 0 batch 1 look 1 batch 2 batch 3 look 2 batch 4 batch 5 look 3]"
			}
			if fmt.Sprint(o.order) != want {
				t.Errorf("called %v, want %s", o.order, want)
			}
			if got := (*log)[2]["first_weight"]; math.Abs(got-float64(after[2])) > 0 {
				t.Errorf("logged %v", *log)
			}
		}
	})
}

func TestARuleEndsARunAsFinished(t *testing.T) {
	for _, at := range []int{0, 2, 5} { // 5 is after the last step
		o := &watched{line: line{batch: 8, nanAt: -1}, seen: map[int]float32{}, stopAt: at}
		l, err := New(enginetest.Go(t), recipe(t, "max_steps: 5\n"), o, &figures{})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Run(t.Context(), func(int) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if l.Step() != at || l.Stopped() != "train: stopped by rule: enough" {
			t.Errorf("step %d, stopped %q", l.Step(), l.Stopped())
		}
	}
}

func TestNoLookWhereThereIsNothingToDo(t *testing.T) {
	o := &watched{line: line{batch: 8, nanAt: -1}, seen: map[int]float32{}, stopAt: -1, blind: map[int]bool{1: true, 3: true}}
	l, err := New(enginetest.Go(t), recipe(t, "max_steps: 3\n"), o, &figures{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context(), func(int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"look 0", "batch 0", "batch 1", "look 2", "batch 2"}; !slices.Equal(o.order, want) {
		t.Errorf("called %v, want %v", o.order, want)
	}
}

// chooser finds the looks at some steps better than all before, and ends at stopAt.
type chooser struct {
	layers
	better  []int
	stopAt  int
	best    int
	weights map[int][]float32 // step -> what a look saw
}

func (*chooser) Looks(int) bool { return true }

func (c *chooser) Look(_ context.Context, step int, weights map[string]*tensors.Tensor) error {
	if slices.Contains(c.better, step) {
		c.best = step
	}
	c.weights[step] = numbers(weights)
	if step == c.stopAt {
		return ErrStop
	}
	return nil
}

func (c *chooser) Best() int                   { return c.best }
func (c *chooser) Figures() map[string]float64 { return nil }

func numbers(weights map[string]*tensors.Tensor) (out []float32) {
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		out = append(out, tensors.MustCopyFlatData[float32](weights[name])...)
	}
	return out
}

func TestAStoppedRunGoesBackToTheBestStep(t *testing.T) {
	for _, lora := range []string{"max_steps: 20\n", loraRecipe} {
		for _, better := range [][]int{nil, {2}, {1, 3}} {
			o, dir := &chooser{layers: layers{line{batch: 8, nanAt: -1}}, better: better, stopAt: 9, weights: map[int][]float32{}}, t.TempDir()
			r := recipe(t, lora)
			r.MaxSteps, r.Groups, r.EMA = 20, nil, 0
			l, err := New(enginetest.Go(t), r, o, &figures{})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Run(t.Context(), func(int) error { return l.Save(dir) }); err != nil {
				t.Fatal(err)
			}
			if l.Step() != 9 {
				t.Fatalf("stopped at step %d", l.Step())
			}
			if err := l.Return(dir); err != nil {
				t.Fatal(err)
			}
			weights, err := l.Weights()
			if err != nil {
				t.Fatal(err)
			}
			if l.Step() != o.best || !slices.Equal(numbers(weights), o.weights[o.best]) {
				t.Errorf("%q, better at %v: step %d with weights %v; step %d had %v", lora, better, l.Step(), numbers(weights), o.best, o.weights[o.best])
			}
			if slices.Equal(o.weights[o.best], o.weights[9]) {
				t.Error("the weights did not move: the test shows nothing")
			}
			all, err := checkpoints(dir)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{checkpointOf(dir, 8), checkpointOf(dir, 9)}
			if o.best > 0 {
				want = append([]string{checkpointOf(dir, o.best)}, want...)
			}
			if !slices.Equal(all, want) {
				t.Errorf("kept %v, want %v", all, want)
			}
		}
	}
}

// A finished run that is called again is looked at again, from the journal, so that its rule ends it again.
func TestAFinishedRunIsLookedAtAgain(t *testing.T) {
	o := &watched{line: line{batch: 8, nanAt: -1}, seen: map[int]float32{}, stopAt: 3}
	dir, r := t.TempDir(), recipe(t, "max_steps: 3\n")
	for range 2 {
		l, err := New(enginetest.Go(t), r, o, &figures{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Resume(dir); err != nil {
			t.Fatal(err)
		}
		if err := l.Run(t.Context(), func(int) error { return l.Save(dir) }); err != nil {
			t.Fatal(err)
		}
		if l.Step() != 3 || l.Stopped() == "" {
			t.Errorf("step %d, stopped %q", l.Step(), l.Stopped())
		}
	}
}

func TestWithoutAChoiceTheLastStepStays(t *testing.T) {
	o := &watched{line: line{batch: 8, nanAt: -1}, seen: map[int]float32{}, stopAt: 2}
	l, err := New(enginetest.Go(t), recipe(t, "max_steps: 5\n"), o, &figures{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context(), func(int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := l.Return(t.TempDir()); err != nil || l.Step() != 2 || l.Best() != -1 {
		t.Errorf("step %d, best %d (%v)", l.Step(), l.Best(), err)
	}
}
