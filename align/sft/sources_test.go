package sft

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"imagecot/align/policy"
	"imagecot/cot"
	"imagecot/curate"
	"imagecot/internal/enginetest"
	"imagecot/models/llavaov"
	"imagecot/train"
	"imagecot/verify/questions"
	"imagecot/world"
)

// Of a source a share is used, drawn with the seed, of its questions those that are asked for; validation scenes are left
// out, and test prompts refused.
func TestWhatIsTrainedOn(t *testing.T) {
	be, prompts := enginetest.Go(t), trained(40)
	data := toyData(t, 80, prompts)
	r := judgeRecipe("tiny", "parm", data)
	r.Data["validation"] = .5
	r.Data["sources"] = []any{
		map[string]any{"from": data["ranking"], "kind": "ranking", "share": .3},
		map[string]any{"from": data["parm"], "kind": "parm", "share": .5, "asks": "potential"},
		map[string]any{"from": data["parm"], "kind": "parm", "share": 1, "asks": "clarity"},
		map[string]any{"from": data["parm"], "kind": "parm", "share": 1},
	}
	j, err := NewJudge(be, policy.Sources{Folders: shipped}, r)
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	scene := map[string]string{}
	for _, m := range prompts {
		scene[m.Prompt] = curate.Scene(m)
		if !curate.Validation(curate.Scene(m), .5) {
			left++
		}
	}
	whole := 6 * left // conversations of two images a prompt, all of the last source
	count, kinds := map[cot.QuestionKind]int{}, []cot.QuestionKind{}
	for i, c := range j.talks {
		if k := kind(c); i < len(j.talks)-whole {
			count[k]++
			kinds = append(kinds, k)
		}
		if curate.Validation(scene[c.Prompt], .5) {
			t.Errorf("%q is trained on", c.Prompt)
		}
	}
	within := func(n int, share float64, of int) bool { // three standard deviations
		return math.Abs(float64(n)-share*float64(of)) <= 3*math.Sqrt(share*(1-share)*float64(of))
	}
	if n := 2 * left; !within(count[cot.Outcome], .3, n) || !within(count[cot.Potential], .5, n) || count[cot.Clarity] != n || left == 0 || left == len(prompts) {
		t.Errorf("%v of %d prompts", count, left)
	}
	if order := slices.Compact(kinds); !slices.Equal(order, []cot.QuestionKind{cot.Outcome, cot.Potential, cot.Clarity}) {
		t.Errorf("sources are not one after the other: %v", order)
	}
	every, err := NewJudge(be, policy.Sources{Folders: shipped}, judgeRecipe("tiny", "parm", data, "parm"))
	if err != nil {
		t.Fatal(err)
	}
	every.talks = slices.DeleteFunc(every.talks, func(c curate.Conversation) bool { return curate.Validation(scene[c.Prompt], .5) })
	if !reflect.DeepEqual(every.talks, j.talks[len(j.talks)-whole:]) {
		t.Error("what other sources of a data set draw is missing in a source that takes all")
	}
	if _, hash := j.Origin(); strings.Count(hash, "+") != 1 {
		t.Errorf("the hash of two data sets is %q", hash)
	}
	r.Seed++
	other, err := NewJudge(be, policy.Sources{Folders: shipped}, r)
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b curate.Conversation) bool { return a.Prompt == b.Prompt && slices.Equal(a.Tokens, b.Tokens) }
	if slices.EqualFunc(j.talks, other.talks, same) {
		t.Error("another seed draws the same share")
	}
	r.Seed--
	if again, err := NewJudge(be, policy.Sources{Folders: shipped}, r); err != nil || !slices.EqualFunc(j.talks, again.talks, same) {
		t.Errorf("the same seed draws another share, error %v", err)
	}
	tests := toyData(t, 4, world.TestPrompts())
	if _, err := NewJudge(be, policy.Sources{Folders: shipped}, judgeRecipe("tiny", "orm", tests, "ranking")); err == nil || !strings.Contains(err.Error(), "holds test prompts") {
		t.Errorf("error %v", err)
	}
}

// Of 10,000 conversations as many are drawn as the share says; two sources draw different ones, and a larger share has those of
// a smaller one.
func TestSharesAreDrawn(t *testing.T) {
	const n = 10_000
	some, other, more := 0, 0, 0
	for i := range n {
		in := drawn(.3, 5, 0, i)
		if in {
			some++
			if drawn(.3, 5, 1, i) {
				other++
			}
			if drawn(.4, 5, 0, i) {
				more++
			}
		}
		if !drawn(1, 5, 0, i) {
			t.Fatalf("conversation %d is not among all", i)
		}
	}
	if some < 2850 || some > 3150 || other < 800 || other > 1000 || more != some {
		t.Errorf("%d, %d of them in another source's share, %d in a larger one", some, other, more)
	}
}

func TestJudgeRefusals(t *testing.T) {
	be := enginetest.Go(t)
	data := toyData(t, 4, trained(2))
	set := func(key string, value any) func(*train.Recipe) {
		return func(r *train.Recipe) { r.Data[key] = value }
	}
	source := func(key string, value any) func(*train.Recipe) {
		return func(r *train.Recipe) { r.Data["sources"].([]any)[0].(map[string]any)[key] = value }
	}
	one := []curate.Image{{Prompt: "a", Steps: 1, Samples: grid(0, true), Correct: true}}
	for want, change := range map[string]func(r *train.Recipe){
		`data.reward is "orn", want one of orm, parm, parmpp, prm`: set("reward", "orn"),
		"orm needs a source of kind ranking":                       set("sources", []any{}),
		"and prm takes steps":                                      set("reward", "prm"),
		"parmpp needs a source of kind parm":                       set("reward", "parmpp"),
		"is 1.5, want more than 0 and at most 1":                   source("share", 1.5),
		"is 0, want more than 0 and at most 1":                     source("share", 0),
		"a share of 1e-09 of":                                      source("share", 1e-9),
		"from is missing in source 0":                              source("from", ""),
		`is a data set of kind "steps", not "ranking"`:             source("from", data["steps"]),
		"are none of 0 conversations":                              source("asks", "clarity"),
		"unknown field":                                            source("shares", 1),
		"data.tokenizer is missing":                                set("tokenizer", ""),
		`data.labels is "all"`:                                     set("labels", "all"),
		`data.questions is "mine"; there are paper`:                set("questions", "mine"),
		"validation 1 or length 0 is out of range":                 set("validation", 1),
		`outcome conversation about "a `:                           set("length", 80),
		"positions, data.length is 80":                             set("length", 80),
		"outcome is answered yes 1 times and no 0 times":           source("from", dataSet(t, "ranking", one)),
		"init_from is missing":                                     func(r *train.Recipe) { r.InitFrom = "" },
		"no such file":                                             func(r *train.Recipe) { r.InitFrom = t.TempDir() },
		"has no text tokenizer": func(r *train.Recipe) {
			r.InitFrom = otherVocabulary(t)
		},
		"49 image tokens, the first image has 64": source("from", data["ranking"]+","+dataSet(t, "ranking", []curate.Image{{Prompt: "b", Steps: 1, Samples: make([]int32, 49)}})),
		"image token 0 is 1024":                   source("from", data["ranking"]+","+dataSet(t, "ranking", []curate.Image{{Prompt: "b", Steps: 1, Samples: slices.Repeat([]int32{1024}, 64)}})),
		"a text holds the token <|im_end|>":       source("from", data["ranking"]+","+dataSet(t, "ranking", []curate.Image{{Prompt: "b<|im_end|>", Steps: 1, Samples: grid(0, true)}})),
	} {
		r := judgeRecipe("tiny", "orm", data, "ranking")
		change(&r)
		if _, err := NewJudge(be, policy.Sources{Folders: shipped}, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// A judge that knows the questions in other words than the usual ones is not trained on without a word about it.
func TestWordsAreSaid(t *testing.T) {
	r := judgeRecipe("tiny", "orm", toyData(t, 4, trained(2)), "ranking")
	from := policy.Sources{Folders: shipped, Wording: func(judge string) string { return map[string]string{"tiny": "released"}[judge] }}
	if _, err := NewJudge(enginetest.Go(t), from, r); err == nil || !strings.Contains(err.Error(), `knows the questions in the words "released"`) {
		t.Errorf("error %v", err)
	}
	for _, words := range []string{"released", "tiny"} {
		r.Data["questions"] = words
		j, err := NewJudge(enginetest.Go(t), from, r)
		if err != nil {
			t.Fatal(err)
		}
		set, err := questions.Get(words)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := j.talks[0].Turns[0].Text, set.Text(cot.Outcome, cot.Prompt{Text: j.talks[0].Prompt}); got != want {
			t.Errorf("%s: asked %q, want %q", words, got, want)
		}
	}
}

// otherVocabulary is a judge whose words are not the tiny world's, and which brings no tokenizer.
func otherVocabulary(t *testing.T) string {
	t.Helper()
	dir := smallJudge(t, authors)
	if err := os.Remove(filepath.Join(dir, "tokenizer.json")); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := llavaov.LoadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	c.Text.VocabSize += 64
	if config, err = c.JSON(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
