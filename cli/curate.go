package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imagecot/curate"
	"imagecot/curate/everyday"
	"imagecot/experiment"
	"imagecot/geneval"
	"imagecot/world"
)

func (a *app) curateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "curate", Short: "Make the data that reward models are fine-tuned on", Args: exactArgs(0, "a subcommand"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.curatePromptsCommand(), a.curateRankingCommand(), a.curateStepsCommand(), a.curateParmCommand(), a.curatePairsCommand())
	cmd.AddCommand(a.curateReflectionCommand(), a.curateCorrectionCommand(), a.curateExportCommand())
	return cmd
}

// drawPrompts draws training prompts of the tiny world.
func drawPrompts(n int, seed uint64) ([]geneval.Metadata, error) {
	pools := map[string][]geneval.Metadata{}
	for _, task := range geneval.Tasks() {
		pools[task] = world.TrainPrompts(task)
	}
	list, err := curate.Prompts(n, seed, pools, world.TestPrompts())
	if err != nil {
		return nil, usage("", "%w", err)
	}
	return list, nil
}

func (a *app) curatePromptsCommand() *cobra.Command {
	var count int
	var seed uint64
	var out, scale string
	var share float64
	var tasks []string
	cmd := &cobra.Command{
		Use: "prompts", Short: "Draw training prompts that share no scene with the test prompts", Long: curatePromptsLong,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !(share >= 0 && share <= 1) {
				return usage("", "--validation is %v, want a share of 0 to 1", share)
			}
			for _, task := range tasks {
				if !slices.Contains(geneval.Tasks(), task) {
					return usage("the tasks are "+strings.Join(geneval.Tasks(), ", "), "unknown task %q", task)
				}
			}
			draw := drawPrompts
			switch scale {
			case "tiny":
			case "full":
				draw = drawEveryday
				if !cmd.Flags().Changed("count") {
					count = everyday.Count
				}
			default:
				return usage("", "--scale is %q, want tiny or full", scale)
			}
			list, err := draw(count, seed)
			if err != nil {
				return err
			}
			var b bytes.Buffer
			for _, m := range list {
				if share > 0 && !curate.Validation(curate.Scene(m), share) || len(tasks) > 0 && !slices.Contains(tasks, m.Tag) {
					continue
				}
				b.WriteString(m.Dump() + "\n")
			}
			if out == "" {
				_, err := a.stdout.Write(b.Bytes())
				return err
			}
			return writeFile(out, b.Bytes())
		},
	}
	cmd.Flags().IntVarP(&count, "count", "c", 640, "how many prompts, the tasks in turn (full scale: 13000)")
	cmd.Flags().StringVar(&scale, "scale", "tiny", "tiny (the tiny world's shapes) or full (everyday objects)")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "the same seed draws the same prompts")
	cmd.Flags().Float64Var(&share, "validation", 0, "only those whose scenes a training with this share of validation scenes leaves out (0 = all)")
	cmd.Flags().StringSliceVar(&tasks, "task", nil, "only those of them that belong to these tasks (default: all)")
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to write (default: standard output)")
	return cmd
}

// curateFlags are what ranking and steps share.
type curateFlags struct {
	recipe  experiment.Recipe
	prompts string
	test    bool
	count   int
	each    int
	part    int
	out     string
}

func (a *app) curateFlags(cmd *cobra.Command, c *curateFlags) {
	c.recipe = experiment.Default()
	c.recipe.Temperature = 5 // above the default, and above any preset's: paths that differ
	a.generatorFlags(cmd, &c.recipe)
	f := cmd.Flags()
	f.StringVar(&c.prompts, "prompts", "", "prompt file of `imagecot curate prompts` (default: draw --count prompts)")
	f.BoolVar(&c.test, "test", false, "the test prompts instead (GenEval's for a generator of full size): data to measure with, which training refuses")
	f.IntVarP(&c.count, "count", "c", c.count, "how many prompts to draw")
	f.IntVar(&c.each, "each", c.each, "paths a prompt")
	f.IntVar(&c.part, "part", 16, "prompts a part; a stopped run goes on at the first missing part")
	f.StringVarP(&c.out, "out", "o", c.out, "folder to write to")
}

// openCurate loads the generator, the prompts and who evaluates images: the tiny world's, or GenEval's own for a generator of
// full size. It refuses prompts that ask for a test prompt's scene unless --test asks for nothing else.
func (a *app) openCurate(cmd *cobra.Command, c curateFlags) (*experiment.Pipeline, []geneval.Metadata, error) {
	if c.test && (c.prompts != "" || cmd.Flags().Changed("count")) {
		return nil, nil, usage("", "--test takes all test prompts: leave out --prompts and --count")
	}
	named, err := c.named()
	if err != nil {
		return nil, nil, err
	}
	if err := writable(c.out); err != nil {
		return nil, nil, err
	}
	c.recipe.Strategy = "single"
	p, err := a.open(cmd, c.recipe, "temperature")
	if err != nil {
		return nil, nil, err
	}
	list, err := c.list(p.TinyWorld(), named)
	if err == nil {
		err = p.UseGenEval(list)
	}
	if err != nil {
		p.Close()
		return nil, nil, err
	}
	return p, list, nil
}

// named are the prompts of --prompts.
func (c curateFlags) named() ([]geneval.Metadata, error) {
	if c.prompts == "" {
		return nil, nil
	}
	list, err := testPrompts(c.prompts)
	for _, m := range list {
		if curate.Test(curate.Scene(m)) {
			return nil, usage("draw prompts with `imagecot curate prompts`, or measure with --test", "curate: %q asks for the scene of a test prompt", m.Prompt)
		}
	}
	return list, err
}

// list is the prompts that were named, or those of the generator's world: its test prompts, or training prompts drawn by seed.
func (c curateFlags) list(tinyWorld bool, named []geneval.Metadata) ([]geneval.Metadata, error) {
	switch {
	case named != nil:
		return named, nil
	case c.test && tinyWorld:
		return world.TestPrompts(), nil
	case c.test:
		return geneval.Official(), nil
	}
	if !tinyWorld {
		return drawEveryday(c.count, c.recipe.Seed)
	}
	return drawPrompts(c.count, c.recipe.Seed)
}

// curateOptions is how paths were made, for recipe.json.
func curateOptions(p *experiment.Pipeline) any {
	return struct {
		Steps       int               `json:"steps"`
		Guidance    float64           `json:"guidance"`
		Temperature float64           `json:"temperature"`
		Models      map[string]string `json:"models"`
	}{p.Recipe.Steps, p.Recipe.Guidance, p.Recipe.Temperature, p.Models}
}

func (a *app) curateRankingCommand() *cobra.Command {
	c := curateFlags{count: 640, each: 12, out: "out/ranking"}
	cmd := &cobra.Command{
		Use: "ranking", Short: "Many images a prompt at high temperature, labelled by the evaluator (ORM)",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, list, err := a.openCurate(cmd, c)
			if err != nil {
				return err
			}
			defer p.Close()
			err = curate.Ranking{
				Dir: c.out, Prompts: list, Each: c.each, Seed: c.recipe.Seed, PartSize: c.part, Options: curateOptions(p),
				Generator: p.Generator, Evaluate: p.Evaluate, Progress: a.progress("parts"),
			}.Run(cmd.Context())
			if err != nil {
				return err
			}
			return a.printCard(c.out)
		},
	}
	a.curateFlags(cmd, &c)
	return cmd
}

func (a *app) curateStepsCommand() *cobra.Command {
	c := curateFlags{count: 320, each: 4, out: "out/steps"}
	var at []int
	var rollouts int
	cmd := &cobra.Command{
		Use: "steps", Short: "Step images labelled by roll-outs: any right one makes a yes (PRM)",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, list, err := a.openCurate(cmd, c)
			if err != nil {
				return err
			}
			defer p.Close()
			err = curate.Steps{
				Dir: c.out, Prompts: list, Each: c.each, At: at, Rollouts: rollouts, Seed: c.recipe.Seed, PartSize: c.part, Options: curateOptions(p),
				Generator: p.Generator, Evaluate: p.Evaluate, Progress: a.progress("parts"),
			}.Run(cmd.Context())
			if err != nil {
				return err
			}
			return a.printCard(c.out)
		},
	}
	a.curateFlags(cmd, &c)
	cmd.Flags().IntSliceVar(&at, "at", []int{3, 6, 9, 12, 15, 17}, "steps that are labelled")
	cmd.Flags().IntVar(&rollouts, "rollouts", 4, "how many roll-outs a step")
	return cmd
}

func (a *app) curateParmCommand() *cobra.Command {
	var d curate.ParmData
	cmd := &cobra.Command{
		Use: "parm", Short: "Clarity and potential labels from ranking data (PARM)",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.Progress = a.progress("parts")
			if err := d.Run(cmd.Context()); err != nil {
				return err
			}
			return a.printCard(d.Dir)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.From, "from", "out/ranking", "folder of ranking data")
	f.IntVar(&d.Labels.BlurredBefore, "blurred-before", 0, "steps below are not clear (default: the paper's 10 of 18, in proportion)")
	f.IntVar(&d.Labels.ClearAfter, "clear-after", 0, "steps above are clear (default: the paper's 11 of 18, in proportion)")
	f.IntVar(&d.Labels.PotentialFrom, "potential-from", 0, "first step whose potential is labelled (default: the paper's, the first clear one)")
	f.IntVar(&d.PartSize, "part", 512, "paths a part")
	f.StringVarP(&d.Dir, "out", "o", "out/parm", "folder to write to")
	return cmd
}

// printCard shows the card of a finished data set.
func (a *app) printCard(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		return fmt.Errorf("cli: curate: %w", err)
	}
	_, err = a.stdout.Write(text)
	return err
}
