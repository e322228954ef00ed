package cli

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"imagecot/backend"
	"imagecot/experiment"
	"imagecot/geneval"
	"imagecot/world"
)

// Detectors that score knows.
const (
	tinyDetector    = "tiny"
	genevalDetector = "geneval"
)

// scoreFlags of the command.
type scoreFlags struct {
	detector string
	own      experiment.DetectorOptions
	asJSON   bool
	format   string
	out      string
}

func (a *app) scoreCommand() *cobra.Command {
	var f scoreFlags
	cmd := &cobra.Command{
		Use: "score DIR", Short: "Score a folder of images in GenEval's layout",
		Long: "Evaluates DIR/00000/samples/*.png against DIR/00000/metadata.jsonl, whoever made the images, writes\n" +
			"results.jsonl as GenEval does and prints the scores of each task and overall. Prompts count as they are\n" +
			"written; none is rewritten.\n\n" +
			"Detectors:   tiny     exact detector of the tiny world (default)   geneval  GenEval's own: Mask2Former\n" +
			"(Swin-S, COCO) finds objects, CLIP (ViT-L/14) names colours",
		Example: "  imagecot score runs/a\n" +
			"  imagecot score --detector geneval images\n" +
			"  imagecot score --detector geneval --detector-weights mask2former --clip-weights clip images",
		Args: exactArgs(1, "one folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.out == "" {
				f.out = filepath.Join(args[0], "results.jsonl")
			}
			rows, err := a.score(cmd.Context(), f, args[0])
			if err != nil {
				return missing(cmd.Context(), err, "a folder of images is DIR/00000/metadata.jsonl with DIR/00000/samples/*.png, as `imagecot eval` writes it")
			}
			s, err := geneval.Score(rows)
			if err != nil {
				return err
			}
			if f.asJSON {
				return a.json(newScoresJSON(s, nil))
			}
			return a.printTable(scoresTable(s), f.format)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.detector, "detector", tinyDetector, "who finds objects: tiny, geneval")
	flags.StringVar(&f.own.Weights, "detector-weights", "", "folder of Mask2Former's weights, as transformers or mmdetection name\nthem, or a preset (default geneval-detector)")
	flags.StringVar(&f.own.CLIP, "clip-weights", "", "folder of CLIP's weights and tokenizer, or a preset (default clip-vit-l-14);\nneeded where a prompt asks for a colour")
	flags.StringArrayVar(&f.own.Given, "option", nil, "option of GenEval's evaluator, KEY=VALUE: threshold, counting_threshold, max_objects, max_overlap,\nposition_threshold, bgcolor, crop (repeatable)")
	flags.IntVar(&f.own.Short, "detector-size", 0, "shorter side of the detector's input in pixels (default 800; other sizes give other scores)")
	flags.BoolVar(&f.asJSON, "json", false, "one JSON object")
	flags.StringVar(&f.format, "format", "text", "table format: text, markdown, csv, html")
	flags.StringVarP(&f.out, "out", "o", "", "results file (default DIR/results.jsonl)")
	return cmd
}

// score evaluates the folder and writes the results. With GenEval's own models, which take seconds an image, verdicts are
// kept beside the results until those are written, and the next run goes on from them.
func (a *app) score(ctx context.Context, f scoreFlags, dir string) (rows []geneval.Row, err error) {
	if f.detector == tinyDetector {
		if f.own.Weights != "" || f.own.CLIP != "" || len(f.own.Given) > 0 || f.own.Short != 0 {
			return nil, usage("add --detector geneval", "cli: score: weights, options and input size are those of GenEval's detector, and the detector is %s", f.detector)
		}
		if rows, err = experiment.Score(ctx, dir, world.Evaluator().Evaluate, readImage, a.progress("images")); err != nil {
			return nil, err
		}
		return rows, experiment.WriteRows(f.out, rows)
	}
	if f.own, err = resolveDetector(f, dir); err != nil {
		return nil, err
	}
	be, info, err := backend.Open(a.backend)
	if err != nil {
		return nil, err
	}
	defer be.Finalize()
	if info.Note != "" {
		a.note("%s", info.Note)
	}
	if f.own.Short != 0 {
		a.note("the detector's input is %d pixels instead of 800: scores are not comparable with published ones", f.own.Short)
	}
	e, err := experiment.OpenDetector(be, f.own)
	if err != nil {
		return nil, formatError(err)
	}
	identity, err := f.own.Identity()
	if err != nil {
		return nil, err
	}
	memory, err := experiment.OpenMemory(f.out+".unfinished", identity)
	if err != nil {
		return nil, err
	}
	rows, err = experiment.Score(ctx, dir, memory.Remember(e.Evaluate), readImage, a.progress("images"))
	if err == nil {
		err = experiment.WriteRows(f.out, rows)
	}
	if err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	return rows, memory.Done()
}

// resolveDetector finds the weights, and what is missing or wrong before anything is opened.
func resolveDetector(f scoreFlags, dir string) (own experiment.DetectorOptions, err error) {
	if f.detector != genevalDetector {
		return own, usage("detectors are tiny and geneval", "cli: score: detector %q is not known", f.detector)
	}
	if _, _, err := geneval.ParseOptions(f.own.Given); err != nil {
		return own, usage("see --help", "%w", err)
	}
	colours, err := experiment.AsksColours(dir)
	if err != nil {
		return own, err
	}
	if own, err = f.own.Resolved(colours); errors.Is(err, fs.ErrNotExist) {
		err = &userError{err: err, code: exitNotFound, hint: "--detector-weights and --clip-weights name folders with model.safetensors"}
	}
	return own, err
}
