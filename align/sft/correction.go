// Package sft is supervised fine-tuning: of the generator on corrections, and of judges on conversations.
//
// Correction teaches the generator to correct itself (Sec. 4 of the paper, "Self-correction Fine-tuning"): Show-o learns from
// groups of prompt, bad image, good image and reason.
//
//  1. a row is prompt and reason, the bad image, and the good image with a part of its tokens hidden
//  2. loss = mean cross-entropy of the hidden tokens, over the whole vocabulary, as in Show-o's own training
//  3. rows of the generator's own training (captions and scenes) go with every batch, so that plain generation survives
//
// In the tiny world a batch may hold corrections of rendered scenes too (Deviation D29): two scenes that differ in one thing, the
// prompt that one of them satisfies, and the reason why the other does not. There are as many as one likes.
//
// Judge turns a LLaVA-OneVision into a reward model (App. B) on curated data, as LLaVA's own training does. The tiny world's
// judges are tuned in train/objective, which packs many questions about an image, balances the answers, and has renders.
//
// The package knows neither how the data were made nor who gave labels and reasons.
package sft

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"imagecot/align/policy"
	"imagecot/ckpt"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/showo"
	"imagecot/train"
	"imagecot/train/objective"
	"imagecot/world"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// Data is the data part of a self-correction recipe.
type Data struct {
	From       string  `json:"from"`       // folder of groups (imagecot curate correction)
	Validation float64 `json:"validation"` // share of the scenes that is left out
	MinRate    float64 `json:"min_masking_rate"`
	Plain      int     `json:"plain"`      // rows of a batch that are plain text-to-image; the others are corrections
	PlainCoef  float64 `json:"plain_coef"` // weight of their loss beside 1 for corrections
	Renders    int     `json:"renders"`    // rows of a batch that are corrections of rendered scenes
	// The plain rows are those of a generator's recipe, and the rendered corrections are as many.
	Tokenizer string  `json:"tokenizer"` // checkpoint folder of the image tokenizer
	Scenes    int     `json:"scenes"`
	Dropout   float64 `json:"cond_dropout"`
}

// Correction is the objective.
type Correction struct {
	recipe  train.Recipe
	data    Data
	policy  *policy.Policy
	groups  []group
	renders []group
	plain   *objective.Generator // nil without plain rows
	from    []ckpt.Parent
	hash    string // of the groups
}

// group is a correction: text is prompt and reason.
type group struct{ text, bad, good []int32 }

var (
	_ objective.Trainable = (*Correction)(nil)
	_ objective.Derived   = (*Correction)(nil)
)

// own and rendered keep the numbers of correction rows apart from those of plain rows.
const (
	own      = 1
	rendered = 2
)

// NewCorrection reads groups and starting weights, and makes the plain rows' scenes.
func NewCorrection(be compute.Backend, open policy.Folders, r train.Recipe, dir string) (*Correction, error) {
	c := &Correction{recipe: r, data: Data{Validation: .1, PlainCoef: 1, Scenes: 8000, Dropout: .1}}
	if err := objective.DecodeStrict(r.Data, &c.data); err != nil {
		return nil, err
	}
	if err := train.RecipeError(c.data.validate(r.Batch)); err != nil {
		return nil, err
	}
	var err error
	if c.policy, err = policy.Open(open, r.InitFrom); err != nil {
		return nil, err
	}
	c.from = append(c.from, c.policy.Parent)
	if c.data.Plain+c.data.Renders > 0 {
		tokenizer, err := policy.Parent(os.DirFS(c.data.Tokenizer), "tokenizer", filepath.Base(c.data.Tokenizer))
		if err != nil {
			return nil, err
		}
		c.from = append(c.from, tokenizer)
	}
	rows, err := curate.ReadTraining[curate.Correction](c.data.From)
	if err != nil {
		return nil, fmt.Errorf("sft: groups: %w", err)
	}
	if c.hash, err = curate.Fingerprint(c.data.From); err != nil {
		return nil, err
	}
	if err := c.take(rows); err != nil {
		return nil, err
	}
	if err := c.openRenders(be, dir); err != nil {
		return nil, err
	}
	return c, c.openPlain(be, dir)
}

func (d Data) validate(batch int) error {
	switch {
	case d.From == "":
		return errors.New("sft: data.from is missing: which folder of self-correction data?")
	case d.Plain < 0 || d.Renders < 0 || d.Plain+d.Renders >= batch:
		return fmt.Errorf("sft: %d plain and %d rendered rows in a batch of %d leave none for groups", d.Plain, d.Renders, batch)
	case d.Plain+d.Renders > 0 && d.Tokenizer == "":
		return errors.New("sft: data.tokenizer is missing: whose tokens are plain and rendered rows?")
	case d.Plain+d.Renders > 0 && d.Scenes < 1:
		return fmt.Errorf("sft: plain and rendered rows of %d scenes, want at least 1", d.Scenes)
	case !(d.PlainCoef >= 0) || !(d.MinRate >= 0 && d.MinRate <= 1) || !(d.Validation >= 0 && d.Validation < 1):
		return fmt.Errorf("sft: plain_coef %v, min_masking_rate %v or validation %v is out of range", d.PlainCoef, d.MinRate, d.Validation)
	}
	return nil
}

// take keeps the groups of training prompts, refuses what cannot be learnt from, and encodes the texts.
func (c *Correction) take(rows []curate.Correction) error {
	for i, g := range rows {
		if err := errors.Join(c.policy.CheckTokens(g.Bad), c.policy.CheckTokens(g.Good)); err != nil {
			return fmt.Errorf("sft: group %d of %s (%q): %w", i, c.data.From, g.Prompt, err)
		}
		switch {
		case slices.Equal(g.Bad, g.Good):
			return fmt.Errorf("sft: group %d of %s (%q): the images are equal", i, c.data.From, g.Prompt)
		case g.Reason == "":
			return fmt.Errorf("sft: group %d of %s (%q): there is no reason", i, c.data.From, g.Prompt)
		case curate.Validation(g.Scene(), c.data.Validation):
			continue
		}
		c.groups = append(c.groups, group{c.encode(g.Prompt, g.Reason), g.Bad, g.Good})
	}
	if len(c.groups) == 0 {
		return fmt.Errorf("sft: %s holds no group of a training prompt (%d groups in all)", c.data.From, len(rows))
	}
	return nil
}

func (c *Correction) encode(prompt, reason string) []int32 {
	return c.policy.Text.Encode(showo.CorrectionText(prompt, reason))
}

// openRenders draws scenes with a change (world.Spoil) and tokenises both of each. Prompts that ask for a test prompt's scene,
// and validation prompts, are left out.
func (c *Correction) openRenders(be compute.Backend, dir string) error {
	if c.data.Renders == 0 {
		return nil
	}
	rng := prng.New(c.recipe.Seed, 0, prng.Scene, own).Rand()
	tasks := geneval.Tasks()
	var scenes []world.Scene // the bad one, then the good one
	for len(c.renders) < c.data.Scenes {
		good := world.Ordinary.Draw(rng)
		m, bad, ok := world.Spoil(rng, good, tasks[rng.IntN(len(tasks))])
		if !ok || curate.LeftOut(curate.Scene(m), c.data.Validation) {
			continue
		}
		reason, err := bad.Reason(m)
		if err != nil {
			return fmt.Errorf("sft: %w", err)
		}
		scenes = append(scenes, bad, good)
		c.renders = append(c.renders, group{text: c.encode(m.Prompt, reason)})
	}
	drawn := sha256.New()
	for _, g := range c.renders {
		fmt.Fprintln(drawn, g.text)
	}
	key := fmt.Sprintf("corrections/%d/%x", c.recipe.Seed, drawn.Sum(nil))
	tokens, err := objective.Tokenise(be, c.data.Tokenizer, scenes, filepath.Join(dir, "renders.safetensors"), key)
	if err != nil {
		return err
	}
	n := len(tokens) / len(scenes)
	if n != c.policy.Config.NumVQTokens {
		return fmt.Errorf("sft: rendered scenes have %d tokens, the generator's images %d: set renders to 0", n, c.policy.Config.NumVQTokens)
	}
	for i := range c.renders {
		both := tokens[2*i*n : 2*(i+1)*n]
		c.renders[i].bad, c.renders[i].good = both[:n], both[n:]
	}
	return nil
}

// openPlain prepares the generator's own training rows.
func (c *Correction) openPlain(be compute.Backend, dir string) error {
	if c.data.Plain == 0 {
		return nil
	}
	r := c.recipe
	r.Batch, r.InitFrom = c.data.Plain, ""
	r.Data = map[string]any{
		"tokenizer": c.data.Tokenizer, "scenes": c.data.Scenes, "cond_dropout": c.data.Dropout, "min_masking_rate": c.data.MinRate,
	}
	var err error
	if c.plain, err = objective.NewGenerator(be, r, dir); err != nil {
		return err
	}
	if !reflect.DeepEqual(c.plain.Architecture(), c.policy.Config) {
		return fmt.Errorf("sft: plain rows are made for the tiny world's generator, and %s is another one: set plain to 0", c.recipe.InitFrom)
	}
	return nil
}

// visit is the group of a place: epochs are permutations of all groups.
func (c *Correction) visit(v int) int {
	epoch := v / len(c.groups)
	return prng.New(c.recipe.Seed, epoch, prng.Order, own).Perm(len(c.groups))[v%len(c.groups)]
}

// Batch implements train.Objective: ids and labels [B, L], pads [B] of corrections, then the same of plain rows.
func (c *Correction) Batch(i int) ([]*tensors.Tensor, error) {
	b := c.recipe.Batch - c.data.Plain
	fromGroups := b - c.data.Renders
	masks, order := prng.New(c.recipe.Seed, i, prng.Masking, own), prng.New(c.recipe.Seed, i, prng.Order, rendered)
	var ids, labels, pads []int32
	cfg := c.policy.Config
	for k := range b {
		var g group
		if k < fromGroups {
			g = c.groups[c.visit(i*fromGroups+k)]
		} else {
			g = c.renders[order.Intn(len(c.renders))]
		}
		m := showo.DrawMask(cfg.ImageIDs(g.good), cfg.MaskTokenID, float32(c.data.MinRate), masks)
		row := c.policy.Prompting.Correction(g.text, cfg.ImageIDs(g.bad), m.IDs, m.Labels)
		ids, labels, pads = append(ids, row.IDs...), append(labels, row.Labels...), append(pads, int32(row.Pads))
	}
	out := []*tensors.Tensor{graphx.Tensor(ids, b, len(ids)/b), graphx.Tensor(labels, b, len(labels)/b), graphx.Tensor(pads, b)}
	if c.plain == nil {
		return out, nil
	}
	plain, err := c.plain.Batch(i)
	return append(out, plain...), err
}

// Loss implements train.Objective.
func (c *Correction) Loss(s graphx.Scope, in []*Node) (*Node, []*Node) {
	correction := showo.CorrectionLoss(s, c.policy.Config, in[0], in[1], in[2])
	if c.plain == nil {
		return correction, []*Node{correction}
	}
	plain := showo.T2ILoss(s, c.policy.Config, in[3], in[4], in[5])
	return Add(correction, MulScalar(plain, c.data.PlainCoef)), []*Node{correction, plain}
}

// Metrics implements train.Objective.
func (c *Correction) Metrics() []string {
	if c.plain == nil {
		return []string{"correction_loss"}
	}
	return []string{"correction_loss", "plain_loss"}
}

// Init implements train.Objective.
func (c *Correction) Init() (map[string]*tensors.Tensor, error) { return c.policy.Weights() }

// Config implements objective.Trainable.
func (c *Correction) Config() ([]byte, error) { return c.policy.JSON() }

// TextTokenizer implements objective.Worded.
func (c *Correction) TextTokenizer() map[string][]byte { return c.policy.TextTokenizer() }

// Final implements objective.Trainable.
func (c *Correction) Final(w map[string]*tensors.Tensor) map[string]*tensors.Tensor {
	return maps.Clone(w)
}

// Origin implements objective.Derived.
func (c *Correction) Origin() ([]ckpt.Parent, string) { return c.from, c.hash }
