// Package guide adds a reward model to DPO (Sec. 2.4 of the paper, "reward model guidance"): an online objective on prompts
// alone. Every few steps
//
//  1. draw a group of images a prompt with the present weights; the reward model scores them by P(yes)
//  2. method pairs: the best and the worst of a group are a preference pair for the DPO loss against the starting weights;
//     method group (an extension: GRPO on masked tokens): every image weighs by its advantage over its group,
//     loss = -mean(advantage * log pi / tokens) + kl_coef * KL(pi || ref)
//  3. all images of a group share ratio and mask
//
// and the DPO loss on offline pairs is added. Deviation D22: the authors add -log P(yes) of images that are sampled outside
// the graph, a constant that moves nothing; `method: official` does so too.
//
// Rewards are won by deceiving the reward model, too: prompts that are not trained on, a second judge, the evaluator, the
// distance to the starting weights and the variety of images are watched, and the run stops by rule. The package knows
// judges by interface and images as tokens.
package guide

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"imagecot/align/dpo"
	"imagecot/align/policy"
	"imagecot/ckpt"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/atomicfile"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"
	"imagecot/models/showo"
	"imagecot/train"
	"imagecot/train/objective"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
)

// Method is how rewards become a loss.
type Method string

// The methods.
const (
	Pairs    Method = "pairs"    // DPO on best against worst
	Group    Method = "group"    // policy gradient by advantages inside the group: an extension
	Official Method = "official" // the authors' constant, which has no gradient: an ablation
)

// Data is the data part of the recipe. A pass of the online term has Visits groups.
type Data struct {
	policy.Drawing
	Judge   string         `json:"judge"`          // reward model: a shipped judge, a preset or a folder
	HeldOut string         `json:"held_out_judge"` // a judge that nothing is trained on; "" watches without one
	DPO     map[string]any `json:"dpo"`            // data part of the offline term, as in a DPO recipe
	DPOCoef float64        `json:"dpo_coef"`       // weight of the offline term; 0 needs no pairs
	Reward  float64        `json:"reward_coef"`    // weight of the online term
	Method  Method         `json:"method"`
	Every   int            `json:"every"`  // steps between two draws
	Groups  int            `json:"groups"` // prompts of a draw
	Each    int            `json:"each"`   // images of a group
	Visits  int            `json:"groups_a_pass"`
	MinGap  float64        `json:"min_gap"` // least difference of rewards of a pair (pairs), least spread of a group (group)
	Beta    float64        `json:"beta"`    // of online pairs
	KL      float64        `json:"kl_coef"` // group only
	MinRate float64        `json:"min_masking_rate"`
	// Validation is the share of scenes that is neither drawn nor learned from (curate.Validation).
	Validation float64 `json:"validation"`
	Watch      Watch   `json:"watch"`
	Stop       Stop    `json:"stop"`
}

// Defaults are pairs of best and worst beside offline pairs.
func Defaults() Data {
	return Data{
		Drawing: policy.DefaultDrawing(), DPOCoef: 1, Reward: 1, Method: Pairs, Every: 4, Groups: 16, Each: 4, Visits: 16,
		MinGap: .05, Beta: .1, KL: .05, Watch: Watch{Every: 50, Prompts: 24, Each: 2}, Stop: Stop{Patience: 2, Drop: .1},
	}
}

// Validate reports settings that cannot be trained with.
func (d Data) Validate() error {
	switch {
	case d.Method != Pairs && d.Method != Group && d.Method != Official:
		return fmt.Errorf("guide: method %q, want pairs, group or official", d.Method)
	case d.Judge == "":
		return errors.New("guide: data.judge is missing: which reward model?")
	case !(d.DPOCoef >= 0) || !(d.Reward > 0):
		return fmt.Errorf("guide: dpo_coef is %v and reward_coef %v, want at least 0 and above 0", d.DPOCoef, d.Reward)
	case d.Method == Official && d.DPOCoef == 0:
		return errors.New("guide: method official with dpo_coef 0 has no gradient at all")
	case d.Every < 1 || d.Groups < 1 || d.Each < 2 || d.Visits < 1:
		return fmt.Errorf("guide: draws of %d groups of %d images every %d steps, %d groups a pass", d.Groups, d.Each, d.Every, d.Visits)
	case !(d.Validation >= 0 && d.Validation < 1):
		return fmt.Errorf("guide: validation is %v, want 0 to below 1", d.Validation)
	case !(d.MinGap >= 0) || !(d.Beta > 0) || !(d.KL >= 0) || !(d.MinRate >= 0 && d.MinRate <= 1):
		return fmt.Errorf("guide: min_gap %v, beta %v, kl_coef %v or min_masking_rate %v is out of range", d.MinGap, d.Beta, d.KL, d.MinRate)
	}
	o := dpo.Defaults()
	if err := objective.DecodeStrict(d.DPO, &o); err != nil {
		return fmt.Errorf("guide: data.dpo: %w", err)
	}
	if d.DPOCoef > 0 {
		if err := o.Validate(); err != nil {
			return fmt.Errorf("guide: data.dpo: %w", err)
		}
	}
	return errors.Join(d.Drawing.Validate(), d.Watch.validate(), d.Stop.validate())
}

// Guide is the objective.
type Guide struct {
	recipe  train.Recipe
	data    Data
	dir     string
	show    io.Writer
	policy  *policy.Policy
	offline *dpo.DPO // nil without an offline term
	train   []geneval.Metadata
	watched []geneval.Metadata
	origins []ckpt.Parent

	live      *graphx.Weights // the present weights
	generator *showo.Generator
	reference *policy.Scorer
	moved     *policy.Divergence
	reward    Reward
	heldOut   Reward // nil without a second judge
	evaluate  Reward // nil if nothing is evaluated

	now     draw               // the draw that the present steps learn from
	figures map[string]float64 // of the last draw and the last watch
	seen    []watchLine
	step    int // of the last look
}

var (
	_ objective.Trainable = (*Guide)(nil)
	_ objective.Derived   = (*Guide)(nil)
	_ objective.Prepared  = (*Guide)(nil)
	_ train.Chooser       = (*Guide)(nil)
)

// New opens the policy, the image tokenizer, the judges and the offline pairs.
func New(be compute.Backend, from policy.Sources, r train.Recipe, dir string) (*Guide, error) {
	g, err := newGuide(be, from.Folders, r, dir)
	if err != nil {
		return nil, err
	}
	images, err := g.policy.OpenImages(be, from.Folders, g.data.Drawing)
	if err != nil {
		return nil, err
	}
	if g.generator, err = g.policy.Generator(be, g.live, images, g.data.Drawing); err != nil {
		return nil, err
	}
	reward, parent, err := openJudge(be, from, images, g.data.Judge)
	if err != nil {
		return nil, err
	}
	parent.Role = "reward"
	g.reward, g.origins = reward, append(g.origins, parent)
	if g.data.HeldOut != "" {
		if g.heldOut, _, err = openJudge(be, from, images, g.data.HeldOut); err != nil {
			return nil, err
		}
	}
	if g.data.Watch.Every > 0 {
		evaluate, _, err := from.Evaluators(be, g.policy.Side(images), g.watched)
		if err != nil {
			return nil, err
		}
		g.evaluate = verdicts{images, evaluate}
	}
	return g, nil
}

// newGuide is New without images and judges.
func newGuide(be compute.Backend, open policy.Folders, r train.Recipe, dir string) (*Guide, error) {
	g := &Guide{recipe: r, data: Defaults(), dir: dir, show: io.Discard, figures: map[string]float64{}}
	if err := objective.DecodeStrict(r.Data, &g.data); err != nil {
		return nil, err
	}
	if err := train.RecipeError(g.data.Validate()); err != nil {
		return nil, err
	}
	var err error
	if g.policy, err = policy.Open(open, r.InitFrom); err != nil {
		return nil, err
	}
	g.origins = []ckpt.Parent{g.policy.Parent}
	list, err := g.data.List(r.Seed)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(m geneval.Metadata) bool { return curate.Validation(curate.Scene(m), g.data.Validation) })
	if len(list) < g.data.Groups+g.data.Watch.Prompts {
		return nil, fmt.Errorf("guide: %d prompts, but a draw takes %d and %d are watched", len(list), g.data.Groups, g.data.Watch.Prompts)
	}
	g.watched = watchedOf(list, g.data.Watch.Prompts, r.Seed)
	watched := map[string]bool{} // scenes
	for _, m := range g.watched {
		watched[curate.Scene(m)] = true
	}
	for _, m := range list {
		if !watched[curate.Scene(m)] {
			g.train = append(g.train, m)
		}
	}
	if len(g.train) < g.data.Groups {
		return nil, fmt.Errorf("guide: %d prompts ask for other scenes than those that are watched, but a draw takes %d", len(g.train), g.data.Groups)
	}
	if g.data.DPOCoef > 0 {
		if err := g.openOffline(be, open, watched); err != nil {
			return nil, err
		}
	}
	w, err := g.policy.Weights()
	if err != nil {
		return nil, err
	}
	g.live = graphx.NewWeights(w)
	if g.moved, err = g.policy.Divergence(be); err != nil {
		return nil, err
	}
	g.reference, err = g.policy.Reference(be)
	return g, err
}

// watchedOf draws n prompts, of every task as many as of any other while there are some.
func watchedOf(list []geneval.Metadata, n int, seed uint64) []geneval.Metadata {
	byTask := map[string][]geneval.Metadata{}
	for _, i := range prng.New(prng.Derive(seed, "watched"), 0, prng.Curate).Perm(len(list)) {
		byTask[list[i].Tag] = append(byTask[list[i].Tag], list[i])
	}
	var out []geneval.Metadata
	for turn := 0; len(out) < n && turn < len(list); turn++ {
		for _, task := range slices.Sorted(maps.Keys(byTask)) {
			if turn < len(byTask[task]) && len(out) < n {
				out = append(out, byTask[task][turn])
			}
		}
	}
	return out
}

// openOffline reads the offline pairs, without those of validation prompts and of the scenes that are watched.
func (g *Guide) openOffline(be compute.Backend, open policy.Folders, watched map[string]bool) error {
	offline := g.recipe
	offline.Data = g.data.DPO
	var err error
	if g.offline, err = dpo.New(be, open, offline, g.dir); err != nil {
		return err
	}
	return g.offline.LeaveOut(func(p curate.Pair) bool {
		scene := p.Scene()
		return watched[scene] || curate.Validation(scene, g.data.Validation)
	})
}

// Prepare implements objective.Prepared: the offline term's reference, and what the run is going to draw.
func (g *Guide) Prepare(ctx context.Context, show io.Writer) error {
	g.show = show
	draws, size := (g.recipe.MaxSteps+g.data.Every-1)/g.data.Every, g.data.Groups*g.data.Each
	fmt.Fprintf(show, "%d draws of %d images of %d prompts each, one every %d steps; %d prompts are watched\n",
		draws, size, g.data.Groups, g.data.Every, len(g.watched))
	if err := g.claim(); err != nil {
		return err
	}
	var err error
	if g.seen, err = policy.ReadJournal[watchLine](filepath.Join(g.dir, watchFile)); err != nil {
		return err
	}
	if g.offline == nil {
		return nil
	}
	return g.offline.Prepare(ctx, show)
}

// claim refuses a folder whose draws were made by another recipe or from other models: they would be taken for the run's.
func (g *Guide) claim() error {
	want, err := json.MarshalIndent(struct {
		Recipe  train.Recipe  `json:"recipe"`
		Parents []ckpt.Parent `json:"parents"`
	}{g.recipe, g.origins}, "", "  ")
	if err != nil {
		return fmt.Errorf("guide: recipe: %w", err)
	}
	path := filepath.Join(g.dir, "draws", "recipe.json")
	have, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("guide: %w", err)
		}
		return atomicfile.WriteFile(path, want, 0o644)
	case err != nil:
		return fmt.Errorf("guide: %w", err)
	case !bytes.Equal(have, want):
		return fmt.Errorf("guide: %s is of another recipe or other models; use another output folder, or remove this one", filepath.Dir(path))
	}
	return nil
}

// Looks implements train.Online: a draw serves its steps, but for those of a run that goes on.
func (g *Guide) Looks(step int) bool {
	last := step == g.recipe.MaxSteps
	draws := !last && (g.now.groups == nil || step%g.data.Every == 0)
	return draws || g.watches(step)
}

func (g *Guide) watches(step int) bool {
	return g.data.Watch.Every > 0 && (step%g.data.Watch.Every == 0 || step == g.recipe.MaxSteps)
}

// Look implements train.Online: it draws where a draw is due, and watches every so many steps and at the end.
func (g *Guide) Look(ctx context.Context, step int, weights map[string]*tensors.Tensor) error {
	for name, t := range weights {
		g.live.Set(name, t)
		g.moved.Set(name, t)
	}
	g.generator.Forget()
	g.step = step
	last := step == g.recipe.MaxSteps
	if !last {
		if err := g.draw(ctx, step); err != nil {
			return err
		}
	}
	if !g.watches(step) {
		return nil
	}
	if err := g.watch(ctx, step); err != nil {
		return err
	}
	return g.data.Stop.check(g.seen, step)
}

// Best implements train.Chooser.
func (g *Guide) Best() int { return g.data.Stop.best(g.seen, g.step) }

// Figures implements train.Online.
func (g *Guide) Figures() map[string]float64 { return maps.Clone(g.figures) }

// Init implements train.Objective.
func (g *Guide) Init() (map[string]*tensors.Tensor, error) { return g.policy.Weights() }

// Config implements objective.Trainable.
func (g *Guide) Config() ([]byte, error) { return g.policy.JSON() }

// TextTokenizer implements objective.Worded.
func (g *Guide) TextTokenizer() map[string][]byte { return g.policy.TextTokenizer() }

// Final implements objective.Trainable.
func (g *Guide) Final(w map[string]*tensors.Tensor) map[string]*tensors.Tensor { return maps.Clone(w) }

// Origin implements objective.Derived: the policy, the reward model, and the hash of the offline pairs.
func (g *Guide) Origin() ([]ckpt.Parent, string) {
	if g.offline == nil {
		return g.origins, ""
	}
	_, hash := g.offline.Origin()
	return g.origins, hash
}
