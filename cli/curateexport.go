package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"imagecot/curate"
	"imagecot/experiment"
	"imagecot/verify/questions"
)

func (a *app) curateExportCommand() *cobra.Command {
	var e curate.Export
	var format, wording string
	recipe := experiment.Default()
	cmd := &cobra.Command{
		Use: "export FOLDER", Short: "Write a data set with pictures, for Hugging Face's datasets or LLaVA's training code",
		Args: exactArgs(1, "the folder of a data set"),
		Long: "parquet-images: Parquet parts whose pictures `datasets.load_dataset` decodes, with tokens and labels\n" +
			"beside them. jsonl: metadata.jsonl and images/, as its imagefolder reads them. llava: conversations.json\n" +
			"and images/, the training file and folder of LLaVA. Data sets of couples (pairs, correction) have no\n" +
			"conversations.",
		Example: "  imagecot curate export runs/reflection --format llava --out out/reflection-llava",
		RunE: func(cmd *cobra.Command, args []string) error {
			e.From, e.Format = args[0], curate.Format(format)
			if e.Format != curate.ParquetImages && e.Format != curate.JSONLines && e.Format != curate.LLaVA {
				return usage("", "--format is %q, want %s, %s or %s", format, curate.ParquetImages, curate.JSONLines, curate.LLaVA)
			}
			if e.PartSize < 1 {
				return usage("", "--part is %d, want at least 1", e.PartSize)
			}
			var err error
			if e.Questions, err = questions.Get(wording); err != nil {
				return usage("", "%w", err)
			}
			if err := writable(e.Dir); err != nil {
				return err
			}
			recipe.Strategy = "single"
			p, err := a.open(cmd, recipe)
			if err != nil {
				return err
			}
			defer p.Close()
			e.Generator, e.Tokenizer, e.Progress = p.Generator, p.Models["tokenizer"], a.progress("parts")
			if e.Format != curate.ParquetImages {
				e.Progress = a.progress("images")
			}
			err = e.Run(cmd.Context())
			if errors.Is(err, curate.ErrNoConversation) {
				return usage("use --format parquet-images", "%w", err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", string(curate.ParquetImages), "what to write: parquet-images, jsonl or llava")
	f.StringVar(&wording, "questions", "paper", "words of the questions (llava): paper, released or tiny")
	f.StringVar(&recipe.Generator, "generator", recipe.Generator, "the generator that drew the images; its tokenizer decodes them")
	f.StringVar(&recipe.Tokenizer, "tokenizer", recipe.Tokenizer, "the image tokenizer: tiny, a preset or a folder (default: GENERATOR/tokenizer, or tiny)")
	f.IntVar(&e.PartSize, "part", 1024, "images a part (parquet-images)")
	f.StringVarP(&e.Dir, "out", "o", "out/export", "folder to write to")
	return cmd
}
