// Package dpo moves the generator towards images that the evaluator finds right (Sec. 2.3 of the paper): direct preference
// optimisation on pairs of images as tokens.
//
//  1. a pair (chosen, rejected) of one prompt gets one mask ratio and one mask, drawn from the pair's seed
//  2. log pi(y) = sum over the hidden tokens of log softmax(logits)[token], over the whole vocabulary
//  3. log ref(y): the same by the starting weights, computed once and kept in the run's folder by mask
//  4. loss = -log sigmoid(beta ((log pi - log ref)(chosen) - (log pi - log ref)(rejected)))
//
// Deviation D20: the authors mask the two images of a pair independently, and drop their conditions independently, which
// makes the margin noisy; `official: true` does so too. The package knows neither how pairs were made nor who judged.
package dpo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"imagecot/align/policy"
	"imagecot/ckpt"
	"imagecot/curate"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/showo"
	"imagecot/train"
	"imagecot/train/objective"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// Data is the data part of a DPO recipe.
type Data struct {
	From      string  `json:"from"` // folder of preference pairs (imagecot curate pairs)
	Loss      Form    `json:"loss"`
	Beta      float64 `json:"beta"`
	Smoothing float64 `json:"label_smoothing"`
	PerToken  bool    `json:"length_normalised"` // log-ratios are means over the hidden tokens, not sums
	Masks     int     `json:"masks"`             // different masks of a pair, used in turn
	Average   int     `json:"average"`           // masks at one visit, over which log-ratios are averaged
	SFT       float64 `json:"sft_coef"`          // weight of the cross-entropy of chosen images
	MinRate   float64 `json:"min_masking_rate"`
	Dropout   float64 `json:"cond_dropout"`
	Official  bool    `json:"official"` // masks and drops the two sides independently, as the authors

	Validation float64 `json:"validation"` // share of scenes whose pairs are held out and watched
	WatchEvery int     `json:"watch_every"`
	Patience   int     `json:"patience"` // the run ends when the held-out loss fell short of its best so often in a row; 0 never
}

// Defaults are the paper's settings.
func Defaults() Data { return Data{Loss: Eq7, Beta: .1, Masks: 1, Average: 1, WatchEvery: 25} }

// DPO is the objective.
type DPO struct {
	recipe    train.Recipe
	data      Data
	options   Options
	backend   compute.Backend
	policy    *policy.Policy
	pairs     []curate.Pair
	texts     [][]int32 // of each pair
	used      int       // masks of a pair that the run visits
	reference []float32 // [pairs, used, 2]
	dir       string
	hash      string // of the pairs
	heldOut   heldOut
}

var (
	_ objective.Trainable = (*DPO)(nil)
	_ objective.Derived   = (*DPO)(nil)
	_ objective.Prepared  = (*DPO)(nil)
	_ train.Chooser       = (*DPO)(nil)
)

// cacheFile keeps the reference's log-probabilities in the run's folder.
const cacheFile = "reference.safetensors"

// New reads the pairs and the starting weights; what the reference thinks of the pairs is computed by Prepare.
func New(be compute.Backend, open policy.Folders, r train.Recipe, dir string) (*DPO, error) {
	d := &DPO{recipe: r, backend: be, dir: dir, data: Defaults()}
	if err := objective.DecodeStrict(r.Data, &d.data); err != nil {
		return nil, err
	}
	if err := train.RecipeError(d.data.Validate()); err != nil {
		return nil, err
	}
	d.options = Options{Form: d.data.Loss, Beta: d.data.Beta, Smoothing: d.data.Smoothing}
	var err error
	if d.policy, err = policy.Open(open, r.InitFrom); err != nil {
		return nil, err
	}
	if d.pairs, err = curate.ReadTraining[curate.Pair](d.data.From); err != nil {
		return nil, fmt.Errorf("dpo: pairs: %w", err)
	}
	if d.hash, err = curate.Fingerprint(d.data.From); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	if err := d.holdOut(); err != nil {
		return nil, err
	}
	d.countMasks()
	return d, nil
}

// countMasks finds how many masks of a pair the run visits.
func (d *DPO) countMasks() {
	visits := d.recipe.MaxSteps * d.recipe.Accum * d.recipe.Batch
	d.used = min(d.data.Masks, (visits+len(d.pairs)-1)/len(d.pairs)*d.data.Average)
}

// LeaveOut takes pairs out of the training, before Prepare. Without any left it is an error.
func (d *DPO) LeaveOut(out func(curate.Pair) bool) error {
	pairs, texts := d.pairs, d.texts
	d.pairs, d.texts = nil, nil
	for i, p := range pairs {
		if !out(p) {
			d.pairs, d.texts = append(d.pairs, p), append(d.texts, texts[i])
		}
	}
	if len(d.pairs) == 0 {
		return fmt.Errorf("dpo: all %d pairs of %s are left out", len(pairs), d.data.From)
	}
	d.countMasks()
	return nil
}

// Validate reports settings that cannot be trained with.
func (d Data) Validate() error {
	if err := (Options{Form: d.Loss, Beta: d.Beta, Smoothing: d.Smoothing}).Validate(); err != nil {
		return err
	}
	switch {
	case d.From == "":
		return errors.New("dpo: data.from is missing: which folder of pairs?")
	case !(d.Validation >= 0 && d.Validation < 1) || d.WatchEvery < 1 || d.Patience < 0:
		return fmt.Errorf("dpo: validation %v, watch_every %d or patience %d is out of range", d.Validation, d.WatchEvery, d.Patience)
	case d.Masks < 1 || d.Average < 1 || d.Average > d.Masks:
		return fmt.Errorf("dpo: %d masks a pair, %d at a visit, want 1 <= average <= masks", d.Masks, d.Average)
	case !(d.SFT >= 0) || !(d.MinRate >= 0 && d.MinRate <= 1) || !(d.Dropout >= 0 && d.Dropout < 1):
		return fmt.Errorf("dpo: sft_coef %v, min_masking_rate %v or cond_dropout %v is out of range", d.SFT, d.MinRate, d.Dropout)
	}
	return nil
}

// check refuses pairs that teach nothing or cannot be read, and encodes the prompts.
func (d *DPO) check() error {
	if len(d.pairs) == 0 {
		return fmt.Errorf("dpo: %s holds no pair", d.data.From)
	}
	for i, p := range d.pairs {
		if err := errors.Join(d.policy.CheckTokens(p.Chosen), d.policy.CheckTokens(p.Rejected)); err != nil {
			return fmt.Errorf("dpo: pair %d of %s (%q): %w", i, d.data.From, p.Prompt, err)
		}
		if slices.Equal(p.Chosen, p.Rejected) {
			return fmt.Errorf("dpo: pair %d of %s (%q): the images are equal", i, d.data.From, p.Prompt)
		}
		text := d.policy.Text.Encode(p.Prompt)
		if !d.policy.Prompting.Fits(text) {
			return fmt.Errorf("dpo: pair %d of %s: the prompt %q is too long for the generator", i, d.data.From, p.Prompt)
		}
		d.texts = append(d.texts, text)
	}
	return nil
}

// add appends the row of one side of a training pair, 0 for the chosen one, under one of the pair's masks.
func (d *DPO) add(rows *policy.Rows, pair, mask, side int) {
	d.addSide(rows, d.pairs[pair], d.texts[pair], mask, side)
}

func (d *DPO) addSide(rows *policy.Rows, p curate.Pair, text []int32, mask, side int) {
	stream := uint32(0)
	if d.data.Official {
		stream = uint32(side)
	}
	tokens := p.Chosen
	if side == 1 {
		tokens = p.Rejected
	}
	d.policy.Add(rows, text, tokens, policy.Masking{MinRate: d.data.MinRate, Dropout: d.data.Dropout}, p.Seed, mask, stream)
}

// Prepare implements objective.Prepared: the reference's log-probabilities, from the run's folder if they are there.
func (d *DPO) Prepare(ctx context.Context, show io.Writer) error {
	if err := d.heldOut.prepare(d); err != nil {
		return err
	}
	fmt.Fprintf(show, "%d pairs (%d more are held out), %d masks each; %d steps of %d pairs go through them %.3g times\n", len(d.pairs), len(d.heldOut.pairs), d.used, d.recipe.MaxSteps,
		d.recipe.Batch*d.recipe.Accum, float64(d.recipe.MaxSteps*d.recipe.Batch*d.recipe.Accum)/float64(len(d.pairs)))
	shape := []int{len(d.pairs), d.used, 2}
	pairs := uint64(0)
	for _, p := range d.pairs {
		pairs = prng.Derive(pairs, "pair", p.Seed)
	}
	key := fmt.Sprint(d.policy.Parent.SHA256, d.hash, shape, pairs, d.data.MinRate, d.data.Dropout, d.data.Official)
	f, err := ckpt.Open(filepath.Join(d.dir, cacheFile))
	if err == nil {
		defer f.Close()
		if f.Metadata()["key"] == key {
			d.reference, err = f.Float32("reference")
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	reference, err := d.policy.Reference(d.backend)
	if err != nil {
		return err
	}
	defer reference.Free()
	d.reference, err = reference.LogProbs(ctx, len(d.pairs)*d.used*2, func(rows *policy.Rows, i int) {
		d.add(rows, i/2/d.used, i/2%d.used, i%2)
	}, show)
	if err != nil {
		return err
	}
	table := ckpt.Tensor{Name: "reference", DType: ckpt.F32, Shape: shape, Values: d.reference}
	return ckpt.Write(filepath.Join(d.dir, cacheFile), []ckpt.Tensor{table}, map[string]string{"key": key})
}

// visit is the pair of a batch's place: epochs are permutations of all pairs.
func (d *DPO) visit(v int) (epoch, pair int) {
	epoch = v / len(d.pairs)
	return epoch, prng.New(d.recipe.Seed, epoch, prng.Order).Perm(len(d.pairs))[v%len(d.pairs)]
}

// Batch implements train.Objective: ids and labels [R, L], pads and reference log-probabilities [R], where R rows are
// [2, B, average]: chosen ones first.
func (d *DPO) Batch(i int) ([]*tensors.Tensor, error) {
	if d.reference == nil {
		return nil, errors.New("dpo: Prepare was not called")
	}
	var rows policy.Rows
	var reference []float32
	for side := range 2 {
		for b := range d.recipe.Batch {
			epoch, pair := d.visit(i*d.recipe.Batch + b)
			for a := range d.data.Average {
				mask := (epoch*d.data.Average + a) % d.used
				d.add(&rows, pair, mask, side)
				reference = append(reference, d.reference[(pair*d.used+mask)*2+side])
			}
		}
	}
	return append(rows.Tensors(), graphx.Tensor(reference, rows.Len())), nil
}

// Loss implements train.Objective.
func (d *DPO) Loss(s graphx.Scope, in []*Node) (*Node, []*Node) {
	t := Measure(s, d.policy.Config, in[0], in[1], in[2], in[3], d.data.Average, d.data.PerToken)
	perPair, margin := Loss(d.options, t.Chosen, t.Rejected)
	loss := ReduceAllMean(perPair)
	if d.data.SFT > 0 {
		loss = Add(loss, MulScalar(t.SFT, d.data.SFT))
	}
	wins := ConvertDType(GreaterThan(margin, ZerosLike(margin)), margin.DType())
	shift := Neg(MulScalar(Add(ReduceAllMean(t.Chosen), ReduceAllMean(t.Rejected)), .5))
	return loss, []*Node{ReduceAllMean(margin), ReduceAllMean(wins), ReduceAllMean(t.Chosen), ReduceAllMean(t.Rejected), shift}
}

// Metrics implements train.Objective. The shifts are how far log p moved from the reference. The images of the pairs were
// drawn from (about) the reference, so that the mean of log ref - log pi over both sides estimates KL(ref || pi), in nats
// an image.
func (d *DPO) Metrics() []string {
	return []string{"margin", "accuracy", "chosen_shift", "rejected_shift", "reference_kl"}
}

// Ratios are the log-ratios of pairs [B], policy against reference, and the cross-entropy a hidden token of chosen images.
type Ratios struct{ Chosen, Rejected, SFT *Node }

// Measure computes the log-ratios of rows [2, B, average] (see DPO.Batch), averaged over the masks.
func Measure(s graphx.Scope, cfg showo.Config, ids, labels, pads, reference *Node, average int, perToken bool) Ratios {
	sum, n := showo.T2ILogProbs(s, cfg, ids, labels, pads)
	rows := sum.Shape().Dimensions[0]
	ratio := Sub(sum, reference)
	if perToken {
		ratio = Div(ratio, n)
	}
	ratio = ReduceMean(Reshape(ratio, 2, rows/2/average, average), -1)
	side := func(i int) *Node { return Squeeze(Slice(ratio, AxisElem(i)), 0) }
	chosen := func(x *Node) *Node { return ReduceAllSum(Slice(x, AxisRange(0, rows/2))) }
	return Ratios{Chosen: side(0), Rejected: side(1), SFT: Neg(Div(chosen(sum), chosen(n)))}
}

// Init implements train.Objective.
func (d *DPO) Init() (map[string]*tensors.Tensor, error) { return d.policy.Weights() }

// Config implements objective.Trainable.
func (d *DPO) Config() ([]byte, error) { return d.policy.JSON() }

// TextTokenizer implements objective.Worded.
func (d *DPO) TextTokenizer() map[string][]byte { return d.policy.TextTokenizer() }

// Final implements objective.Trainable.
func (d *DPO) Final(w map[string]*tensors.Tensor) map[string]*tensors.Tensor { return maps.Clone(w) }

// Origin implements objective.Derived. The starting weights are the reference too.
func (d *DPO) Origin() ([]ckpt.Parent, string) { return []ckpt.Parent{d.policy.Parent}, d.hash }
