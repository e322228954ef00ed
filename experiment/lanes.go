package experiment

import (
	"context"
	"slices"
	"sync"
	"time"
)

// lanes are prompts that are worked on at a time. What a lane needs computed waits until no lane runs, so that what many
// prompts want of one model is computed together and fills the tiles that it is computed in. Results do not depend on it:
// the bits of a row are the same in any company.
type lanes struct {
	mu      sync.Mutex
	most    int       // requests that are answered together
	running int       // lanes that do not wait, and may want more
	waiting []*ticket // in the order of arrival
	batches []*batch  // being computed
	last    time.Time // when the list of batches last changed
}

// hands is how many batches are computed at a time: while one is on the engine, another lays out its inputs.
const hands = 2

// ticket is what a lane waits for.
type ticket struct {
	ctx    context.Context
	from   answerer
	wanted any
	err    error
	done   chan struct{}
}

// answerer answers tickets of its own together and says how many things it computed.
type answerer interface {
	answer(ctx context.Context, tickets []*ticket) (computed int, err error)
	spend(computed int, seconds float64)
}

// batch is tickets that are answered together. Its seconds are its share of the machine: two batches at a time get half
// a second each of a second.
type batch struct {
	tickets []*ticket
	seconds float64
}

type lanesKey struct{}

// wait has the answerer answer what is wanted: at once, or together with other lanes if the context is a lane's.
func wait(ctx context.Context, from answerer, wanted any) error {
	t := &ticket{ctx: ctx, from: from, wanted: wanted, done: make(chan struct{})}
	l, ok := ctx.Value(lanesKey{}).(*lanes)
	if !ok {
		begun := time.Now()
		n, err := from.answer(ctx, []*ticket{t})
		from.spend(n, time.Since(begun).Seconds())
		return err
	}
	l.mu.Lock()
	l.waiting = append(l.waiting, t)
	l.running--
	l.start()
	l.mu.Unlock()
	<-t.done
	return t.err
}

// run works on all items, at most n at a time, until one fails.
func run[T any](ctx context.Context, n int, items []T, work func(ctx context.Context, item T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n = max(1, min(n, len(items)))
	l := &lanes{most: (n + hands - 1) / hands, running: n, last: time.Now()}
	inLane := context.WithValue(ctx, lanesKey{}, l)
	queue := make(chan T, len(items))
	for _, item := range items {
		queue <- item
	}
	close(queue)
	var lane sync.WaitGroup
	var once sync.Once
	var failed error
	for range n {
		lane.Go(func() {
			defer l.leave()
			for item := range queue {
				err := ctx.Err()
				if err == nil {
					err = work(inLane, item)
				}
				if err != nil {
					once.Do(func() { failed = err; cancel() })
					return
				}
			}
		})
	}
	lane.Wait()
	return failed
}

func (l *lanes) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	l.start()
}

// start begins batches if no lane runs and a hand is free. The caller holds the lock.
func (l *lanes) start() {
	for l.running == 0 && len(l.waiting) > 0 && len(l.batches) < hands {
		b, from := &batch{}, l.waiting[0].from
		l.waiting = slices.DeleteFunc(l.waiting, func(t *ticket) bool {
			if t.from != from || len(b.tickets) == l.most {
				return false
			}
			b.tickets = append(b.tickets, t)
			return true
		})
		l.share()
		l.batches = append(l.batches, b)
		go l.compute(b, from)
	}
}

func (l *lanes) compute(b *batch, from answerer) {
	n, err := from.answer(b.tickets[0].ctx, b.tickets)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.share()
	l.batches = slices.DeleteFunc(l.batches, func(x *batch) bool { return x == b })
	from.spend(n, b.seconds)
	l.running += len(b.tickets)
	for _, t := range b.tickets {
		t.err = err
		close(t.done)
	}
}

// share gives the batches that are being computed the time since it was last called. The caller holds the lock.
func (l *lanes) share() {
	now := time.Now()
	for _, b := range l.batches {
		b.seconds += now.Sub(l.last).Seconds() / float64(len(l.batches))
	}
	l.last = now
}
