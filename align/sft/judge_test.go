package sft

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/png"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"imagecot/align/policy"
	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/curate"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/models/llavaov"
	"imagecot/train"
	"imagecot/train/objective"
	"imagecot/verify/questions"
	"imagecot/world"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// talk is a conversation of an exported file.
type talk struct {
	Image         string `json:"image"`
	Conversations []struct {
		From  string `json:"from"`
		Value string `json:"value"`
	} `json:"conversations"`
}

// exportedTalks are the conversations that `curate export` writes of a data set, and their pictures.
func exportedTalks(t *testing.T, from, wording string) (all []talk, shown []image.Image) {
	t.Helper()
	set, err := questions.Get(wording)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	e := curate.Export{Dir: dir, From: from, Format: curate.LLaVA, Questions: set, Tokenizer: "tiny", PartSize: 8, Generator: decoder{tokens: openDecoder(t)}}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, "conversations.json"))
	if err == nil {
		err = json.Unmarshal(file, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range all {
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(row.Image)))
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		shown = append(shown, img)
	}
	return all, shown
}

// example is the conversation without the image's tag.
func (x talk) example() llavaov.Example {
	var e llavaov.Example
	for i := 0; i < len(x.Conversations); i += 2 {
		question := strings.TrimSpace(strings.TrimPrefix(x.Conversations[i].Value, "<image>"))
		e = append(e, llavaov.ExampleTurn{Text: question, Answer: x.Conversations[i+1].Value})
	}
	return e
}

// nlls runs one conversation alone, not padded, through the plain forward, and returns -log p of every label that is learnt.
func nlls(t *testing.T, be compute.Backend, c llavaov.Config, w *graphx.Weights, row llavaov.Transcript, img image.Image) (all []float64) {
	t.Helper()
	tiles, _, err := c.Tiles(img, "pad")
	if err != nil {
		t.Fatal(err)
	}
	at, n := slices.Index(row.IDs, llavaov.ImageRow), len(row.IDs)
	program, err := graphx.NewProgram(be, "by hand", w, graphx.Policy{}, func(s graphx.Scope, in []*Node) []*Node {
		h := llavaov.Tower(s.In("model", "vision_tower", "vision_tower", "vision_model"), c.Vision, c.TowerLayers, in[0], nil)
		rows := llavaov.Project(s.In("model", "mm_projector"), h)
		newline := Reshape(s.Float32("model.image_newline"), 1, 1, -1)
		x := Concatenate([]*Node{llavaov.Embed(s.In("model"), in[1]), rows, newline, llavaov.Embed(s.In("model"), in[2])}, 1)
		h = llavaov.Decode(s.In("model"), c.Text, x, in[3], nil, nil)
		return []*Node{llavaov.Logits(s, h, 0)}
	})
	if err != nil {
		t.Fatal(err)
	}
	positions := make([]int32, n)
	for i := range positions {
		positions[i] = int32(i)
	}
	side, behind := c.Vision.ImageSize, at+c.Vision.Grid()*c.Vision.Grid()+1
	out, err := program.Run(graphx.Tensor(llavaov.AppendPixels(nil, tiles[0]), 1, side, side, 3), graphx.Tensor(row.IDs[:at], 1, at),
		graphx.Tensor(row.IDs[behind:], 1, n-behind), graphx.Tensor(positions, 1, n))
	if err != nil {
		t.Fatal(err)
	}
	logits := graphx.Floats(out[0])
	v := len(logits) / n
	for i, label := range row.Labels[1:] {
		if label != llavaov.Ignore {
			all = append(all, -llavaov.LogP(logits[i*v:(i+1)*v], []int32{label}))
		}
	}
	return all
}

func mean(v []float64) float64 {
	sum := 0.
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// figures are loss, loss of verdicts and accuracy of a batch under the starting weights.
func figures(t *testing.T, be compute.Backend, j *Judge, in []*tensors.Tensor) []float64 {
	t.Helper()
	w, err := j.Init()
	if err != nil {
		t.Fatal(err)
	}
	program, err := graphx.NewProgram(be, "batch", graphx.NewWeights(w), graphx.Policy{}, func(s graphx.Scope, in []*Node) []*Node {
		loss, figures := j.Loss(s, in)
		return append([]*Node{loss}, figures...)
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := program.Run(in[0], in[1], in[2], in[3])
	if err != nil {
		t.Fatal(err)
	}
	var all []float64
	for _, o := range out {
		all = append(all, float64(graphx.Floats(o)[0]))
	}
	return all
}

// The loss of a batch is that of the conversations which `curate export` writes, each laid out from its texts and run alone;
// that of its verdicts is what the judge itself answers about the pictures.
func TestJudgeLossIsThatOfTheExport(t *testing.T) {
	data := toyData(t, 4, trained(2))
	for _, c := range []struct {
		from, wording, reward, kind string
		labels                      llavaov.Labels
	}{
		{smallJudge(t, authors), "paper", "parm", "parm", llavaov.OfficialLabels},
		{smallJudge(t, transformers), "paper", "orm", "ranking", llavaov.AnswerLabels},
		{"tiny", "tiny", "parm", "parm", llavaov.OfficialLabels},
		{"tiny", "tiny", "prm", "steps", llavaov.AnswerLabels},
	} {
		t.Run(c.wording+" "+c.reward, func(t *testing.T) {
			be := enginetest.Go(t)
			r := judgeRecipe(c.from, c.reward, data, c.kind)
			r.Data["labels"] = string(c.labels)
			all, shown := exportedTalks(t, data[c.kind], c.wording)
			r.Batch = len(all)
			j, err := NewJudge(be, policy.Sources{Folders: shipped}, r)
			if err != nil {
				t.Fatal(err)
			}
			in, err := j.Batch(0)
			if err != nil {
				t.Fatal(err)
			}
			got := figures(t, be, j, in)
			w, err := j.Init()
			if err != nil {
				t.Fatal(err)
			}
			var losses, verdicts []float64
			right := 0
			judge, err := llavaov.NewJudge(be, j.start.config, graphx.NewWeights(maps.Clone(w)), j.start.text, llavaov.Options{Official: true, HeadRows: j.start.config.Text.VocabSize})
			if err != nil {
				t.Fatal(err)
			}
			for i, x := range all {
				e := x.example()
				row, err := j.chat.Conversation(e, j.start.rows(), c.labels)
				if err != nil {
					t.Fatal(err)
				}
				losses = append(losses, nlls(t, be, j.start.config, graphx.NewWeights(maps.Clone(w)), row, shown[i])...)
				var after []cot.Turn
				for _, turn := range e {
					v, err := judge.Ask(t.Context(), []cot.Question{{Text: turn.Text, After: after, Image: shown[i]}})
					if err != nil {
						t.Fatal(err)
					}
					said, other := v[0].LogPYes, v[0].LogPNo
					if turn.Answer == "no" {
						said, other = other, said
					}
					verdicts = append(verdicts, -said)
					if said > other {
						right++
					}
					after = append(after, cot.Turn{Text: turn.Text, Answer: turn.Answer})
				}
			}
			want := []float64{mean(losses), mean(verdicts), float64(right) / float64(len(verdicts))}
			for i, name := range []string{"loss", "answer_loss", "answer_accuracy"} {
				if math.Abs(got[i]-want[i]) > 2e-4 {
					t.Errorf("%s is %v, by hand %v", name, got[i], want[i])
				}
			}
		})
	}
}

// moved trains a judge and returns what it logged at first and last, and P(yes) of the pictures before and after: of the
// starting judge and of the folder that the run wrote.
func moved(t *testing.T, r train.Recipe, wording string) (log *lastLog, before, after []float64) {
	t.Helper()
	be := enginetest.Fastest(t)
	dir := t.TempDir()
	var j *Judge
	build := func(be compute.Backend, r train.Recipe, _ string) (objective.Trainable, error) {
		var err error
		j, err = NewJudge(be, policy.Sources{Folders: shipped}, r)
		return j, err
	}
	if err := objective.Run(t.Context(), be, r, dir, t.Output(), build); err != nil {
		t.Fatal(err)
	}
	log = &lastLog{}
	file, err := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		var values map[string]float64
		if err := json.Unmarshal([]byte(line), &values); err != nil {
			t.Fatal(err)
		}
		_ = log.Log(0, values)
	}
	set, err := questions.Get(wording)
	if err != nil {
		t.Fatal(err)
	}
	var tokens [][]int32
	for _, c := range j.talks {
		tokens = append(tokens, c.Tokens)
	}
	shown, err := pictures(t.Context(), openDecoder(t), tokens)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(open string) (out []float64) {
		fsys, err := shipped(open, "judge")
		if err != nil {
			t.Fatal(err)
		}
		judge, err := llavaov.OpenFS(be, fsys, ".", text(t), llavaov.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range j.talks {
			p := cot.Prompt{Text: c.Prompt}
			v, err := judge.Ask(t.Context(), []cot.Question{{Text: set.Text(cot.Outcome, p), Image: shown[i]}})
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, math.Exp(v[0].LogPYes))
		}
		return out
	}
	final := filepath.Join(dir, "final")
	m, err := ckpt.ReadManifest(final)
	if err != nil || m.Kind != "sft" || len(m.Parents) != 2 || m.Parents[0].Role != "init" || m.Parents[1].Role != "tokenizer" || m.DataHash == "" ||
		!strings.Contains(string(m.Recipe), `"reward": "orm"`) {
		t.Errorf("manifest %+v, recipe %s, error %v", m, m.Recipe, err)
	}
	return log, ask(r.InitFrom), ask(final)
}

// A few steps on eight conversations lower the loss and teach the answers, and the folder that is written answers so.
func TestTrainedJudgeAnswersAsTheDataSay(t *testing.T) {
	if testing.Short() {
		t.Skip("two trainings")
	}
	data := toyData(t, 8, trained(4))
	for wording, c := range map[string]struct {
		from  string
		rate  float64
		steps int
	}{"paper": {smallJudge(t, authors), .02, 25}, "tiny": {"tiny", .001, 6}} {
		t.Run(wording, func(t *testing.T) {
			r := judgeRecipe(c.from, "orm", data, "ranking")
			r.Batch, r.LR, r.MaxSteps, r.SaveEvery, r.Data["labels"] = 8, c.rate, c.steps, 1000, "answer"
			log, before, after := moved(t, r, wording)
			if !(log.last["loss"] < .5*log.first["loss"]) || !(log.last["answer_loss"] < .5*log.first["answer_loss"]) || log.last["answer_accuracy"] != 1 {
				t.Errorf("%v -> %v", log.first, log.last)
			}
			// The first image of a prompt is the right one.
			for i := 0; i < len(after); i += 2 {
				if !(after[i] > .7 && after[i+1] < .3) || !(after[i]-after[i+1] > before[i]-before[i+1]) {
					t.Errorf("prompt %d: P(yes) of right and wrong %v, before %v", i/2, after[i:i+2], before[i:i+2])
				}
			}
		})
	}
}

// What is written has the names and files of the checkpoint that it came from, in either layout; what nobody reads is kept,
// and a head that is a copy of the word table is trained as one with it.
func TestLayoutIsKept(t *testing.T) {
	data := toyData(t, 4, trained(2))
	for _, layout := range []string{authors, transformers} {
		from, dir := smallJudge(t, layout), t.TempDir()
		build := func(be compute.Backend, r train.Recipe, _ string) (objective.Trainable, error) {
			return NewJudge(be, policy.Sources{Folders: shipped}, r)
		}
		r := judgeRecipe(from, "orm", data, "ranking")
		r.MaxSteps = 1
		if err := objective.Run(t.Context(), enginetest.Go(t), r, dir, t.Output(), build); err != nil {
			t.Fatal(err)
		}
		final := filepath.Join(dir, "final")
		for _, name := range []string{"config.json", "tokenizer.json", "generation_config.json"} {
			want, err := os.ReadFile(filepath.Join(from, name))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(final, name)); err != nil || !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(want)) {
				t.Errorf("%s: %s is another one (%v)", layout, name, err)
			}
		}
		was, err := ckpt.OpenModel(from)
		if err != nil {
			t.Fatal(err)
		}
		is, err := ckpt.OpenModel(final)
		if err != nil {
			t.Fatal(err)
		}
		want := slices.DeleteFunc(was.Names(), func(n string) bool { return strings.HasSuffix(n, "lm_head.weight") })
		if !slices.Equal(slices.Sorted(slices.Values(is.Names())), slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: weights %v, want %v", layout, is.Names(), want)
		}
		if _, err := llavaov.Open(enginetest.Go(t), final, llavaov.Options{}); err != nil {
			t.Errorf("%s: %v", layout, err)
		}
		_, _ = was.Close(), is.Close()
	}
}

// Batches follow from the recipe's seed and their number; an epoch visits every conversation once, the next one in another
// order.
func TestJudgeBatchesFollowFromTheirNumber(t *testing.T) {
	be := enginetest.Go(t)
	r := judgeRecipe(smallJudge(t, authors), "parmpp", toyData(t, 8, trained(4)), "parm", "reflection", "ranking")
	open := func() *Judge {
		j, err := NewJudge(be, policy.Sources{Folders: shipped}, r)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	if n := len(j.talks); n != 3*8+8+8 {
		t.Fatalf("%d conversations", n)
	}
	var epochs [2][]int
	for v := range 2 * len(j.talks) {
		epochs[v/len(j.talks)] = append(epochs[v/len(j.talks)], j.order.at(v))
	}
	if slices.Equal(epochs[0], epochs[1]) {
		t.Error("the second epoch is the first one again")
	}
	for i, e := range epochs {
		if e = slices.Sorted(slices.Values(e)); len(slices.Compact(e)) != len(j.talks) {
			t.Errorf("epoch %d visits %d of %d conversations", i, len(slices.Compact(e)), len(j.talks))
		}
	}
	want, err := j.Batch(22) // of the second epoch
	if err != nil {
		t.Fatal(err)
	}
	same, err := open().Batch(22)
	if err != nil {
		t.Fatal(err)
	}
	r.Seed++
	other, err := open().Batch(22)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if !want[i].Equal(same[i]) {
			t.Errorf("input %d is another one the second time", i)
		}
	}
	if want[1].Equal(other[1]) {
		t.Error("another seed gives the same batch")
	}
	ids := tensors.MustCopyFlatData[int32](want[1])
	for k := range r.Batch {
		row, err := j.chat.Conversation(example(j.talks[j.order.at(22*r.Batch+k)]), j.start.rows(), llavaov.OfficialLabels)
		if err != nil {
			t.Fatal(err)
		}
		if got := ids[k*j.length : k*j.length+len(row.IDs)]; !slices.Equal(got, row.IDs) {
			t.Errorf("row %d of batch 22 is another conversation than visit %d", k, 22*r.Batch+k)
		}
	}
}

// A run that stopped goes on bit for bit.
func TestJudgeGoesOn(t *testing.T) {
	be := enginetest.Go(t)
	r := judgeRecipe(smallJudge(t, authors), "orm", toyData(t, 8, trained(4)), "ranking")
	r.Accum, r.EMA = 2, .9
	build := func(be compute.Backend, r train.Recipe, _ string) (objective.Trainable, error) {
		return NewJudge(be, policy.Sources{Folders: shipped}, r)
	}
	whole, halves := t.TempDir(), t.TempDir()
	if err := objective.Run(t.Context(), be, r, whole, t.Output(), build); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stop := func(be compute.Backend, r train.Recipe, _ string) (objective.Trainable, error) {
		j, err := NewJudge(be, policy.Sources{Folders: shipped}, r)
		return &stopping{j, 5, cancel}, err
	}
	if err := objective.Run(ctx, be, r, halves, t.Output(), stop); !errors.Is(err, context.Canceled) {
		t.Fatalf("the run was not stopped: %v", err)
	}
	if err := objective.Run(t.Context(), be, r, halves, t.Output(), build); err != nil {
		t.Fatal(err)
	}
	a, err := ckpt.HashModel(os.DirFS(filepath.Join(whole, "final")))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := ckpt.HashModel(os.DirFS(filepath.Join(halves, "final"))); err != nil || a != b {
		t.Errorf("a run in two parts ends with other weights (%v)", err)
	}
}

// stopping is a judge whose run is stopped when a batch is made.
type stopping struct {
	*Judge
	at   int
	stop func()
}

func (s *stopping) Batch(i int) ([]*tensors.Tensor, error) {
	if i == s.at {
		s.stop()
	}
	return s.Judge.Batch(i)
}

// Groups and LoRA work on the official names: a frozen tower stays, an adapter changes what it targets and nothing else.
func TestGroupsAndLoRA(t *testing.T) {
	be := enginetest.Go(t)
	const tower = "model.vision_tower."
	for name, change := range map[string]func(r *train.Recipe){
		"freeze": func(r *train.Recipe) { r.Groups = []train.Group{{Match: `^model\.vision_tower\.`, Freeze: true}} },
		"slower": func(r *train.Recipe) {
			fifth := .2
			r.Groups = []train.Group{{Match: `^model\.vision_tower\.`, Scale: &fifth}}
		},
		"lora": func(r *train.Recipe) {
			r.LoRA = &train.LoRA{R: 2, Alpha: 4, Targets: []string{"q_proj", "down_proj", "mm_projector.0"}}
		},
	} {
		r := judgeRecipe(smallJudge(t, authors), "orm", toyData(t, 4, trained(2)), "ranking")
		r.MaxSteps, r.Clip = 1, 0
		change(&r)
		j, err := NewJudge(be, policy.Sources{Folders: shipped}, r)
		if err != nil {
			t.Fatal(err)
		}
		loop, err := train.New(be, r, j, &lastLog{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := loop.Run(t.Context(), func(int) error { return nil }); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		is, err := loop.Weights()
		if err != nil {
			t.Fatal(err)
		}
		was, err := j.Init()
		if err != nil {
			t.Fatal(err)
		}
		for n, w := range was {
			// Adam's first step is the learning rate wherever there is a gradient.
			step := furthest(w, is[n])
			want := r.LR
			switch in := strings.HasPrefix(n, tower); {
			case name == "freeze" && in:
				want = 0
			case name == "slower" && in:
				want = .2 * r.LR
			case name == "lora":
				changed := strings.HasSuffix(n, "q_proj.weight") || strings.HasSuffix(n, "down_proj.weight") || n == "model.mm_projector.0.weight"
				if changed != (step > 0) {
					t.Errorf("lora: %s moves by %v", n, step)
				}
				continue
			}
			if strings.HasSuffix(n, "k_proj.bias") { // the softmax takes no notice of it
				continue
			}
			if math.Abs(step-want) > .01*r.LR {
				t.Errorf("%s: %s moves by %v, want %v", name, n, step, want)
			}
		}
	}
}

func furthest(a, b *tensors.Tensor) float64 {
	x, y, most := tensors.MustCopyFlatData[float32](a), tensors.MustCopyFlatData[float32](b), 0.
	for i := range x {
		most = math.Max(most, math.Abs(float64(x[i]-y[i])))
	}
	return most
}

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
