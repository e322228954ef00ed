package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imagecot/experiment"
	"imagecot/experiment/tables"
	"imagecot/geneval"
	"imagecot/recipes"
	"imagecot/tiny"
	"imagecot/world"
)

// reproduceFlags are what the command was called with.
type reproduceFlags struct {
	names   []string
	scale   string
	prompts int
	n       int
	workers int
	out     string
	train   bool
	models  string
	seed    uint64
	seeded  bool // --seed was given
	skip    []string
	format  string
	json    bool
}

func (a *app) reproduceCommand() *cobra.Command {
	var f reproduceFlags
	cmd := &cobra.Command{
		Use: "reproduce [TABLE...]", Short: "Measure the paper's tables and figures, and give its claims a verdict",
		Long: "TABLE is " + strings.Join(experiment.TableNames(), ", ") + " or all (the default).\n" +
			"Each row is a recipe: a generator, a strategy with its judge, N. Paths are decoded once a generator and\n" +
			"shared by all rows. Writes tables (Markdown, HTML, CSV, JSON), curves, score against cost, a gallery and the\n" +
			"claims to --out, with intervals, costs and the paper's numbers. Finished work is kept there; a run that was\n" +
			"stopped goes on where it was and ends with the same results.\n\n" +
			"Exit code 0: every row was measured (rows that this world cannot have are printed with the paper's numbers).\n" +
			"3: rows whose model is not in this build are listed with the command that trains it. 4: there was nothing to\n" +
			"measure with.",
		Example:   "  imagecot reproduce table1 --prompts 24\n  imagecot reproduce all --out out/reproduce",
		ValidArgs: append(experiment.TableNames(), "all"),
		Args:      tableArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.names, f.seeded = args, cmd.Flags().Changed("seed")
			return a.reproduce(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.scale, "scale", "tiny", "which models: tiny (shipped checkpoints), full (Show-o and LLaVA-OneVision 7B) or a file like recipes/tiny/tables/scale.yaml")
	flags.IntVar(&f.prompts, "prompts", 0, "use about this many of the test prompts, tasks in proportion (0 = all)")
	flags.IntVarP(&f.n, "n", "n", 0, "cut N to at most this many paths (0 = the paper's 20)")
	flags.IntVarP(&f.workers, "jobs", "j", 0, "prompts at a time, computed together in full tiles (0 = the scale's: tiny 16, full 1); results do not depend on it")
	flags.StringVarP(&f.out, "out", "o", "out/reproduce", "folder to write to")
	flags.BoolVar(&f.train, "train", false, "train every model first, in the output folder: in the tiny world from nothing, at full scale from the published ones")
	flags.StringVar(&f.models, "models", "checkpoints", "folder below which a scale's own checkpoints lie")
	flags.StringSliceVar(&f.skip, "skip", nil, "leave out the rows of these strategies, for example prm, whose rows take long")
	flags.Uint64Var(&f.seed, "seed", 1, "run seed; the same seed gives the same results")
	flags.StringVar(&f.format, "format", "text", "table format on standard output: text, markdown, csv, html")
	flags.BoolVar(&f.json, "json", false, "one JSON object")
	return cmd
}

func tableArgs(_ *cobra.Command, args []string) error {
	for _, name := range args {
		if name != "all" && !slices.Contains(experiment.TableNames(), name) {
			return usage("tables are "+strings.Join(experiment.TableNames(), ", ")+", all", "there is no table %q", name)
		}
	}
	return nil
}

// reproduce trains if asked to, measures, writes and prints.
func (a *app) reproduce(ctx context.Context, f reproduceFlags) error {
	for _, name := range f.skip {
		if !slices.Contains(experiment.Strategies(), name) {
			return usage("strategies are "+strings.Join(experiment.Strategies(), ", "), "--skip: there is no strategy %q", name)
		}
	}
	if f.workers < 0 || f.prompts < 0 || f.n < 0 {
		return usage("", "--jobs is %d, --prompts %d and --n %d; want at least 0", f.workers, f.prompts, f.n)
	}
	scale, err := readScale(f)
	if err != nil {
		return err
	}
	all, names, err := readTables(f, scale.N)
	if err != nil {
		return err
	}
	models, err := a.reproduceModels(f, scale)
	if err != nil {
		return err
	}
	if err := writable(f.out); err != nil {
		return err
	}
	if f.train {
		if err := a.trainAll(ctx, scale.Train, f.out); err != nil {
			return err
		}
	}
	prompts := world.TestPrompts()
	if scale.Prompts == "official" {
		prompts = geneval.Official()
	}
	recipe := scale.Recipe()
	recipe.Backend = a.backend
	progress := map[string]func(done, total int){}
	m, err := experiment.Reproduction{
		Recipe: recipe, Tables: experiment.WithBaselines(all, names), Prompts: limitPrompts(prompts, f.prompts), Dir: f.out, Workers: cmp.Or(f.workers, scale.Jobs),
		Note: a.note,
		Open: func(ctx context.Context, generator string) (experiment.Bench, error) {
			bench, err := experiment.OpenBench(ctx, recipe, models, generator, a.note)
			if err == nil {
				bench.Arm = without(f.skip, bench.Arm)
			}
			return bench, err
		},
		Progress: func(generator string, done, total int) {
			if progress[generator] == nil {
				progress[generator] = a.progress("rows of prompts, generator " + generator)
			}
			progress[generator](done, total)
		},
	}.Run(ctx)
	if err != nil {
		return err
	}
	res, err := tables.Collect(all, names, m, f.command(), recipe)
	if err != nil {
		return err
	}
	if err := res.Write(f.out); err != nil {
		return err
	}
	a.note("%s", filepath.Join(f.out, "index.html"))
	if err := a.printResults(res, f); err != nil {
		return err
	}
	return partial(res)
}

// without leaves out the rows of some strategies.
func without(skip []string, arm func(string) (experiment.Arm, string, error)) func(string) (experiment.Arm, string, error) {
	return func(spec string) (experiment.Arm, string, error) {
		name, _, _ := strings.Cut(spec, "@")
		if name, _, _ = strings.Cut(name, ":"); slices.Contains(skip, name) {
			return experiment.Arm{}, "", fmt.Errorf("%w: left out by --skip", experiment.ErrAbsent)
		}
		return arm(spec)
	}
}

// readScale reads how rows are measured: a scale by name, or a file like scale.yaml.
func readScale(f reproduceFlags) (experiment.Scale, error) {
	var dir fs.FS = recipes.Files
	file, ok := map[string]string{"tiny": "tiny/tables/scale.yaml", "full": "full/scale.yaml"}[f.scale]
	if !ok {
		if filepath.Ext(f.scale) != ".yaml" {
			return experiment.Scale{}, usage("scales are tiny, full, or a file like recipes/tiny/tables/scale.yaml", "there is no scale %q", f.scale)
		}
		dir, file = os.DirFS(filepath.Dir(f.scale)), filepath.Base(f.scale)
	}
	scale, err := experiment.ReadScale(dir, file)
	if f.n > 0 {
		scale.N = f.n
	}
	if f.seeded {
		scale.Seed = f.seed
	}
	return scale, err
}

// readTables reads all tables of the paper, cut to N, and the names of those that were asked for. The rows of all scales
// are the same.
func readTables(f reproduceFlags, n int) (all []experiment.PaperTable, names []string, err error) {
	dir, err := fs.Sub(recipes.Files, "tiny/tables")
	if err != nil {
		return nil, nil, fmt.Errorf("cli: recipes: %w", err)
	}
	if all, err = experiment.ReadTables(dir, experiment.TableNames()); err != nil {
		return nil, nil, err
	}
	experiment.LimitN(all, n)
	if names = f.names; len(names) == 0 || slices.Contains(names, "all") {
		names = experiment.TableNames()
	}
	return all, names, nil
}

// reproduceModels says where models are: shipped (no entry), trained here, presets, or folders below --models. What no row
// can do without must be there.
func (a *app) reproduceModels(f reproduceFlags, scale experiment.Scale) (experiment.ModelNames, error) {
	models := experiment.ModelNames{}
	for name, model := range scale.Models {
		if models[name] = model; !experiment.IsPreset(model) {
			models[name] = f.models + string(filepath.Separator) + model // with a separator it is never a shipped model's name
		}
	}
	trained := map[string]bool{}
	if f.train {
		if len(scale.Train) == 0 {
			return nil, usage("a scale lists what it trains, as recipes/tiny/tables/scale.yaml does", "--train: this scale trains nothing")
		}
		for _, s := range scale.Train {
			if slices.ContainsFunc(tiny.Models(), func(m tiny.Model) bool { return m.Name == s.Name }) {
				models[s.Name] = filepath.Join(f.out, "runs", s.Name, "final")
				trained[s.Name] = true
			}
		}
		if trained["generator"] {
			models["tiny"], trained["tiny"] = models["generator"], true
		}
	}
	var missing []error
	for _, name := range []string{"tiny", "tokenizer", "detector", "clip"} {
		if _, err := models.Find(name); err != nil && !trained[name] {
			missing = append(missing, err)
		}
	}
	if missing != nil {
		return nil, &userError{
			err:  fmt.Errorf("cli: reproduce: this scale needs checkpoints that are not there: %w", errors.Join(missing...)),
			code: exitNotFound, hint: "bring them with `imagecot pull`, put folders below --models, or use --scale tiny",
		}
	}
	return models, nil
}

// command is what makes the results again.
func (f reproduceFlags) command() string {
	s := "imagecot reproduce"
	if len(f.names) > 0 {
		s += " " + strings.Join(f.names, " ")
	}
	if f.scale != "tiny" {
		s += " --scale " + f.scale
	}
	if f.prompts > 0 {
		s += fmt.Sprintf(" --prompts %d", f.prompts)
	}
	if f.n > 0 {
		s += fmt.Sprintf(" --n %d", f.n)
	}
	if f.seeded {
		s += fmt.Sprintf(" --seed %d", f.seed)
	}
	if len(f.skip) > 0 {
		s += " --skip " + strings.Join(f.skip, ",")
	}
	if f.train {
		s += " --train"
	}
	return s
}

// printResults writes tables and claims to standard output.
func (a *app) printResults(res tables.Results, f reproduceFlags) error {
	if f.json {
		return a.json(res)
	}
	for _, t := range res.Tables {
		layout := t.Layout()
		if t.Curve {
			layout = t.CurveLayout()
		}
		layout.Title = t.Source + ": " + t.Title
		if err := a.printTable(layout, f.format); err != nil {
			return err
		}
		fmt.Fprintln(a.stdout)
		for _, i := range t.Inconsistencies {
			a.note("the paper disagrees with itself: %s", i.Text)
		}
	}
	if len(res.Claims) == 0 {
		return nil
	}
	layout := res.ClaimsLayout()
	layout.Title = "Claims"
	return a.printTable(layout, f.format)
}

// partial is the error of a run in which rows could not be measured.
func partial(res tables.Results) error {
	missing := res.Missing()
	if len(missing) == 0 {
		return nil
	}
	var lines []string
	for _, row := range missing {
		lines = append(lines, row.ID())
	}
	e := &userError{
		err:  fmt.Errorf("cli: reproduce: not in this build, so not measured: %s", strings.Join(lines, ", ")),
		code: exitPartial, hint: missing[0].Missing,
	}
	if res.Unmeasured() {
		e.code = exitNotFound
	}
	return e
}
