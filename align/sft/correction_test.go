package sft

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/align/policy/policytest"
	"imagecot/bpe"
	"imagecot/cot"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/maskgit"
	"imagecot/models/showo"
	"imagecot/train"
	"imagecot/train/objective"
	"imagecot/world"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/parquet-go/parquet-go"
)

// The reasons of the toy: each names the code that the good image consists of.
var toy = []struct {
	reason string
	code   int32
}{{"it is red", 2}, {"it is blue", 5}}

// wrongImage is random codes.
func wrongImage(seed uint64) []int32 {
	out := make([]int32, policytest.Tokens)
	for i := range out {
		out[i] = int32(prng.Derive(seed, "wrong", uint64(i)) % policytest.Codes)
	}
	return out
}

// groups writes self-correction data of the toy: what a good image is follows from the reason alone.
func groups(t *testing.T, change func(i int, g *curate.Correction)) string {
	t.Helper()
	var all []curate.Correction
	for i := range 40 {
		c := toy[i%len(toy)]
		g := curate.Correction{
			Task: "colors", Prompt: fmt.Sprint("a photo of a circle ", i%20), Bad: wrongImage(uint64(i)),
			Good: slices.Repeat([]int32{c.code}, policytest.Tokens), Reason: c.reason,
		}
		if change != nil {
			change(i, &g)
		}
		all = append(all, g)
	}
	dir := t.TempDir()
	if err := parquet.WriteFile(filepath.Join(dir, "part-00000.parquet"), all); err != nil {
		t.Fatal(err)
	}
	return dir
}

func recipe(t *testing.T, from string) train.Recipe {
	t.Helper()
	return train.Recipe{
		Kind: "correction", Name: "t", Seed: 3, MaxSteps: 60, Batch: 16, Accum: 1, LR: .02, Beta1: .9, Beta2: .99, Epsilon: 1e-8, Clip: 1, LogEvery: 10,
		SaveEvery: 100, InitFrom: policytest.Folder(t, nil), Data: map[string]any{"from": from},
	}
}

type lastLog struct{ first, last map[string]float64 }

func (l *lastLog) Log(_ int, v map[string]float64) error {
	if l.first == nil {
		l.first = v
	}
	l.last = v
	return nil
}

// A generator that is trained on the toy does as the reason says, whatever the bad image is.
func TestTrainedGeneratorDoesAsTheReasonSays(t *testing.T) {
	be := enginetest.Go(t)
	c, err := NewCorrection(be, policytest.Folders, recipe(t, groups(t, nil)), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log := &lastLog{}
	loop, err := train.New(be, c.recipe, c, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := loop.Run(t.Context(), func(int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if !(log.last["correction_loss"] < .6*log.first["correction_loss"]) {
		t.Errorf("loss %v -> %v", log.first, log.last)
	}
	weights, err := loop.Weights()
	if err != nil {
		t.Fatal(err)
	}
	g, err := showo.NewGenerator(be, c.policy.Config, graphx.NewWeights(weights), text(t), nil,
		showo.Options{Steps: 4, Rule: maskgit.Anneal, Schedule: maskgit.Cosine})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range toy {
		right := 0
		for seed := range uint64(10) {
			bad := &cot.Path{Tokens: wrongImage(1000 + seed), Step: 4}
			path, err := g.Correct(t.Context(), cot.Prompt{Text: "a photo of a circle"}, bad, want.reason, seed)
			if err != nil {
				t.Fatal(err)
			}
			for _, token := range path.Tokens {
				if token == want.code {
					right++
				}
			}
		}
		if most := 10 * policytest.Tokens; right < most*3/4 {
			t.Errorf("%q: %d of %d tokens are what the reason asks for", want.reason, right, most)
		}
	}
}

func text(t testing.TB) *bpe.Tokenizer {
	t.Helper()
	words, err := objective.Vocabulary()
	if err != nil {
		t.Fatal(err)
	}
	tok, err := bpe.Load(words)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// Groups of validation scenes are left out, however their prompts are put, and test prompts are refused.
func TestScenesThatAreLeftOut(t *testing.T) {
	be, prompts, want := enginetest.Go(t), world.TrainPrompts(geneval.Position)[:40], 0
	for _, m := range prompts {
		if !curate.Validation(curate.Scene(m), .5) {
			want++
		}
	}
	r := recipe(t, groups(t, func(i int, g *curate.Correction) { g.Prompt, g.Metadata = prompts[i].Prompt, prompts[i].Dump() }))
	r.Data["validation"] = .5
	c, err := NewCorrection(be, policytest.Folders, r, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.groups) != want || want == 40 || want == 0 {
		t.Errorf("%d of 40 groups are trained on, want %d", len(c.groups), want)
	}
	r = recipe(t, groups(t, func(i int, g *curate.Correction) { g.Metadata = world.TestPrompts()[i].Dump() }))
	if _, err := NewCorrection(be, policytest.Folders, r, t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds test prompts") {
		t.Errorf("error %v", err)
	}
}

func TestBatchesFollowFromTheirNumber(t *testing.T) {
	be := enginetest.Go(t)
	c, err := NewCorrection(be, policytest.Folders, recipe(t, groups(t, nil)), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.Batch(4)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Batch(4)
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Batch(5)
	if err != nil {
		t.Fatal(err)
	}
	if !a[0].Equal(b[0]) || a[0].Equal(other[0]) || len(a) != 3 {
		t.Errorf("%d inputs; the same batch equal: %v, another: %v", len(a), a[0].Equal(b[0]), a[0].Equal(other[0]))
	}
	seen := map[int]int{}
	for v := range len(c.groups) {
		seen[c.visit(v)]++
	}
	if len(seen) != len(c.groups) {
		t.Errorf("an epoch visits %d of %d groups", len(seen), len(c.groups))
	}
}

// A batch holds as many rows of each kind as the recipe says: groups, rendered corrections, then plain rows. A rendered
// correction is two renders that differ, and no prompt of the test set.
func TestRenderedCorrections(t *testing.T) {
	be, dir := enginetest.Go(t), t.TempDir()
	r := recipe(t, groups(t, func(_ int, g *curate.Correction) { g.Bad, g.Good = make([]int32, 64), slices.Repeat([]int32{1}, 64) }))
	r.InitFrom, r.Batch = policytest.Write(t, policytest.Tiny(t), nil), 7
	r.Data["renders"], r.Data["scenes"], r.Data["tokenizer"] = 3, 40, tokenizer(t)
	c, err := NewCorrection(be, policytest.Folders, r, dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.renders) != 40 {
		t.Fatalf("%d rendered corrections", len(c.renders))
	}
	words := text(t)
	for _, g := range c.renders {
		if slices.Equal(g.bad, g.good) {
			t.Errorf("%q: both scenes have the same tokens", words.Decode(g.text, true))
		}
		prompt, reason, ok := strings.Cut(words.Decode(g.text, true), ". ")
		m, err := world.ParsePrompt(prompt)
		if err != nil || !ok || reason == "" || curate.LeftOut(curate.Scene(m), c.data.Validation) {
			t.Errorf("%q, reason %q (%v)", prompt, reason, err)
		}
	}
	isRendered := func(row []int32) bool { // the bad image's tokens are those of a rendered one
		return slices.ContainsFunc(c.renders, func(g group) bool {
			bad := c.policy.Config.ImageIDs(g.bad)
			for at := range len(row) - len(bad) {
				if slices.Equal(row[at:at+len(bad)], bad) {
					return true
				}
			}
			return false
		})
	}
	b, err := c.Batch(2)
	if err != nil {
		t.Fatal(err)
	}
	dims := b[0].Shape().Dimensions
	ids := tensors.MustCopyFlatData[int32](b[0])
	for row := range dims[0] {
		if got, want := isRendered(ids[row*dims[1]:(row+1)*dims[1]]), row >= 4; got != want {
			t.Errorf("row %d of %d is rendered: %v", row, dims[0], got)
		}
	}
	if parents, _ := c.Origin(); len(parents) != 2 || parents[1].Role != "tokenizer" {
		t.Errorf("parents %+v", parents)
	}
	again, err := NewCorrection(be, policytest.Folders, r, dir) // from the cache
	if err != nil {
		t.Fatal(err)
	}
	if same, err := again.Batch(2); err != nil || !same[0].Equal(b[0]) {
		t.Errorf("the second time the batch is another (%v)", err)
	}
	// In the folder of a run with another split the scenes are others: their tokens are made anew.
	r.Data["validation"] = .5
	again, err = NewCorrection(be, policytest.Folders, r, dir)
	alone, err2 := NewCorrection(be, policytest.Folders, r, t.TempDir())
	if err != nil || err2 != nil || !slices.EqualFunc(again.renders, alone.renders, func(a, b group) bool { return slices.Equal(a.bad, b.bad) && slices.Equal(a.good, b.good) }) {
		t.Errorf("tokens of another split are taken (%v, %v)", err, err2)
	}
}

// tokenizer is the folder of the shipped image tokenizer.
func tokenizer(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../tiny/tokenizer")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRefusals(t *testing.T) {
	be := enginetest.Go(t)
	for want, c := range map[string]struct {
		group  func(i int, g *curate.Correction)
		recipe func(r *train.Recipe)
	}{
		"group 3":              {group: func(i int, g *curate.Correction) { g.Bad = g.Bad[:len(g.Bad)-min(i/3, 1)] }},
		"images are equal":     {group: func(i int, g *curate.Correction) { g.Bad = g.Good }},
		"there is no reason":   {group: func(i int, g *curate.Correction) { g.Reason = "" }},
		"image token 0 is 8":   {group: func(i int, g *curate.Correction) { g.Good[0] = 8 }},
		"data.from is missing": {recipe: func(r *train.Recipe) { delete(r.Data, "from") }},
		"16 plain and 0":       {recipe: func(r *train.Recipe) { r.Data["plain"] = 16 }},
		"4 plain and 12":       {recipe: func(r *train.Recipe) { r.Data["plain"], r.Data["renders"] = 4, 12 }},
		"0 plain and -1":       {recipe: func(r *train.Recipe) { r.Data["renders"] = -1 }},
		"of 0 scenes":          {recipe: func(r *train.Recipe) { r.Data["renders"], r.Data["tokenizer"], r.Data["scenes"] = 1, "t", 0 }},
		"tokenizer is missing": {recipe: func(r *train.Recipe) { r.Data["renders"] = 1 }},
		"out of range":         {recipe: func(r *train.Recipe) { r.Data["validation"] = 1 }},
		"init_from is missing": {recipe: func(r *train.Recipe) { r.InitFrom = "" }},
		"unknown field":        {recipe: func(r *train.Recipe) { r.Data["colour"] = "red" }},
		"holds no data":        {recipe: func(r *train.Recipe) { r.Data["from"] = r.InitFrom }},
	} {
		r := recipe(t, groups(t, c.group))
		if c.recipe != nil {
			c.recipe(&r)
		}
		if _, err := NewCorrection(be, policytest.Folders, r, t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
