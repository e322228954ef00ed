package train

import (
	"context"
	"fmt"
	"math"
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
}

func (w *watched) Look(_ context.Context, step int, weights map[string]*tensors.Tensor) error {
	w.seen[step] = tensors.MustCopyFlatData[float32](weights["w"])[0]
	w.order = append(w.order, fmt.Sprint("look ", step))
	if step == w.stopAt {
		return fmt.Errorf("%w: enough", ErrStop)
	}
	return nil
}

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
