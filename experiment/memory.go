package experiment

import (
	"context"
	"fmt"
	"sync"
)

// memory remembers work of one kind, and has what it does not know computed, each once, together with what other lanes
// want. It is safe for concurrent use. What is known of a prompt stays until the prompt is forgotten.
type memory[In, Out any] struct {
	compute func(ctx context.Context, in []In) ([]Out, error)

	mu      sync.Mutex
	known   map[string]map[digest]Out // by prompt
	count   int                       // computed since the last take
	seconds float64                   // that it took
}

func newMemory[In, Out any](compute func(ctx context.Context, in []In) ([]Out, error)) *memory[In, Out] {
	return &memory[In, Out]{compute: compute, known: map[string]map[digest]Out{}}
}

// one makes a batch's function of one that does a single thing.
func one[In, Out any](do func(ctx context.Context, in In) (Out, error)) func(ctx context.Context, in []In) ([]Out, error) {
	return func(ctx context.Context, in []In) ([]Out, error) {
		out := make([]Out, len(in))
		for i := range in {
			var err error
			if out[i], err = do(ctx, in[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
}

// work is something of a prompt that may be known.
type work[In any] struct {
	prompt string
	key    digest
	in     In
}

// wanted is what a lane waits for.
type wanted[In, Out any] struct {
	work []work[In]
	out  []Out
}

// get returns what each work comes to.
func (m *memory[In, Out]) get(ctx context.Context, all []work[In]) ([]Out, error) {
	w := wanted[In, Out]{all, make([]Out, len(all))}
	if len(m.recall(&w)) == 0 {
		return w.out, nil
	}
	if err := wait(ctx, m, &w); err != nil {
		return nil, err
	}
	return w.out, nil
}

// recall fills in what is known and returns the indices of the rest.
func (m *memory[In, Out]) recall(w *wanted[In, Out]) []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	var missing []int
	for i, x := range w.work {
		var ok bool
		if w.out[i], ok = m.known[x.prompt][x.key]; !ok {
			missing = append(missing, i)
		}
	}
	return missing
}

// answer computes what is not known of what the tickets want.
func (m *memory[In, Out]) answer(ctx context.Context, tickets []*ticket) (int, error) {
	type name struct {
		prompt string
		key    digest
	}
	at := map[name]int{} // where its outcome stands
	var todo []In
	fill := make([]func(out []Out), 0, len(tickets))
	for _, t := range tickets {
		w := t.wanted.(*wanted[In, Out])
		missing := m.recall(w)
		names := make([]name, len(missing))
		for k, i := range missing {
			x := w.work[i]
			names[k] = name{x.prompt, x.key}
			if _, ok := at[names[k]]; !ok {
				at[names[k]] = len(todo)
				todo = append(todo, x.in)
			}
		}
		fill = append(fill, func(out []Out) {
			for k, i := range missing {
				w.out[i] = out[at[names[k]]]
			}
		})
	}
	if len(todo) == 0 {
		return 0, nil
	}
	out, err := m.compute(ctx, todo)
	if err != nil {
		return 0, err
	}
	if len(out) != len(todo) {
		return 0, fmt.Errorf("experiment: %d answers of %T to %d questions", len(out), out, len(todo))
	}
	for _, f := range fill {
		f(out)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, i := range at {
		if m.known[n.prompt] == nil {
			m.known[n.prompt] = map[digest]Out{}
		}
		m.known[n.prompt][n.key] = out[i]
	}
	return len(todo), nil
}

func (m *memory[In, Out]) spend(computed int, seconds float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if computed > 0 {
		m.count, m.seconds = m.count+computed, m.seconds+seconds
	}
}

// take returns how much was computed since the last call, and how long it took.
func (m *memory[In, Out]) take() (count int, seconds float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	count, seconds = m.count, m.seconds
	m.count, m.seconds = 0, 0
	return count, seconds
}

// forget drops what is known of a prompt.
func (m *memory[In, Out]) forget(prompt string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.known, prompt)
}
