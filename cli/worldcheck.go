package cli

import (
	"context"
	"fmt"
	"image"
	"math/rand/v2"

	"github.com/spf13/cobra"

	"imagecot/backend"
	"imagecot/experiment"
	"imagecot/geneval"
	"imagecot/models/magvit"
	"imagecot/world"
)

// checkOptions are the flags of `world check`.
type checkOptions struct {
	kind        string
	scenes      int
	seed        uint64
	blur, noise float64
	tokenizer   string
}

// checkJSON counts how often the detector sees what was drawn.
type checkJSON struct {
	Kind      string               `json:"kind"`
	Tokenizer string               `json:"tokenizer,omitempty"` // the images went through it, to tokens and back
	Scenes    int                  `json:"scenes"`
	Agree     int                  `json:"agree"` // scenes with the same multiset of shapes and colours
	Share     float64              `json:"share"`
	BlurSigma float64              `json:"blur_sigma"`
	Noise     float64              `json:"noise"`
	Verdicts  map[string]checkTask `json:"verdicts"` // of one true prompt a task and scene: how many are found true
	Verdict   float64              `json:"verdict_share"`
}

type checkTask struct {
	Correct int `json:"correct"`
	N       int `json:"n"`
}

func (a *app) worldCheckCommand() *cobra.Command {
	var o checkOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check", Short: "Count how often the detector finds exactly the objects that were drawn",
		Long: "Draws scenes and compares what the detector sees with what was drawn: the objects of every scene, and\n" +
			"the verdict about a true prompt of each task. With --tokenizer the images go through an image tokenizer\n" +
			"first.",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.scenes < 1 {
				return usage("", "--count is %d, want at least 1", o.scenes)
			}
			c, err := a.check(cmd.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(c)
			}
			fmt.Fprintf(a.stdout, "objects  %d of %d scenes (%.2f %%)\n", c.Agree, c.Scenes, 100*c.Share)
			for _, task := range geneval.Tasks() {
				if v := c.Verdicts[task]; v.N > 0 {
					fmt.Fprintf(a.stdout, "%-14s %d of %d true prompts (%.2f %%)\n", task, v.Correct, v.N, 100*float64(v.Correct)/float64(v.N))
				}
			}
			_, err = fmt.Fprintf(a.stdout, "verdicts %.2f %% of all true prompts\n", 100*c.Verdict)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.kind, "kind", "ordinary", "a kind of scene or a mix, as in render")
	f.IntVarP(&o.scenes, "count", "c", 2000, "how many scenes")
	f.Uint64Var(&o.seed, "seed", 1, "the same seed draws the same scenes")
	f.Float64Var(&o.blur, "blur", 0, "sigma of a Gaussian blur, in pixels")
	f.Float64Var(&o.noise, "noise", 0, "standard deviation of pixel noise, in the range -1..1")
	f.StringVar(&o.tokenizer, "tokenizer", "", `pass the images through a tokenizer: "tiny" or a model folder`)
	f.BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

// check draws, looks and counts.
func (a *app) check(ctx context.Context, o checkOptions) (checkJSON, error) {
	c := checkJSON{
		Kind: o.kind, Tokenizer: o.tokenizer, Scenes: o.scenes, BlurSigma: o.blur, Noise: o.noise,
		Verdicts: map[string]checkTask{},
	}
	mix, err := mixOf(o.kind)
	if err != nil {
		return c, err
	}
	rng := rand.New(rand.NewPCG(o.seed, 1))
	scenes, images := make([]world.Scene, o.scenes), make([]image.Image, o.scenes)
	for i := range scenes {
		scenes[i] = mix.Draw(rng)
		pix := make([]float32, 3*world.Side*world.Side)
		world.RenderInto(pix, scenes[i])
		if o.blur > 0 {
			world.Blur(pix, o.blur)
		}
		if o.noise > 0 {
			world.AddNoise(pix, o.noise, rng)
		}
		images[i] = world.ToImage(pix)
	}
	if o.tokenizer != "" {
		if images, err = a.reconstruct(ctx, o.tokenizer, images); err != nil {
			return c, err
		}
	}
	detector := world.Detector{Small: o.kind == "crowd" || o.kind == "tokenizer"}
	correct, n := 0, 0
	for i, s := range scenes {
		facts, err := detector.Look(images[i])
		if err != nil {
			return c, err
		}
		if sameObjects(s, facts) {
			c.Agree++
		}
		for _, task := range geneval.Tasks() {
			m, ok := world.TruePrompt(rng, s, task)
			if !ok {
				continue
			}
			r, err := world.Evaluator().Evaluate(ctx, images[i], m)
			if err != nil {
				return c, err
			}
			v := c.Verdicts[task]
			v.N, n = v.N+1, n+1
			if r.Correct {
				v.Correct, correct = v.Correct+1, correct+1
			}
			c.Verdicts[task] = v
		}
	}
	c.Share, c.Verdict = float64(c.Agree)/float64(c.Scenes), float64(correct)/float64(max(1, n))
	return c, nil
}

// reconstruct turns images into tokens and back.
func (a *app) reconstruct(ctx context.Context, name string, images []image.Image) ([]image.Image, error) {
	be, info, err := backend.Open(a.backend)
	if err != nil {
		return nil, err
	}
	defer be.Finalize()
	if info.Note != "" {
		a.note("%s", info.Note)
	}
	folder, err := experiment.ModelFolder(name, "tokenizer")
	if err != nil {
		return nil, err
	}
	t, err := magvit.OpenFS(be, folder, ".", magvit.Options{})
	if err != nil {
		return nil, err
	}
	tokens, err := t.Encode(ctx, images)
	if err != nil {
		return nil, err
	}
	pictures, err := t.Decode(ctx, tokens)
	if err != nil {
		return nil, err
	}
	out := make([]image.Image, len(pictures))
	for i, p := range pictures {
		out[i] = p
	}
	return out, nil
}

// sameObjects compares shapes and colours as multisets.
func sameObjects(s world.Scene, facts world.Facts) bool {
	count := map[[2]string]int{}
	for _, o := range s.Objects {
		count[[2]string{o.Shape.String(), o.Colour.String()}]++
	}
	for _, o := range facts.Objects {
		count[[2]string{o.Shape.String(), o.Colour.String()}]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}
