package objective

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
	"imagecot/internal/prng"
	"imagecot/train"
	"imagecot/world"
)

// parmppRecipe adds reflection data to those of rewardFiles; the reason of an image tells its prompt.
func parmppRecipe(t *testing.T, dir string) train.Recipe {
	t.Helper()
	d := curate.ReflectionData{Dir: filepath.Join(dir, "reflection"), From: filepath.Join(dir, "ranking"), PartSize: 64}
	d.Reasons = curate.Reasons{Generator: dice{}, Name: "test", Annotate: curate.ByEvaluator(fate, func(m geneval.Metadata, _ geneval.Result) (string, error) {
		return "the " + m.Include[0].Class + " is wrong", nil
	})}
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := rewardRecipe(dir, "parmpp", "parm")
	r.Data["reflection"], r.Data["reflections"], r.Data["length"] = d.Dir, .5, 64
	return r
}

func TestPARMPP(t *testing.T) {
	dir := rewardFiles(t)
	r := parmppRecipe(t, dir)
	be := enginetest.Go(t)
	w, err := NewReward(be, r)
	if err != nil {
		t.Fatal(err)
	}
	reflections, reasons := 0, 0
	rng := prng.New(1, 0, prng.Order).Rand()
	for range 200 {
		group := w.draw(rng)
		if !strings.HasPrefix(group[0].examples[0][0].Text, "does the image show") {
			checkGroup(t, w, group)
			continue
		}
		reflections++
		for i, s := range group {
			e, right := s.examples[0], s.tokens[0] == 1
			if len(group) != 4 || right != (i%2 == 0) || right != (e[0].Answer == "yes") || e[0].Text != group[i/2*2].examples[0][0].Text {
				t.Fatalf("group %+v", group)
			}
			switch {
			case right && len(e) == 1:
			case !right && len(e) == 2 && e[1].Text == "what is wrong?":
				class := strings.Fields(e[1].Answer)[1]
				if !strings.Contains(e[0].Text, class) {
					t.Fatalf("the reason %q of another prompt than in %q", e[1].Answer, e[0].Text)
				}
				reasons++
			default:
				t.Fatalf("conversation %+v about an image whose fate is %v", e, right)
			}
		}
	}
	if reflections < 60 || reflections > 140 || reasons != 2*reflections {
		t.Errorf("%d reflections of 200 groups, %d reasons", reflections, reasons)
	}
	if parents, hash := w.Origin(); len(parents) != 2 || !strings.Contains(hash, "+") {
		t.Errorf("origin %v %q", parents, hash)
	}
	if _, err := w.Batch(3); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*train.Recipe){
		"data.reflection (a folder": func(r *train.Recipe) { delete(r.Data, "reflection") },
		"between 0 and 1 (got 1)":   func(r *train.Recipe) { r.Data["reflections"] = 1 },
		"data.length":               func(r *train.Recipe) { r.Data["length"] = 30 },
		"holds no data":             func(r *train.Recipe) { r.Data["reflection"] = dir },
	} {
		r := parmppRecipe(t, dir)
		change(&r)
		if _, err := NewReward(be, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// PARM++ reflects on half of the renders' questions: yes where the scene is right, else no with the reason of its objects.
func TestReflectionsOnRenders(t *testing.T) {
	dir := rewardFiles(t)
	r := parmppRecipe(t, dir)
	r.Data["render_reasons"], r.Data["reason_weight"], r.Data["render_weight"], r.Data["questions"] = true, 6., .5, 4
	w, err := NewReward(enginetest.Go(t), r)
	if err != nil {
		t.Fatal(err)
	}
	rng := prng.New(2, 0, prng.Order).Rand()
	reflections, reasons := 0, 0
	for range 250 {
		s := world.JudgeMix.Draw(rng)
		examples, err := w.render(s, rng)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range examples {
			prompt, reflects := strings.CutPrefix(e[0].Text, "does the image show ")
			if !reflects {
				if len(e) != 1 || e[0].Weight != .5 {
					t.Fatalf("an outcome question %+v", e)
				}
				continue
			}
			reflections++
			m, err := world.ParsePrompt(strings.TrimSuffix(prompt, "?"))
			if err != nil {
				t.Fatal(err)
			}
			reason, err := s.Reason(m)
			if err != nil {
				t.Fatal(err)
			}
			right := s.Satisfies(m)
			if right != (reason == "") || right != (e[0].Answer == "yes") || right != (len(e) == 1) || e[0].Weight != .5 {
				t.Fatalf("conversation %+v about a scene that is right: %v", e, right)
			}
			if !right {
				reasons++
				if e[1].Answer != reason || e[1].Text != "what is wrong?" || e[1].Weight != 6 {
					t.Fatalf("reason %+v, want %q with weight 6", e[1], reason)
				}
			}
		}
	}
	if reflections < 400 || reflections > 600 || reasons < reflections/3 || reasons > reflections*2/3 {
		t.Errorf("%d of 1000 questions are reflections, %d with a reason", reflections, reasons)
	}
	orm := rewardRecipe(dir, "orm", "ranking")
	orm.Data["render_reasons"] = true
	if _, err := NewReward(enginetest.Go(t), orm); err == nil || !strings.Contains(err.Error(), "belongs to parmpp") {
		t.Errorf("reasons for an ORM: error %v", err)
	}
	r.Data["reason_weight"] = 0.
	if _, err := NewReward(enginetest.Go(t), r); err == nil || !strings.Contains(err.Error(), "reason_weight") {
		t.Errorf("reason_weight 0: error %v", err)
	}
}

// The tokenizer of the shipped models knows every word of a reason.
func TestReasonsAreInTheVocabulary(t *testing.T) {
	tok, err := textTokenizer()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	mix := world.QuestionMix{Hard: 1, Tasks: [6]float64{1, 1, 1, 1, 1, 1}}
	seen := map[string]bool{}
	var differ []string
	for range 1000 {
		s := world.JudgeMix.Draw(rng)
		m := mix.Draw(rng, s).Prompt
		r, err := world.Evaluator().Evaluate(t.Context(), world.Render(s), m)
		if err != nil {
			t.Fatal(err)
		}
		reason, err := geneval.Reason(m, r)
		if err != nil {
			t.Fatal(err)
		}
		of, err := s.Reason(m)
		if err != nil {
			t.Fatal(err)
		}
		if of != reason { // a fragment can look like an object
			differ = append(differ, fmt.Sprintf("%q: the scene's reason is %q, the detector's %q", m.Prompt, of, reason))
		}
		for _, w := range strings.Fields(reason) {
			seen[w] = true
		}
	}
	for w := range seen {
		if ids := tok.Encode(" " + w); len(ids) != 1 {
			t.Errorf("%q takes %d tokens", w, len(ids))
		}
	}
	if len(differ) > 20 {
		t.Errorf("%d of 1000 reasons differ:\n%s", len(differ), strings.Join(differ, "\n"))
	}
	if len(seen) < 30 {
		t.Errorf("only %d words: %v", len(seen), fmt.Sprint(seen))
	}
}
