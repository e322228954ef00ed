package cli

import (
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
		Long: "Evaluates DIR/00000/samples/*.png against DIR/00000/metadata.jsonl, whoever made the images, writes results.jsonl as\n" +
			"GenEval does and prints the scores of each task and overall. Prompts count as they are written; none is rewritten.\n\n" +
			"Detectors:\n" +
			"  tiny     exact detector of the tiny world (default)\n" +
			"  geneval  GenEval's own: Mask2Former (Swin-S, COCO) finds objects, CLIP (ViT-L/14) names colours",
		Example: "  imagecot score runs/a\n" +
			"  imagecot score --detector geneval --detector-weights mask2former --clip-weights clip images",
		Args: exactArgs(1, "one folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			evaluate, done, err := a.evaluator(f, args[0])
			if err != nil {
				return err
			}
			defer done()
			rows, err := experiment.Score(cmd.Context(), args[0], evaluate, readImage, a.progress("images"))
			if err != nil {
				return err
			}
			out := f.out
			if out == "" {
				out = filepath.Join(args[0], "results.jsonl")
			}
			if err := experiment.WriteRows(out, rows); err != nil {
				return err
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
	flags.StringVar(&f.own.Weights, "detector-weights", "", "folder of Mask2Former's weights, as transformers or mmdetection name them")
	flags.StringVar(&f.own.CLIP, "clip-weights", "", "folder of CLIP's weights and tokenizer, for prompts that ask for a colour")
	flags.StringArrayVar(&f.own.Given, "option", nil, "GenEval's option KEY=VALUE: threshold, counting_threshold, max_objects, max_overlap,\nposition_threshold, bgcolor, crop (repeatable)")
	flags.IntVar(&f.own.Short, "detector-size", 0, "shorter side of the detector's input in pixels (default 800; other sizes give other scores)")
	flags.BoolVar(&f.asJSON, "json", false, "one JSON object")
	flags.StringVar(&f.format, "format", "text", "table format: text, markdown, csv, html")
	flags.StringVarP(&f.out, "out", "o", "", "results file (default DIR/results.jsonl)")
	return cmd
}

// evaluator opens what the flags name; done frees it.
func (a *app) evaluator(f scoreFlags, dir string) (evaluate experiment.Evaluate, done func(), err error) {
	own := f.own
	switch f.detector {
	case tinyDetector:
		if own.Weights != "" || own.CLIP != "" || len(own.Given) > 0 || own.Short != 0 {
			return nil, nil, usage("add --detector geneval", "cli: score: weights, options and input size are those of GenEval's detector, and the detector is %s", f.detector)
		}
		return world.Evaluator().Evaluate, func() {}, nil
	case genevalDetector:
	default:
		return nil, nil, usage("detectors are tiny and geneval", "cli: score: detector %q is not known", f.detector)
	}
	if own.Weights == "" {
		return nil, nil, usage("name the folder of Mask2Former (Swin-S, COCO instances): model.safetensors, and config.json unless the names are mmdetection's; `imagecot convert` makes one of a .pth",
			"cli: score: GenEval's detector needs weights, and --detector-weights is not given")
	}
	colours, err := experiment.AsksColours(dir)
	if err != nil {
		return nil, nil, err
	}
	if colours && own.CLIP == "" {
		return nil, nil, usage("name the folder of CLIP (ViT-L/14): model.safetensors, config.json, vocab.json, merges.txt",
			"cli: score: prompts in %s ask for colours, and --clip-weights is not given", dir)
	}
	if _, _, err := geneval.ParseOptions(own.Given); err != nil {
		return nil, nil, usage("see --help", "%w", err)
	}
	be, info, err := backend.Open(a.backend)
	if err != nil {
		return nil, nil, err
	}
	if info.Note != "" {
		a.note("%s", info.Note)
	}
	e, err := experiment.OpenDetector(be, own)
	if err != nil {
		be.Finalize()
		return nil, nil, formatError(err)
	}
	if own.Short != 0 {
		a.note("the detector's input is %d pixels instead of 800: scores are not comparable with published ones", own.Short)
	}
	return e.Evaluate, be.Finalize, nil
}
