package objective

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/atomicfile"
	"imagecot/internal/enginetest"
	"imagecot/internal/prng"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/train"
	"imagecot/world"

	"github.com/gomlx/gomlx/core/tensors"
)

// dice is a generator whose paths sample random codes; the evaluator below calls every other path right.
type dice struct{}

func (dice) Steps() int { return 18 }
func (dice) Start(_ context.Context, p cot.Prompt, seeds []uint64) ([]*cot.Path, error) {
	var out []*cot.Path
	for i, s := range seeds {
		out = append(out, &cot.Path{Index: i, Seed: s, Prompt: p, Sample: make([]int32, 64)})
	}
	return out, nil
}

func (dice) Advance(_ context.Context, paths []*cot.Path) error {
	for _, p := range paths {
		p.Step++
		for i := range p.Sample {
			p.Sample[i] = int32(prng.Derive(p.Seed, "dice", uint64(p.Step), uint64(i)) % 1024)
		}
		p.Sample[0] = int32(p.Seed % 2) // the fate of the path
	}
	return nil
}

func (dice) Fork(p *cot.Path, seed uint64) *cot.Path {
	c := *p
	c.Seed, c.Sample = seed&^1|p.Seed&1, slices.Clone(p.Sample) // a roll-out shares its path's fate
	return &c
}

type fated struct {
	image.Image
	right bool
}

func (dice) Decode(_ context.Context, paths []*cot.Path) ([]image.Image, error) {
	var out []image.Image
	for _, p := range paths {
		out = append(out, fated{right: p.Sample[0] == 1})
	}
	return out, nil
}

func fate(_ context.Context, img image.Image, _ geneval.Metadata) (geneval.Result, error) {
	return geneval.Result{Correct: img.(fated).right}, nil
}

// rewardFiles writes everything that reward models start from: data of all kinds, an untrained tokenizer and judge.
func rewardFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var prompts []geneval.Metadata
	for _, task := range []string{geneval.Colors, geneval.Counting, geneval.Position} {
		prompts = append(prompts, world.TrainPrompts(task)[:6]...)
	}
	ranking := curate.Ranking{Dir: filepath.Join(dir, "ranking"), Prompts: prompts, Each: 6, Seed: 1, PartSize: 8, Generator: dice{}, Evaluate: fate}
	steps := curate.Steps{Dir: filepath.Join(dir, "steps"), Prompts: prompts, Each: 4, At: []int{3, 18}, Rollouts: 1, Seed: 1, PartSize: 8, Generator: dice{}, Evaluate: fate}
	parm := curate.ParmData{Dir: filepath.Join(dir, "parm"), From: ranking.Dir, Labels: curate.DefaultParmLabels(18), PartSize: 64}
	early := parm
	early.Dir, early.Labels.PotentialFrom = filepath.Join(dir, "early"), 6
	for _, run := range []func(context.Context) error{ranking.Run, steps.Run, parm.Run, early.Run} {
		if err := run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	tok, err := textTokenizer()
	if err != nil {
		t.Fatal(err)
	}
	cfg := llavaov.Tiny(tok.VocabSize())
	text, err := cfg.JSON()
	if err != nil {
		t.Fatal(err)
	}
	saveModel(t, filepath.Join(dir, "judge"), text, llavaov.Init(cfg, prng.New(1, 0, prng.Init).Rand()))
	tiny := magvit.Tiny()
	if text, err = json.Marshal(tiny); err != nil {
		t.Fatal(err)
	}
	saveModel(t, filepath.Join(dir, "tokenizer"), text, magvit.Init(tiny, prng.New(2, 0, prng.Init).Rand()))
	return dir
}

func saveModel(t *testing.T, dir string, config []byte, weights map[string]*tensors.Tensor) {
	t.Helper()
	var all []ckpt.Tensor
	for name, w := range weights {
		c, err := ckpt.FromTensor(name, w, ckpt.BF16)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ckpt.Write(filepath.Join(dir, ckpt.ModelFile), all, nil); err != nil {
		t.Fatal(err)
	}
}

func rewardRecipe(dir, reward, from string) train.Recipe {
	return train.Recipe{
		Kind: "judge", Name: "t", Seed: 7, MaxSteps: 2, Batch: 10, Accum: 1, LR: 1e-3, Beta1: .9, Beta2: .999, Epsilon: 1e-8, LogEvery: 1, SaveEvery: 1,
		InitFrom: filepath.Join(dir, "judge"),
		Data:     map[string]any{"reward": reward, "from": filepath.Join(dir, from), "tokenizer": filepath.Join(dir, "tokenizer"), "renders": 2},
	}
}

// rewardKeepsPathsApart: with several data sets, whose paths have the same numbers, a step image goes with its own final image.
func rewardKeepsPathsApart(t *testing.T, dir string) {
	var sets []string
	for _, seed := range []uint64{1, 2} {
		name := filepath.Join(dir, fmt.Sprint("set", seed))
		ranking := curate.Ranking{Dir: name + "-ranking", Prompts: world.TrainPrompts(geneval.Colors)[:6], Each: 6, Seed: seed, PartSize: 8, Generator: dice{}, Evaluate: fate}
		parm := curate.ParmData{Dir: name, From: ranking.Dir, Labels: curate.DefaultParmLabels(18), PartSize: 64}
		if err := errors.Join(ranking.Run(t.Context()), parm.Run(t.Context())); err != nil {
			t.Fatal(err)
		}
		sets = append(sets, name)
	}
	r := rewardRecipe(dir, "parm", "")
	r.Data["from"] = strings.Join(sets, ",")
	w, err := NewReward(enginetest.Go(t), r)
	if err != nil {
		t.Fatal(err)
	}
	rng := prng.New(1, 0, prng.Order).Rand()
	for range 100 {
		for _, s := range w.draw(rng) {
			if s.final != nil && s.final[0] != s.tokens[0] {
				t.Fatalf("a path of fate %d has a final image of fate %d", s.tokens[0], s.final[0])
			}
		}
	}
}

func TestReward(t *testing.T) {
	dir := rewardFiles(t)
	t.Run("keeps paths apart", func(t *testing.T) { rewardKeepsPathsApart(t, dir) })
	t.Run("batches", func(t *testing.T) { rewardBatches(t, dir) })
	t.Run("mirrors", func(t *testing.T) { rewardMirrors(t, dir) })
	t.Run("asks others", func(t *testing.T) { rewardAsksOthers(t, dir) })
	t.Run("trains", func(t *testing.T) { rewardTrains(t, dir) })
	t.Run("says what is missing", func(t *testing.T) { rewardSaysWhatIsMissing(t, dir) })
}

func rewardBatches(t *testing.T, dir string) {
	be := enginetest.Go(t)
	for from, reward := range map[string]string{"ranking": "orm", "steps": "prm", "parm": "parm", "early": "parm"} {
		w, err := NewReward(be, rewardRecipe(dir, reward, from))
		if err != nil {
			t.Fatal(err)
		}
		rng := prng.New(1, 0, prng.Order).Rand()
		for range 200 {
			checkGroup(t, w, w.draw(rng))
		}
		a, err := w.Batch(5)
		if err != nil {
			t.Fatal(err)
		}
		b, err := w.Batch(5)
		if err != nil {
			t.Fatal(err)
		}
		for i := range a {
			if !a[i].Equal(b[i]) {
				t.Errorf("%s: input %d of batch 5 differs the second time", reward, i)
			}
		}
		if got := a[0].Shape().Dimensions; !slices.Equal(got, []int{10, 64, 64, 3}) {
			t.Errorf("%s: pixels %v", reward, got)
		}
		if parents, hash := w.Origin(); len(parents) != 2 || hash == "" {
			t.Errorf("%s: origin %v %q", reward, parents, hash)
		}
	}
}

// checkGroup looks at one group: the fate in the tokens is the label, one of each, and all ask about one prompt.
func checkGroup(t *testing.T, w *Reward, group []shown) {
	t.Helper()
	if len(group) != w.group {
		t.Fatalf("%s: a group of %d, want %d", w.data.Reward, len(group), w.group)
	}
	answers := map[string]int{}
	for _, s := range group {
		for _, e := range s.examples {
			last := e[len(e)-1]
			switch {
			case strings.Contains(last.Text, "clear"):
				answers["clarity "+last.Answer]++
			default:
				if right := s.tokens[0] == 1; right != (last.Answer == "yes") {
					t.Fatalf("%s: %q is answered %s, the path's fate is %v", w.data.Reward, last.Text, last.Answer, right)
				}
				answers[last.Text+" "+last.Answer]++
			}
			if len(e) == 2 && (e[0].Answer != "yes" || e[0].Weight > .01) {
				t.Fatalf("potential follows %+v", e[0])
			}
		}
	}
	for key, n := range answers {
		other := strings.TrimSuffix(key, " yes") + " no"
		if strings.HasSuffix(key, " no") {
			other = strings.TrimSuffix(key, " no") + " yes"
		}
		if answers[other] != n {
			t.Fatalf("%s: answers are not balanced inside the group: %v", w.data.Reward, answers)
		}
	}
}

// rewardMirrors: about half of the images are flipped, with their words, and no prompt comes about that tests or chooses.
func rewardMirrors(t *testing.T, dir string) {
	r := rewardRecipe(dir, "parm", "early")
	r.Data["not_clear_weight"], r.Data["validation"] = 3., .3
	w, err := NewReward(enginetest.Go(t), r)
	if err != nil {
		t.Fatal(err)
	}
	rng := prng.New(1, 0, prng.Order).Rand()
	chooses := func(prompt string) bool { // among models
		m, err := world.ParsePrompt(prompt)
		if err != nil {
			t.Fatal(err)
		}
		return curate.Validation(curate.Scene(m), .3)
	}
	turned, kept, twins := 0, 0, 0
	for range 100 {
		for _, s := range w.draw(rng) {
			if e := s.examples[len(s.examples)-1][0]; strings.Contains(e.Text, "clear") && e.Answer == "no" && e.Weight != 3 {
				t.Fatalf("a no to clarity weighs %v, want 3", e.Weight)
			}
			before, mirrored := s.examples[0][0].Text, world.MirrorText(s.prompt)
			if chooses(s.prompt) {
				t.Fatalf("%q chooses models", s.prompt)
			}
			if !s.mirror(w.leftOut) {
				kept++
				if chooses(mirrored) {
					twins++
				}
				continue
			}
			turned++
			if got := s.examples[0][0].Text; got != world.MirrorText(before) {
				t.Fatalf("%q became %q", before, got)
			}
			if m, err := world.ParsePrompt(mirrored); err != nil || w.leftOut(m) {
				t.Fatalf("%q became a prompt that tests or chooses models (%v)", s.prompt, err)
			}
		}
	}
	if turned == 0 || kept == 0 || twins == 0 {
		t.Errorf("%d images can be mirrored, %d cannot, %d of these for a prompt that chooses models: want some of each", turned, kept, twins)
	}
}

// rewardAsksOthers: other prompts are answered as the picture is, both ways, and none is a prompt that tests or chooses.
func rewardAsksOthers(t *testing.T, dir string) {
	r := rewardRecipe(dir, "orm", "ranking")
	r.Data["others"], r.Data["validation"] = 3, .3
	w, err := NewReward(enginetest.Go(t), r)
	if err != nil {
		t.Fatal(err)
	}
	rng := prng.New(1, 0, prng.Order).Rand()
	answers := map[bool]int{}
	for range 150 {
		scene := world.Random(rng, world.Pair)
		questions, err := w.others(world.Render(scene), rng)
		if err != nil {
			t.Fatal(err)
		}
		if len(questions) > 3 {
			t.Fatalf("%d questions, want 3 at most", len(questions))
		}
		for _, q := range questions {
			answers[q.Label]++
			if q.Label != scene.Satisfies(q.Prompt) {
				t.Fatalf("%q is answered %v about %v", q.Prompt.Prompt, q.Label, scene.Objects)
			}
			if curate.LeftOut(curate.Scene(q.Prompt), .3) {
				t.Fatalf("%q tests or chooses models", q.Prompt.Prompt)
			}
		}
	}
	if answers[true] < 50 || answers[false] < 50 {
		t.Errorf("answers %v: want plenty of both", answers)
	}
	blank, err := w.others(image.NewRGBA(image.Rect(0, 0, 64, 64)), rng)
	if err != nil || len(blank) != 0 {
		t.Errorf("%d questions about nothing (%v)", len(blank), err)
	}
	if _, err := w.Batch(0); err != nil {
		t.Error(err)
	}
}

func rewardTrains(t *testing.T, dir string) {
	if testing.Short() {
		t.Skip("trains two steps on the engine")
	}
	be := enginetest.Go(t)
	w, err := NewReward(be, rewardRecipe(dir, "parm", "parm"))
	if err != nil {
		t.Fatal(err)
	}
	log := &lastLog{}
	loop, err := train.New(be, w.recipe, w, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := loop.Run(t.Context(), func(int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if l := log.values["answer_loss"]; !(l > .1 && l < 10) {
		t.Errorf("figures %v", log.values)
	}
}

type lastLog struct{ values map[string]float64 }

func (l *lastLog) Log(_ int, v map[string]float64) error { l.values = v; return nil }

func rewardSaysWhatIsMissing(t *testing.T, dir string) {
	be := enginetest.Go(t)
	test := curate.Ranking{Dir: filepath.Join(dir, "test"), Prompts: world.TestPrompts()[:4], Each: 6, Seed: 1, PartSize: 8, Generator: dice{}, Evaluate: fate}
	if err := test.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*train.Recipe){
		"init_from is missing":     func(r *train.Recipe) { r.InitFrom = "" },
		"no reward model":          func(r *train.Recipe) { r.Data["reward"] = "gold" },
		"holds no data":            func(r *train.Recipe) { r.Data["from"] = dir },
		"holds test prompts":       func(r *train.Recipe) { r.Data["from"] = test.Dir },
		"want a multiple of 2":     func(r *train.Recipe) { r.Batch = 9 },
		"unknown field \"colour\"": func(r *train.Recipe) { r.Data["colour"] = "red" },
	} {
		r := rewardRecipe(dir, "orm", "ranking")
		change(&r)
		if _, err := NewReward(be, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
