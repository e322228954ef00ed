package experiment

import (
	"context"
	"errors"
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/prng"
	"imagecot/verify/beam"
	"imagecot/verify/bestofn"
	"imagecot/verify/orm"
	"imagecot/verify/parm"
	"imagecot/verify/parmpp"
	"imagecot/verify/prm"
	"imagecot/verify/questions"
	"imagecot/verify/search"
	"imagecot/verify/single"
	"imagecot/verify/threshold"
)

// counted is the toy generator and a moody judge of it, with the sizes of the batches that they were asked for.
type counted struct {
	mu       sync.Mutex
	toy      toy
	left     int // decoding steps until stop is called
	stop     func()
	advances []int
	decoded  int
	asked    int
	asks     []int
	wrote    int
}

func (c *counted) Steps() int { return c.toy.Steps() }
func (c *counted) Start(ctx context.Context, p cot.Prompt, seeds []uint64) ([]*cot.Path, error) {
	return c.toy.Start(ctx, p, seeds)
}
func (c *counted) Fork(p *cot.Path, seed uint64) *cot.Path { return c.toy.Fork(p, seed) }
func (c *counted) Advance(ctx context.Context, paths []*cot.Path) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left -= len(paths); c.stop != nil && c.left < 0 {
		c.stop()
		return context.Canceled
	}
	c.advances = append(c.advances, len(paths))
	return c.toy.Advance(ctx, paths)
}

func (c *counted) Decode(ctx context.Context, paths []*cot.Path) ([]image.Image, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.decoded += len(paths)
	return c.toy.Decode(ctx, paths)
}

func (c *counted) Correct(ctx context.Context, p cot.Prompt, bad *cot.Path, reason string, seed uint64) (*cot.Path, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.toy.Correct(ctx, p, bad, reason, seed)
}

// Ask is of two minds about every image: yes, no and how sure follow from the pixels and the kind of question.
func (c *counted) Ask(_ context.Context, qs []cot.Question) ([]cot.Verdict, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked, c.asks = c.asked+len(qs), append(c.asks, len(qs))
	out := make([]cot.Verdict, len(qs))
	for i, q := range qs {
		pixels := hashImage(q.Image)
		yes := prng.New(uint64(pixels[0])|uint64(pixels[1])<<8|uint64(pixels[2])<<16, len(q.Kind), prng.Fake).Float64()
		if q.Kind == cot.Clarity {
			yes = math.Sqrt(yes)
		}
		out[i] = cot.Verdict{LogPYes: math.Log(yes), LogPNo: math.Log1p(-yes)}
	}
	return out, nil
}

func (c *counted) Explain(_ context.Context, q cot.Question) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrote++
	return fmt.Sprintf("brightness %d", brightness(q.Image)), nil
}

// strategyOf makes the real strategies.
func strategyOf(name string, judge cot.Judge, e cot.Explainer, c cot.Corrector) cot.Strategy {
	words, err := questions.Get("paper")
	if err != nil {
		panic(err)
	}
	switch name {
	case "single":
		return single.Strategy{}
	case "oracle":
		return bestofn.Strategy{Name: name, Score: func(_ context.Context, _ cot.Prompt, img image.Image) (float64, error) {
			return float64(brightness(img)), nil
		}}
	case "orm":
		return orm.Strategy{Judge: judge, Questions: words}
	case "prm":
		return prm.Strategy{Judge: judge, Questions: words}
	case "parm":
		return parm.Strategy{Judge: judge, Questions: words}
	case "parmpp":
		return parmpp.Strategy{Judge: judge, Explainer: e, Corrector: c, Questions: words}
	case "beam":
		return beam.Strategy{Judge: judge, Questions: words}
	case "search":
		return search.Strategy{Judge: judge, Questions: words}
	case "threshold":
		return threshold.Strategy{Judge: judge, Questions: words, Wave: 2}
	}
	panic(name)
}

// realRows are rows of every strategy, all but one at N = 6 and some at less.
func realRows() []TableRow {
	row := func(strategy string, n, most int) TableRow {
		return TableRow{Table: "t", Name: fmt.Sprint(strategy, n, most), Title: strategy, Generator: "toy", Strategy: strategy, N: n, Most: most}
	}
	rows := []TableRow{row("single", 1, 0), row("single", 1, 2), row("orm", 2, 1)}
	for _, s := range []string{"oracle", "orm", "prm", "parm", "parmpp", "beam", "search", "threshold"} {
		rows = append(rows, row(s, 6, 0), row(s, 3, 0))
	}
	return rows
}

func realReproduction(dir string, workers int, c *counted, rows ...TableRow) Reproduction {
	r := Default()
	r.N = 6
	var prompts []geneval.Metadata
	for _, class := range []string{"circle", "ring", "star", "heart", "square", "cross", "moon"} {
		prompts = append(prompts, geneval.Templates{}.Single(class))
	}
	return Reproduction{
		Recipe: r, Tables: []PaperTable{{Name: "t", Rows: rows}}, Dir: dir, Workers: workers, Prompts: prompts,
		Open: func(context.Context, string) (Bench, error) {
			judge, corrector := newMemoJudge(c), newMemoCorrector(c)
			return Bench{Generator: c, Identity: "toy", Evaluate: bright, Close: func() {}, Arm: func(name string) (Arm, string, error) {
				return Arm{
					Name: name, Strategy: strategyOf(name, judge, judge, corrector), judge: judge, corrector: corrector, OnePath: name == "single",
					WholePaths: name == "single" || name == "oracle" || name == "orm",
					Forks:      name == "prm" || name == "beam" || name == "search" || name == "parmpp",
				}, "", nil
			}}, nil
		},
	}
}

// TestLanesComputeTheSameTogether: several prompts at a time give the results of one at a time from as many decoding steps,
// step images and questions, in fewer and larger batches.
func TestLanesComputeTheSameTogether(t *testing.T) {
	apart, together := &counted{}, &counted{}
	want, err := realReproduction(t.TempDir(), 1, apart, realRows()...).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := realReproduction(t.TempDir(), 7, together, realRows()...).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(timeless(got), timeless(want)) {
		t.Error("results differ")
	}
	if apart.toy.advanced != together.toy.advanced || apart.decoded != together.decoded || apart.asked != together.asked || apart.wrote != together.wrote {
		t.Errorf("together %d steps, %d images, %d questions, %d reasons; apart %d, %d, %d, %d",
			together.toy.advanced, together.decoded, together.asked, together.wrote, apart.toy.advanced, apart.decoded, apart.asked, apart.wrote)
	}
	if apart.wrote == 0 || 2*len(together.advances) > len(apart.advances) || 2*len(together.asks) > len(apart.asks) {
		t.Errorf("together %d and %d batches of steps and questions, apart %d and %d", len(together.advances), len(together.asks), len(apart.advances), len(apart.asks))
	}
}

// TestRowsDoNotKnowOfEachOther: a row alone gives what it gives beside all others, and costs what its strategy spends
// on a generator and a judge that remember nothing.
func TestRowsDoNotKnowOfEachOther(t *testing.T) {
	all, err := realReproduction(t.TempDir(), 4, &counted{}, realRows()...).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	timeless(all)
	for _, row := range realRows() {
		r := realReproduction(t.TempDir(), 2, &counted{}, row)
		alone, err := r.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, _ := all.Row(row)
		if want, _ := timeless(alone).Row(row); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: alone %+v, beside others %+v", row.Name, want.Cost, got.Cost)
		}
		var sum cot.Cost
		selections := got.Selections / len(r.Prompts)
		for _, m := range r.Prompts {
			for g := range selections {
				var seeds []uint64
				for k := range row.N {
					seeds = append(seeds, prng.PathSeed(r.Recipe.Seed, m.Prompt, g*row.N+k))
				}
				fresh := &counted{}
				sel, err := strategyOf(row.Strategy, fresh, fresh, fresh).Select(t.Context(), fresh, cot.Prompt{Text: m.Prompt}, seeds)
				if err != nil {
					t.Fatal(err)
				}
				sum = sum.Add(sel.Cost)
			}
		}
		k := float64(got.Selections)
		if want := (Cost{float64(sum.DecodingSteps) / k, float64(sum.JudgeCalls) / k, float64(sum.ImagesDecoded) / k, 0}); got.Cost != want {
			t.Errorf("%s: cost %+v, want %+v", row.Name, got.Cost, want)
		}
		if row.Most > 0 && selections != row.Most {
			t.Errorf("%s: %d selections a prompt, want %d", row.Name, selections, row.Most)
		}
	}
}

// TestKilledLanesEndAlike stops runs of several prompts at a time at random steps, some of them twice, and goes on.
func TestKilledLanesEndAlike(t *testing.T) {
	whole := &counted{}
	want, err := realReproduction(t.TempDir(), 1, whole, realRows()...).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	timeless(want)
	rng := rand.New(rand.NewPCG(3, 4))
	for k := range 20 {
		dir := t.TempDir()
		for range 1 + k%2 {
			ctx, cancel := context.WithCancel(t.Context())
			left := rng.IntN(whole.toy.advanced / 2)
			_, err := realReproduction(dir, 1+k%5, &counted{left: left, stop: cancel}, realRows()...).Run(ctx)
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("stopped after %d of %d steps: error %v", left, whole.toy.advanced, err)
			}
		}
		got, err := realReproduction(dir, 1+k%3, &counted{}, realRows()...).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(timeless(got), want) {
			t.Errorf("kill %d: the results differ", k)
		}
	}
}

// TestLanesFailTogether: a failure of a batch ends the run with the failure, not with what it made others miss.
func TestLanesFailTogether(t *testing.T) {
	broken := errors.New("broken")
	m := newMemory(func(context.Context, []int) ([]int, error) { return nil, broken })
	items := []int{0, 1, 2, 3, 4}
	err := run(t.Context(), 3, items, func(ctx context.Context, i int) error {
		_, err := m.get(ctx, []work[int]{{"p", digest{byte(i)}, i}})
		return err
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	m.compute = func(_ context.Context, in []int) ([]int, error) { return in[1:], nil }
	if _, err := m.get(t.Context(), []work[int]{{"p", digest{}, 1}}); err == nil {
		t.Error("an answer that is missing went unnoticed")
	}
}

// TestEstimate: what is announced is about what is then computed.
func TestEstimate(t *testing.T) {
	c := &counted{}
	r := realReproduction(t.TempDir(), 2, c, realRows()[3:6]...) // the oracle, and the ORM at 6 and 3
	var told string
	r.Note = func(format string, args ...any) { told = fmt.Sprintf(format, args[:6]...) }
	if _, err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := "generator toy: 7 prompts to be done in 3 measurements, about 168 decoding steps, 42 step images and 42 questions"; told[:len(want)] != want {
		t.Errorf("told %q, want %q", told, want)
	}
	told = ""
	if _, err := r.Run(t.Context()); err != nil || told != "" {
		t.Errorf("a finished run announced %q, error %v", told, err)
	}
}
