package objective

import (
	"maps"
	"math/rand/v2"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/llavaov"
	"imagecot/train"
	"imagecot/verify/questions"
	"imagecot/world"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Judge trains the zero-shot judge on rendered scenes alone: questions whose answers are computed from the scene,
// captions, and a dense head on the tower that stands for its pre-training and is thrown away.
type Judge struct {
	recipe train.Recipe
	data   JudgeData
	config llavaov.Config
	chat   *llavaov.Chat
	set    questions.Set
	loss   llavaov.PackedOptions
	from   []ckpt.Parent
}

// JudgeData is the data part of a zero-shot judge's recipe.
type JudgeData struct {
	Questions int     `json:"questions"`    // outcome questions an image; one in other words and a caption come on top
	Length    int     `json:"length"`       // positions of a segment
	Tidy      float64 `json:"tidy"`         // share of the run that sees tidy scenes and first questions only
	Position  float64 `json:"position"`     // share of the run, after that, that sees two objects and is asked where they lie
	Opposites bool    `json:"opposites"`    // a position asked about is asked about with the opposite relation too
	Scramble  float64 `json:"scramble"`     // share of images whose cells are shuffled: not clear, and nothing is shown
	Blur      float64 `json:"blur"`         // greatest standard deviation of the blur, pixels; half of the images are blurred
	Noise     float64 `json:"noise"`        // greatest standard deviation of the noise, range -1..1
	Dense     float64 `json:"dense_weight"` // weight of the dense head's loss
}

// describe is the instruction that captions answer.
const describe = "describe it."

// NewJudge checks the recipe's data part; the architecture is the tiny world's.
func NewJudge(r train.Recipe) (*Judge, error) {
	j := &Judge{recipe: r, data: JudgeData{Questions: 4, Length: 24, Tidy: .2, Scramble: .05, Blur: 1, Noise: .06, Dense: .5}}
	if err := DecodeStrict(r.Data, &j.data); err != nil {
		return nil, err
	}
	tok, err := textTokenizer()
	if err != nil {
		return nil, err
	}
	j.config = llavaov.Tiny(tok.VocabSize())
	if j.chat, err = llavaov.NewChat(tok); err != nil {
		return nil, err
	}
	if j.loss, err = j.chat.Options(j.data.Dense); err != nil {
		return nil, err
	}
	if j.from, err = parents("init", r.InitFrom); err != nil {
		return nil, err
	}
	j.set, err = questions.Get("tiny")
	return j, err
}

// Origin implements Derived.
func (j *Judge) Origin() ([]ckpt.Parent, string) { return j.from, "" }

// textTokenizer is the tiny world's text tokenizer.
func textTokenizer() (*bpe.Tokenizer, error) {
	text, err := Vocabulary()
	if err != nil {
		return nil, err
	}
	return bpe.Load(text)
}

// Config implements Trainable.
func (j *Judge) Config() ([]byte, error) { return j.config.JSON() }

// Final implements Trainable: all but the dense head.
func (j *Judge) Final(w map[string]*tensors.Tensor) map[string]*tensors.Tensor {
	return llavaov.WithoutDense(w)
}

// Init implements train.Objective.
func (j *Judge) Init() (map[string]*tensors.Tensor, error) {
	rng := prng.New(j.recipe.Seed, 0, prng.Init).Rand()
	weights := llavaov.Init(j.config, rng)
	dense := llavaov.DenseInit(j.config, rng)
	maps.Copy(weights, dense)
	return weights, startFrom(j.recipe.InitFrom, weights, llavaov.Canonical, func(name string) bool { return dense[name] != nil })
}

// Batch implements train.Objective: pixels, the packed segments, and the dense head's labels.
func (j *Judge) Batch(i int) ([]*tensors.Tensor, error) {
	rng := prng.New(j.recipe.Seed, i, prng.Scene).Rand()
	const size, cells = world.Side * world.Side * 3, world.Cells * world.Cells
	b := j.recipe.Batch
	pixels := make([]float32, b*size)
	dense := [3][]int32{make([]int32, b*cells), make([]int32, b*cells), make([]int32, b*cells)}
	examples := make([][]llavaov.Example, b)
	scenes, asked := j.mixes(i)
	for k := range b {
		scene := scenes.Draw(rng)
		pix := pixels[k*size : (k+1)*size]
		world.RenderInto(pix, scene)
		scrambled := rng.Float64() < j.data.Scramble
		if scrambled {
			scramble(pix, rng)
		} else {
			for c, p := range scene.Patches() {
				dense[0][k*cells+c], dense[1][k*cells+c], dense[2][k*cells+c] = int32(p.Shape+1), int32(p.Colour+1), int32(p.Place+1)
			}
		}
		j.spoil(pix, rng)
		examples[k] = j.examples(scene, asked, scrambled, rng)
	}
	packed, err := j.chat.Pack(examples, j.data.Questions+2, j.data.Length, llavaov.TinyShares)
	if err != nil {
		return nil, err
	}
	out := append([]*tensors.Tensor{graphx.Tensor(pixels, b, world.Side, world.Side, 3)}, packed.Tensors()...)
	for _, labels := range dense {
		out = append(out, graphx.Tensor(labels, b, cells))
	}
	return out, nil
}

// mixes are what the batch shows and asks.
func (j *Judge) mixes(batch int) (world.Mix, world.QuestionMix) {
	switch done := float64(batch) / float64(j.recipe.MaxSteps*j.recipe.Accum); {
	case done < j.data.Tidy:
		return world.Ordinary, world.FirstQuestions
	case done < j.data.Tidy+j.data.Position:
		return world.Pairs, world.PositionQuestions
	}
	return world.JudgeMix, world.LaterQuestions
}

// examples are what is asked and said about one image.
func (j *Judge) examples(s world.Scene, mix world.QuestionMix, scrambled bool, rng *rand.Rand) []llavaov.Example {
	var out []llavaov.Example
	for len(out) < j.data.Questions {
		q := mix.Draw(rng, s)
		out = append(out, j.ask(cot.Outcome, q, scrambled))
		if opposite, ok := world.Opposite(q); ok && j.data.Opposites && len(out) < j.data.Questions {
			out = append(out, j.ask(cot.Outcome, opposite, scrambled))
		}
	}
	other := []cot.QuestionKind{cot.Process, cot.Potential, cot.Clarity}[rng.IntN(3)]
	q := mix.Draw(rng, s)
	if other == cot.Clarity {
		q.Label = true
	}
	out = append(out, j.ask(other, q, scrambled))
	if !scrambled {
		out = append(out, llavaov.Example{{Text: describe, Answer: world.Caption(rng, s)}})
	}
	return out
}

// ask is one question with its answer; the prompt of a question answered yes is learned word by word.
func (j *Judge) ask(kind cot.QuestionKind, q world.Question, scrambled bool) llavaov.Example {
	turn := llavaov.ExampleTurn{Text: j.set.Text(kind, cot.Prompt{Text: q.Prompt.Prompt}), Answer: "no"}
	if q.Label && !scrambled {
		turn.Answer = "yes"
		if kind != cot.Clarity {
			turn.Words = q.Prompt.Prompt
		}
	}
	return llavaov.Example{turn}
}

// spoil blurs half of the images and adds noise.
func (j *Judge) spoil(pix []float32, rng *rand.Rand) {
	if rng.Float64() < .5 && j.data.Blur > 0 {
		world.Blur(pix, rng.Float64()*j.data.Blur)
	}
	world.AddNoise(pix, rng.Float64()*j.data.Noise, rng)
}

// scramble shuffles the cells of an image: the look of an early decoding step, made from renders alone.
func scramble(pix []float32, rng *rand.Rand) {
	const cell, row = world.Side / world.Cells, world.Side * 3
	old := append([]float32(nil), pix...)
	for to, from := range rng.Perm(world.Cells * world.Cells) {
		for y := range cell {
			a := (to/world.Cells*cell+y)*row + to%world.Cells*cell*3
			b := (from/world.Cells*cell+y)*row + from%world.Cells*cell*3
			copy(pix[a:a+cell*3], old[b:b+cell*3])
		}
	}
}

// Loss implements train.Objective.
func (j *Judge) Loss(s graphx.Scope, in []*graph.Node) (*graph.Node, []*graph.Node) {
	l := llavaov.PackedLoss(s, j.config, j.loss, llavaov.PackedInputs{
		Pixels: in[0], IDs: in[1], Targets: in[2], Weights: in[3], Answers: in[4],
		Dense: &llavaov.DenseInputs{Shape: in[5], Colour: in[6], Place: in[7]},
	})
	return l.Loss, []*graph.Node{l.Text, l.Answer, l.Accuracy, l.Dense}
}

// Metrics implements train.Objective.
func (j *Judge) Metrics() []string {
	return []string{"text_loss", "answer_loss", "answer_accuracy", "dense_loss"}
}
