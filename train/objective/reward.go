package objective

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/train"
	"imagecot/world"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Reward fine-tunes the zero-shot judge into a reward model on the generator's own step images (App. B): the ORM on
// final images, the PRM on steps labelled by roll-outs, PARM on clarity, potential and outcome at once, PARM++ on these,
// on reflections and on reasons in words. Labels are balanced inside a prompt (and inside a step, where that is not the
// question itself), so that neither prompt nor step gives them away. Some rendered scenes with the zero-shot judge's
// questions keep alive what it knew.
type Reward struct {
	judge   *Judge // words, chat template, architecture, and the questions about renders
	recipe  train.Recipe
	data    RewardData
	decode  *magvit.Tokenizer
	draw    func(rng *rand.Rand) []shown // one group of step images that belong together
	group   int                          // images of a group
	origins []ckpt.Parent
	hash    string
}

// RewardData is the data part of a reward model's recipe.
type RewardData struct {
	Reward       string  `json:"reward"`         // orm, prm, parm or parmpp
	From         string  `json:"from"`           // folder of curated data: ranking, steps or parm (for parmpp too)
	Reflection   string  `json:"reflection"`     // parmpp: folder of reflection data
	Reflections  float64 `json:"reflections"`    // parmpp: share of the step images that are reflected upon
	RenderReason bool    `json:"render_reasons"` // parmpp: half of the questions about renders are reflections, with reasons
	ReasonWeight float64 `json:"reason_weight"`  // parmpp: of a reason, beside 1 for another answer
	Tokenizer    string  `json:"tokenizer"`      // checkpoint folder of the image tokenizer
	Validation   float64 `json:"validation"`
	Renders      int     `json:"renders"`       // rendered scenes of a batch
	Questions    int     `json:"questions"`     // questions about a render
	RenderWeight float64 `json:"render_weight"` // of such a question, beside 1 for one about a step image
	Length       int     `json:"length"`        // positions of a segment
	// NotClear is the weight of a no to clarity, beside 1 for a yes (Deviation D27). PARM asks no more after the first
	// yes, so that one false yes among many steps spoils a path, and a false no costs one step.
	NotClear float64 `json:"not_clear_weight"`
	Mirror   bool    `json:"mirror"` // half of the groups are mirrored, words and all: other images of few prompts
	// Others is how many other prompts each image is asked about (Deviation D28): its own, of which there are few, are
	// learned by heart. What the detector sees in the final image answers them, and none asks for a scene that is left out.
	Others int `json:"others"`
}

// shown is one step image of a prompt and what is asked about it.
type shown struct {
	prompt   string
	tokens   []int32
	examples []llavaov.Example
	final    []int32          // the path's final image, which answers other questions; nil: none is asked
	other    cot.QuestionKind // what these ask: outcome, or potential before the last step
}

// mirror turns the words of what is asked, if training does not leave the mirrored prompt's scene out.
func (s *shown) mirror(leftOut func(geneval.Metadata) bool) bool {
	m, err := world.ParsePrompt(world.MirrorText(s.prompt))
	if err != nil || leftOut(m) {
		return false
	}
	for _, e := range s.examples {
		for i := range e {
			e[i].Text, e[i].Answer = world.MirrorText(e[i].Text), world.MirrorText(e[i].Answer)
		}
	}
	return true
}

// leftOut says whether a prompt asks for a scene that tests or chooses among models.
func (w *Reward) leftOut(m geneval.Metadata) bool {
	return curate.LeftOut(curate.Scene(m), w.data.Validation)
}

// NewReward reads the data and the tokenizer.
func NewReward(be compute.Backend, r train.Recipe) (*Reward, error) {
	w := &Reward{recipe: r, data: RewardData{Validation: .1, Renders: 4, Questions: 2, RenderWeight: .5, Length: 40, Reflections: .3, ReasonWeight: 1, NotClear: 1}}
	if err := DecodeStrict(r.Data, &w.data); err != nil {
		return nil, err
	}
	if r.InitFrom == "" {
		return nil, train.RecipeError(errors.New("objective: reward: init_from is missing: a reward model starts from the zero-shot judge"))
	}
	if w.data.From == "" {
		return nil, train.RecipeError(errors.New("objective: reward: data.from is missing: which folder of curated data?"))
	}
	plain := r
	plain.Data = nil
	var err error
	if w.judge, err = NewJudge(plain); err != nil {
		return nil, err
	}
	switch w.data.Reward {
	case "orm":
		w.group, err = 2, w.openORM()
	case "prm":
		w.group, err = 2, w.openPRM()
	case "parm":
		w.group, err = 4, w.openPARM()
	case "parmpp":
		w.group, err = 4, w.openPARMPP()
	default:
		err = train.RecipeError(fmt.Errorf("objective: reward: %q is no reward model (orm, prm, parm, parmpp)", w.data.Reward))
	}
	if err != nil {
		return nil, err
	}
	if w.data.RenderReason && w.data.Reward != "parmpp" {
		return nil, train.RecipeError(fmt.Errorf("objective: reward: render_reasons belongs to parmpp, not to %s", w.data.Reward))
	}
	images := r.Batch - w.data.Renders
	if w.data.Renders < 0 || images < w.group || images%w.group != 0 || (w.data.Renders > 0 && w.data.Questions < 1) {
		return nil, train.RecipeError(fmt.Errorf("objective: reward: a batch of %d with %d renders leaves %d step images, want a multiple of %d",
			r.Batch, w.data.Renders, images, w.group))
	}
	if w.decode, err = magvit.Open(be, w.data.Tokenizer, magvit.Options{Batch: images}); err != nil {
		return nil, err
	}
	if w.hash, err = w.fingerprint(); err != nil {
		return nil, err
	}
	w.origins, err = parents("init", r.InitFrom, "tokenizer", w.data.Tokenizer)
	return w, err
}

// ask is a question of that kind with its answer.
func (w *Reward) ask(kind cot.QuestionKind, prompt string, yes bool) llavaov.ExampleTurn {
	answer := "no"
	if yes {
		answer = "yes"
	}
	return llavaov.ExampleTurn{Text: w.judge.set.Text(kind, cot.Prompt{Text: prompt}), Answer: answer}
}

// pairedRows reads the rows of the scenes that are trained on, and pairs them by their labels inside the groups that item names.
func pairedRows[Row interface{ Scene() string }](from string, validation float64, item func(Row) curate.Item) ([]Row, *curate.Pairs, error) {
	rows, err := curate.ReadTraining[Row](from)
	if err != nil {
		return nil, nil, err
	}
	rows = slices.DeleteFunc(rows, func(r Row) bool { return curate.Validation(r.Scene(), validation) })
	var items []curate.Item
	for _, r := range rows {
		items = append(items, item(r))
	}
	pairs, err := curate.NewPairs(items)
	return rows, pairs, err
}

// openORM pairs a right and a wrong final image of one prompt.
func (w *Reward) openORM() error {
	kept, pairs, err := pairedRows(w.data.From, w.data.Validation, func(r curate.Image) curate.Item {
		return curate.Item{Task: r.Task, Group: r.Prompt, Yes: r.Correct}
	})
	if err != nil {
		return err
	}
	w.draw = func(rng *rand.Rand) []shown {
		var out []shown
		yes, no := pairs.Draw(rng)
		for _, i := range []int{yes, no} {
			out = append(out, shown{
				prompt: kept[i].Prompt, tokens: kept[i].Final(), examples: []llavaov.Example{{w.ask(cot.Outcome, kept[i].Prompt, i == yes)}},
				final: kept[i].Final(), other: cot.Outcome,
			})
		}
		return out
	}
	return nil
}

// openPRM pairs a promising and a hopeless image of the same step of one prompt.
func (w *Reward) openPRM() error {
	kept, pairs, err := pairedRows(w.data.From, w.data.Validation, func(r curate.Step) curate.Item {
		return curate.Item{Task: r.Task, Group: fmt.Sprint(r.Prompt, "@", r.Step), Yes: r.Yes()}
	})
	if err != nil {
		return err
	}
	w.draw = func(rng *rand.Rand) []shown {
		var out []shown
		yes, no := pairs.Draw(rng)
		for _, i := range []int{yes, no} {
			out = append(out, shown{prompt: kept[i].Prompt, tokens: kept[i].Sample, examples: []llavaov.Example{{w.ask(cot.Process, kept[i].Prompt, i == yes)}}})
		}
		return out
	}
	return nil
}

// takenForGranted is the weight of the clarity answer that precedes a potential question: it is asked on its own.
const takenForGranted = 1e-3

// openPARM makes groups of four images of one prompt: two of the same step, one with and one without potential, and two
// on the other side of clarity. Half of the groups take the last step, where the outcome is asked as well, and the rest
// the other steps whose potential is labelled, one as often as the other.
func (w *Reward) openPARM() error {
	rows, err := curate.ReadTraining[curate.Parm](w.data.From)
	if err != nil {
		return err
	}
	var finals, steps parmRows
	last := map[parmPath][]int32{}
	clear, blurred := map[string][]curate.Parm{}, map[string][]curate.Parm{}
	for _, r := range rows {
		if curate.Validation(r.Scene(), w.data.Validation) {
			continue
		}
		switch curate.Label(r.Clarity) {
		case curate.Yes:
			clear[r.Prompt] = append(clear[r.Prompt], r)
		case curate.No:
			blurred[r.Prompt] = append(blurred[r.Prompt], r)
		}
		switch {
		case curate.Label(r.Outcome) != curate.NotAsked:
			finals.add(r, r.Prompt, r.Outcome)
			last[parmPath{r.Prompt, r.Seed}] = r.Sample
		case curate.Label(r.Potential) != curate.NotAsked:
			steps.add(r, fmt.Sprint(r.Prompt, "@", r.Step), r.Potential)
		}
	}
	for _, r := range append(finals.rows, steps.rows...) {
		if len(clear[r.Prompt]) == 0 || len(blurred[r.Prompt]) == 0 {
			return fmt.Errorf("objective: reward: %s has %d clear steps and %d others of %q", w.data.From, len(clear[r.Prompt]), len(blurred[r.Prompt]), r.Prompt)
		}
	}
	if err := errors.Join(finals.pair(), steps.pair()); err != nil {
		return err
	}
	w.draw = func(rng *rand.Rand) []shown {
		from := steps
		if rng.IntN(2) == 0 {
			from = finals
		}
		yes, no := from.pairs.Draw(rng)
		out := []shown{w.step(from.rows[yes], true), w.step(from.rows[no], false)}
		for i, row := range []int{yes, no} {
			out[i].final = last[parmPath{from.rows[row].Prompt, from.rows[row].Seed}]
		}
		others := [2]map[string][]curate.Parm{clear, blurred}
		switch curate.Label(from.rows[yes].Clarity) {
		case curate.Yes:
			others[0] = blurred
		case curate.No:
			others[1] = clear
		}
		for _, other := range others {
			rows := other[from.rows[yes].Prompt]
			r, again := rows[rng.IntN(len(rows))], rows[rng.IntN(len(rows))]
			if curate.Label(r.Clarity) == curate.No && again.Step > r.Step {
				r = again // late steps are the hard ones
			}
			out = append(out, shown{prompt: r.Prompt, tokens: r.Sample, examples: []llavaov.Example{{w.clarity(r)}}})
		}
		return out
	}
	return nil
}

// parmPath names a path of PARM's data, of which there may be several sets.
type parmPath struct {
	prompt string
	seed   uint64
}

// parmRows are rows whose labels come in pairs of yes and no.
type parmRows struct {
	rows  []curate.Parm
	items []curate.Item
	pairs *curate.Pairs
}

func (p *parmRows) add(r curate.Parm, group string, label int32) {
	p.rows = append(p.rows, r)
	p.items = append(p.items, curate.Item{Task: r.Task, Group: group, Yes: curate.Label(label) == curate.Yes})
}

func (p *parmRows) pair() (err error) {
	p.pairs, err = curate.NewPairs(p.items)
	return err
}

// clarity is the first task's question about a step whose clarity is labelled.
func (w *Reward) clarity(r curate.Parm) llavaov.ExampleTurn {
	turn := w.ask(cot.Clarity, r.Prompt, curate.Label(r.Clarity) == curate.Yes)
	if curate.Label(r.Clarity) == curate.No {
		turn.Weight = w.data.NotClear
	}
	return turn
}

// step asks everything about a step image: clarity, potential as the second turn, and the outcome at the last step.
func (w *Reward) step(r curate.Parm, good bool) shown {
	s := shown{prompt: r.Prompt, tokens: r.Sample, examples: []llavaov.Example{w.potential(r.Prompt, good)}, other: cot.Potential}
	if curate.Label(r.Clarity) != curate.NotAsked {
		s.examples = append(s.examples, llavaov.Example{w.clarity(r)})
	}
	if curate.Label(r.Outcome) != curate.NotAsked {
		s.examples = append(s.examples, llavaov.Example{w.ask(cot.Outcome, r.Prompt, good)})
		s.other = cot.Outcome
	}
	return s
}

// potential asks for it as the second turn, after a clarity that is taken for granted.
func (w *Reward) potential(prompt string, good bool) llavaov.Example {
	granted := w.ask(cot.Clarity, prompt, true)
	granted.Weight = takenForGranted
	return llavaov.Example{granted, w.ask(cot.Potential, prompt, good)}
}

// Init implements train.Objective: the zero-shot judge's weights.
func (w *Reward) Init() (map[string]*tensors.Tensor, error) {
	f, err := ckpt.OpenModel(w.recipe.InitFrom)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := llavaov.LoadWeights(w.judge.config, f); err != nil { // says what is missing or in the way
		return nil, err
	}
	out := map[string]*tensors.Tensor{}
	for _, name := range f.Names() {
		values, err := f.Float32(name)
		if err != nil {
			return nil, err
		}
		info, _ := f.Info(name)
		out[llavaov.Canonical(name)] = graphx.Tensor(values, info.Shape...)
	}
	return out, nil
}

// Batch implements train.Objective: step images first, then renders.
func (w *Reward) Batch(i int) ([]*tensors.Tensor, error) {
	rng := prng.New(w.recipe.Seed, i, prng.Order).Rand()
	const size = world.Side * world.Side * 3
	pixels := make([]float32, w.recipe.Batch*size)
	examples := make([][]llavaov.Example, 0, w.recipe.Batch)
	var tokens [][]int32
	var all []shown
	var mirrored []bool
	for len(tokens) < w.recipe.Batch-w.data.Renders {
		turn := w.data.Mirror && rng.IntN(2) == 0
		for _, s := range w.draw(rng) {
			mirrored = append(mirrored, turn && s.mirror(w.leftOut))
			tokens = append(tokens, s.tokens)
			all = append(all, s)
		}
	}
	images, err := w.decode.Decode(context.Background(), tokens)
	if err != nil {
		return nil, err
	}
	for k, img := range images {
		world.ImageInto(pixels[k*size:], img)
		if mirrored[k] {
			world.Mirror(pixels[k*size : (k+1)*size])
		}
	}
	if err := w.askOthers(all, mirrored, rng); err != nil {
		return nil, err
	}
	for _, s := range all {
		examples = append(examples, s.examples)
	}
	segments := 1
	if strings.HasPrefix(w.data.Reward, "parm") {
		segments = 3 // clarity, potential, outcome
	}
	segments += w.data.Others
	if w.data.Renders > 0 {
		segments = max(segments, w.data.Questions)
	}
	for k := len(images); k < w.recipe.Batch; k++ {
		scene := world.JudgeMix.Draw(rng)
		pix := pixels[k*size : (k+1)*size]
		world.RenderInto(pix, scene)
		w.judge.spoil(pix, rng)
		asked, err := w.render(scene, rng)
		if err != nil {
			return nil, err
		}
		examples = append(examples, asked)
	}
	packed, err := w.judge.chat.Pack(examples, segments, w.data.Length, llavaov.TinyShares)
	if err != nil {
		return nil, err
	}
	return append([]*tensors.Tensor{graphx.Tensor(pixels, w.recipe.Batch, world.Side, world.Side, 3)}, packed.Tensors()...), nil
}

// render asks the zero-shot judge's outcome questions about a scene; PARM++ may reflect on it instead.
func (w *Reward) render(s world.Scene, rng *rand.Rand) ([]llavaov.Example, error) {
	var out []llavaov.Example
	for range w.data.Questions {
		q := world.LaterQuestions.Draw(rng, s)
		if w.data.RenderReason && rng.IntN(2) == 0 {
			e, err := w.reflectOnRender(s, q)
			if err != nil {
				return nil, err
			}
			out = append(out, e)
			continue
		}
		e := w.judge.ask(cot.Outcome, q, false)
		e[0].Words, e[0].Weight = "", w.data.RenderWeight
		out = append(out, e)
	}
	return out, nil
}

// Loss implements train.Objective.
func (w *Reward) Loss(s graphx.Scope, in []*graph.Node) (*graph.Node, []*graph.Node) {
	l := llavaov.PackedLoss(s, w.judge.config, w.judge.loss, llavaov.PackedInputs{
		Pixels: in[0], IDs: in[1], Targets: in[2], Weights: in[3], Answers: in[4],
	})
	return l.Loss, []*graph.Node{l.Answer, l.Accuracy}
}

// Metrics implements train.Objective.
func (w *Reward) Metrics() []string { return []string{"answer_loss", "answer_accuracy"} }

// Config implements Trainable.
func (w *Reward) Config() ([]byte, error) { return w.judge.config.JSON() }

// Final implements Trainable.
func (w *Reward) Final(weights map[string]*tensors.Tensor) map[string]*tensors.Tensor {
	return maps.Clone(weights)
}

// Origin names the checkpoints that this one was trained from and the hash of its data, for the manifest.
func (w *Reward) Origin() ([]ckpt.Parent, string) { return w.origins, w.hash }
