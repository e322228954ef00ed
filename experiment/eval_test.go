package experiment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/prng"
)

// toy decodes 4 tokens in 4 steps; each token is drawn from the path seed and the step. Its image shows the tokens.
type toy struct{ advanced, decoded int }

func (*toy) Steps() int { return 4 }
func (*toy) Start(_ context.Context, p cot.Prompt, seeds []uint64) ([]*cot.Path, error) {
	var out []*cot.Path
	for i, s := range seeds {
		out = append(out, &cot.Path{Index: i, Seed: s, Prompt: p, Tokens: []int32{-1, -1, -1, -1}, Sample: make([]int32, 4)})
	}
	return out, nil
}

// Correct makes a new path from the seed.
func (g *toy) Correct(ctx context.Context, p cot.Prompt, _ *cot.Path, _ string, seed uint64) (*cot.Path, error) {
	paths, err := g.Start(ctx, p, []uint64{seed})
	for range g.Steps() {
		err = errors.Join(err, g.Advance(ctx, paths))
	}
	return paths[0], err
}

func (g *toy) Advance(_ context.Context, paths []*cot.Path) error {
	for _, p := range paths {
		g.advanced++
		v := int32(prng.Derive(p.Seed, "toy", uint64(p.Step)) % 251)
		p.Tokens[p.Step] = v
		for i := range p.Sample {
			p.Sample[i] = max(p.Tokens[i], 0)
		}
		p.Step++
		p.LogConf = float64(v)
	}
	return nil
}

func (*toy) Fork(p *cot.Path, seed uint64) *cot.Path {
	c := *p
	c.Seed, c.Tokens, c.Sample = seed, bytesOf(p.Tokens), bytesOf(p.Sample)
	return &c
}
func bytesOf(x []int32) []int32 { return append([]int32(nil), x...) }
func (g *toy) Decode(_ context.Context, paths []*cot.Path) ([]image.Image, error) {
	out := make([]image.Image, len(paths))
	for i, p := range paths {
		g.decoded++
		img := image.NewGray(image.Rect(0, 0, 4, 1))
		for x, v := range p.Sample {
			img.SetGray(x, 0, color.Gray{Y: uint8(v)})
		}
		out[i] = img
	}
	return out, nil
}

// brightest asks the judge about every final image and takes the likeliest yes; it gives up dark paths at step 2.
type brightest struct {
	judge cot.Judge
	cut   bool
}

func (s brightest) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	paths, err := g.Start(ctx, p, seeds)
	if err != nil {
		return cot.Selection{}, err
	}
	sel := cot.Selection{Prompt: p, Strategy: "brightest"}
	live := paths
	for step := range g.Steps() {
		if s.cut && step == 2 {
			live = live[:1+len(live)/2]
		}
		if err := g.Advance(ctx, live); err != nil {
			return cot.Selection{}, err
		}
		sel.Cost.DecodingSteps += len(live)
	}
	imgs, err := g.Decode(ctx, live)
	if err != nil {
		return cot.Selection{}, err
	}
	var qs []cot.Question
	for i, path := range live {
		qs = append(qs, cot.Question{Kind: cot.Outcome, Prompt: p, Text: "bright?", Image: imgs[i], Path: path.Index, Step: path.Step})
	}
	vs, err := s.judge.Ask(ctx, qs)
	if err != nil {
		return cot.Selection{}, err
	}
	sel.Cost.JudgeCalls = len(qs)
	for i, path := range live {
		sel.Traces = append(sel.Traces, cot.PathTrace{Index: path.Index, Seed: path.Seed, Parent: -1, Steps: path.Step})
		if vs[i].LogPYes >= vs[sel.WinnerAt].LogPYes {
			sel.WinnerAt, sel.Winner = i, path
		}
	}
	return sel, nil
}

type lightMeter struct{ asked int }

func (j *lightMeter) Ask(_ context.Context, qs []cot.Question) ([]cot.Verdict, error) {
	out := make([]cot.Verdict, len(qs))
	for i, q := range qs {
		j.asked++
		light := 0
		if q.Image != nil {
			light = brightness(q.Image)
		}
		for _, token := range q.Tokens {
			if q.Image == nil {
				light += int(token)
			}
		}
		out[i] = cot.Verdict{LogPYes: -1 / (1 + float64(light)), LogPNo: -1}
		if q.Kind == cot.Reflection && light < 700 {
			out[i].LogPNo = -1e-9
		}
	}
	return out, nil
}

func (j *lightMeter) Explain(_ context.Context, q cot.Question) (string, error) {
	j.asked++
	return fmt.Sprintf("brightness %d is not enough", brightness(q.Image)), nil
}

func brightness(img image.Image) int {
	sum := 0
	for x := range 4 {
		r, _, _, _ := img.At(x, 0).RGBA()
		sum += int(r >> 8)
	}
	return sum
}

func bright(_ context.Context, img image.Image, _ geneval.Metadata) (geneval.Result, error) {
	return geneval.Result{Correct: brightness(img) > 500}, nil
}

func encode(img image.Image, _ cot.Selection) ([]byte, error) {
	var b bytes.Buffer
	err := png.Encode(&b, img)
	return b.Bytes(), err
}

func toyEvaluation(dir string, g cot.Generator, cut bool) Evaluation {
	t := geneval.Templates{}
	r := Default()
	r.N = 3
	return Evaluation{
		Recipe: r, Prompts: []geneval.Metadata{t.Single("circle"), t.Counting("star", 2), t.Colour("red", "ring")},
		Images: 2, Dir: dir, Generator: g, Evaluate: bright, Encode: encode,
		Arm: Arm{Name: "brightest", Strategy: brightest{judge: &lightMeter{}, cut: cut}, WholePaths: !cut},
	}
}

func hashTree(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "seconds.jsonl" {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		fmt.Fprintf(h, "%s %x\n", rel, sha256.Sum256(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestInterruptedRunEqualsUninterrupted stops the run after every possible number of decoding steps and resumes it.
func TestInterruptedRunEqualsUninterrupted(t *testing.T) {
	whole := t.TempDir()
	g := &toy{}
	want, err := toyEvaluation(whole, g, true).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(want.Rows) != 6 || want.Cost.JudgeCalls == 0 || want.Cost.Seconds <= 0 {
		t.Fatalf("outcome %+v", want)
	}
	sum := hashTree(t, whole)
	for stop := 1; stop < g.advanced; stop += 3 {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		_, err := toyEvaluation(dir, &stopping{Generator: &toy{}, left: stop, cancel: cancel}, true).Run(ctx)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("stop after %d: error %v", stop, err)
		}
		got, err := toyEvaluation(dir, &toy{}, true).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if hashTree(t, dir) != sum {
			t.Fatalf("stop after %d: the folder differs from an uninterrupted run's", stop)
		}
		if got.Cost.DecodingSteps != want.Cost.DecodingSteps || got.Scores.Overall != want.Scores.Overall {
			t.Fatalf("stop after %d: %+v", stop, got)
		}
	}
	again := &toy{}
	if _, err := toyEvaluation(whole, again, true).Run(t.Context()); err != nil || again.advanced != 0 {
		t.Errorf("a finished run was computed again: %d steps, error %v", again.advanced, err)
	}
}

// stopping cancels after a number of advances.
type stopping struct {
	cot.Generator
	left   int
	cancel func()
}

func (s *stopping) Advance(ctx context.Context, paths []*cot.Path) error {
	if s.left -= len(paths); s.left < 0 {
		s.cancel()
		return ctx.Err()
	}
	return s.Generator.Advance(ctx, paths)
}

func TestEvaluationRefusesAnotherRunsFolder(t *testing.T) {
	dir := t.TempDir()
	if _, err := toyEvaluation(dir, &toy{}, true).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := toyEvaluation(dir, &toy{}, true)
	e.Engine = "another"
	if _, err := e.Run(t.Context()); !errors.Is(err, ErrOtherRun) {
		t.Errorf("another engine: error %v, want ErrOtherRun", err)
	}
	e = toyEvaluation(dir, &toy{}, true)
	e.Recipe.Seed++
	if _, err := e.Run(t.Context()); !errors.Is(err, ErrOtherRun) {
		t.Errorf("error %v, want ErrOtherRun", err)
	}
	unlock, err := e.claim()
	if err == nil {
		unlock()
		t.Error("claimed")
	}
	unlock, err = toyEvaluation(dir, &toy{}, true).claim()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := toyEvaluation(dir, &toy{}, true).Run(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v, want ErrBusy", err)
	}
}

// TestSharedPathsChangeNothing compares curves from one bank with strategies that run alone.
func TestSharedPathsChangeNothing(t *testing.T) {
	prompts := toyEvaluation("", nil, true).Prompts
	meter, bank := &lightMeter{}, &toy{}
	memo := newMemoJudge(meter)
	r := Default()
	r.N = 6
	c := Curves{
		Recipe: r, Prompts: prompts, Ns: []int{1, 2, 6}, Dir: t.TempDir(), Generator: bank, Evaluate: bright,
		Arms: []Arm{
			{Name: "all", Strategy: brightest{judge: memo}, WholePaths: true, judge: memo},
			{Name: "cut", Strategy: brightest{judge: memo, cut: true}, judge: memo},
		},
	}
	got, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := len(prompts) * 6 * 4; bank.advanced != want || bank.decoded != len(prompts)*6 {
		t.Errorf("bank took %d steps and decoded %d images, want %d and %d", bank.advanced, bank.decoded, want, len(prompts)*6)
	}
	if meter.asked != len(prompts)*6 {
		t.Errorf("judge was asked %d times, want %d", meter.asked, len(prompts)*6)
	}
	for _, arm := range []struct {
		name string
		cut  bool
	}{{"all", false}, {"cut", true}} {
		for _, n := range c.Ns {
			rows := got.Rows[arm.name][n]
			for i, m := range prompts {
				for g := range 6 / n {
					var seeds []uint64
					for j := range n {
						seeds = append(seeds, prng.PathSeed(r.Seed, m.Prompt, g*n+j))
					}
					_, img, err := choose(t.Context(), &toy{}, Arm{Strategy: brightest{judge: &lightMeter{}, cut: arm.cut}}, cot.Prompt{Text: m.Prompt}, seeds)
					if err != nil {
						t.Fatal(err)
					}
					if want, _ := bright(t.Context(), img, m); rows[i*(6/n)+g].Correct != want.Correct {
						t.Errorf("%s, N=%d, prompt %d, group %d: the bank changes the choice", arm.name, n, i, g)
					}
				}
			}
		}
	}
	for _, p := range got.Curves[1].Points {
		if want := float64(2*p.N + 2*(1+p.N/2)); p.DecodingSteps != want {
			t.Errorf("cut at N=%d counts %v steps, want %v", p.N, p.DecodingSteps, want)
		}
	}
	c.Generator = &toy{}
	again, err := c.Run(t.Context())
	if err != nil || c.Generator.(*toy).advanced != 0 {
		t.Fatalf("finished prompts were computed again, error %v", err)
	}
	if again.Curves[0].Points[2] != got.Curves[0].Points[2] {
		t.Error("curves from disk differ")
	}
}

func TestRecipe(t *testing.T) {
	bad := map[string]func(*Recipe){
		`unknown strategy "best"`: func(r *Recipe) { r.Strategy = "best" },
		"n is 0":                  func(r *Recipe) { r.N = 0 },
		"steps is 0":              func(r *Recipe) { r.Steps = 0 },
		"guidance is -1":          func(r *Recipe) { r.Guidance = -1 },
		"no generator":            func(r *Recipe) { r.Generator = "" },
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range bad {
		r := Default()
		change(&r)
		if err := r.Validate(); !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	path := filepath.Join(t.TempDir(), "r.yaml")
	for text, ok := range map[string]bool{"n: 4\nseed: 7\n": true, "": true, "m: 4\n": false, "n: 4\n---\nn: 5\n": false, "n: [1]\n": false} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := Default()
		if err := ReadRecipe(path, &r); (err == nil) != ok {
			t.Errorf("%q: error %v", text, err)
		}
	}
}
