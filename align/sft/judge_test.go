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
