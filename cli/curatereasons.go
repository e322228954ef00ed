package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"imagecot/curate"
	"imagecot/experiment"
	"imagecot/geneval"
	"imagecot/judge/openai"
	"imagecot/verify/questions"
)

// reasonFlags are what the data sets with reasons share.
type reasonFlags struct {
	generator string
	tokenizer string
	annotator string
	workers   int
	known     string
}

func (r *reasonFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.generator, "generator", "tiny", "the generator that drew the images; its tokenizer decodes them")
	f.StringVar(&r.tokenizer, "tokenizer", "", "the image tokenizer: tiny, a preset or a folder (default: GENERATOR/tokenizer, or tiny)")
	f.StringVar(&r.annotator, "annotator", "evaluator", "who says what is wrong: evaluator, or openai:MODEL@URL for a chat endpoint")
	f.IntVar(&r.workers, "workers", 4, "questions to an endpoint under way at the same time")
}

// open loads what decodes the images and finds the annotator. The caller closes the pipeline.
func (r *reasonFlags) open(a *app, cmd *cobra.Command) (*experiment.Pipeline, curate.Reasons, error) {
	var remote *openai.Judge
	var wording questions.Set
	spec, isRemote := strings.CutPrefix(r.annotator, "openai:")
	switch {
	case isRemote:
		o, err := openai.ParseSpec(spec)
		if err != nil {
			return nil, curate.Reasons{}, usage("", "%w", err)
		}
		o.Workers = r.workers
		if remote, err = openai.New(o); err != nil {
			return nil, curate.Reasons{}, usage("", "%w", err)
		}
		if wording, err = questions.Get("paper"); err != nil {
			return nil, curate.Reasons{}, err
		}
	case r.annotator != "evaluator":
		return nil, curate.Reasons{}, usage("", "--annotator is %q, want evaluator or openai:MODEL@URL", r.annotator)
	}
	recipe := experiment.Default()
	recipe.Strategy, recipe.Generator, recipe.Tokenizer = "single", r.generator, r.tokenizer
	p, err := a.open(cmd, recipe)
	if err != nil {
		return nil, curate.Reasons{}, err
	}
	if !isRemote {
		if err := p.UseGenEval(geneval.Official()); err != nil {
			p.Close()
			return nil, curate.Reasons{}, err
		}
	}
	reasons := curate.Reasons{Generator: p.Generator, Name: r.annotator, Workers: r.workers, Known: r.known}
	switch {
	case isRemote:
		reasons.Annotate = curate.ByExplainer(remote, wording, openai.Transient)
	case p.TinyWorld(): // whose detector is exact
		reasons.Annotate = curate.ByEvaluator(p.Evaluate, geneval.Reason)
	default:
		reasons.Annotate = curate.ByEvaluator(p.Evaluate, curate.OrAside(geneval.Reason))
	}
	return p, reasons, nil
}

// build runs what makes a data set in dir, and prints its card.
func (r *reasonFlags) build(a *app, cmd *cobra.Command, dir string, run func(curate.Reasons) error) error {
	if err := writable(dir); err != nil {
		return err
	}
	p, reasons, err := r.open(a, cmd)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := run(reasons); err != nil {
		return err
	}
	return a.printCard(dir)
}

func (a *app) curateReflectionCommand() *cobra.Command {
	var d curate.ReflectionData
	var r reasonFlags
	cmd := &cobra.Command{
		Use: "reflection", Short: "Wrong images with reasons and right ones, 80 to 20, from ranking data (PARM++)",
		Args:    exactArgs(0, "no arguments"),
		Example: "  imagecot curate reflection --from runs/ranking --out runs/reflection",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.Count < 0 || d.PartSize < 1 {
				return usage("", "--count is %d and --part %d, want at least 0 and 1", d.Count, d.PartSize)
			}
			return r.build(a, cmd, d.Dir, func(reasons curate.Reasons) error {
				d.Reasons, d.Progress = reasons, a.progress("reasons")
				return d.Run(cmd.Context())
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.From, "from", "out/ranking", "folder of ranking data (imagecot curate ranking)")
	f.IntVarP(&d.Count, "count", "c", 0, "most images (default: as many as the ratio allows)")
	f.Uint64Var(&d.Seed, "seed", 1, "the same seed chooses the same images")
	f.IntVar(&d.PartSize, "part", 512, "images a part")
	f.StringVarP(&d.Dir, "out", "o", "out/reflection", "folder to write to")
	r.add(cmd)
	return cmd
}

func (a *app) curateCorrectionCommand() *cobra.Command {
	var d curate.CorrectionData
	var r reasonFlags
	cmd := &cobra.Command{
		Use: "correction", Short: "Groups of prompt, bad image, good image and reason from ranking data (self-correction)",
		Args:    exactArgs(0, "no arguments"),
		Example: "  imagecot curate correction --from runs/ranking --out runs/correction-data",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.PerImage < 1 || d.PerPrompt < 1 || d.PartSize < 1 {
				return usage("", "--per-image is %d, --per-prompt %d and --part %d, want at least 1", d.PerImage, d.PerPrompt, d.PartSize)
			}
			return r.build(a, cmd, d.Dir, func(reasons curate.Reasons) error {
				d.Reasons, d.Progress = reasons, a.progress("reasons")
				return d.Run(cmd.Context())
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.From, "from", "out/ranking", "folder of ranking data (imagecot curate ranking)")
	f.StringVar(&r.known, "reasons", "", "folder of reflection data whose reasons are taken over (default: ask for all)")
	f.IntVar(&d.PerImage, "per-image", 2, "most good images for a bad one, the most similar ones first")
	f.IntVar(&d.PerPrompt, "per-prompt", 16, "most groups of a prompt")
	f.Uint64Var(&d.Seed, "seed", 1, "the same seed makes the same groups")
	f.IntVar(&d.PartSize, "part", 512, "groups a part")
	f.StringVarP(&d.Dir, "out", "o", "out/correction", "folder to write to")
	r.add(cmd)
	return cmd
}
