package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/experiment"
	"imagecot/internal/atomicfile"
	"imagecot/models/llavaov"
)

// beside lists the files that a merged model needs beside its weights, where its base has them.
var beside = append([]string{"config.json", "generation_config.json"}, bpe.FileNames()...)

func (a *app) mergeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "merge BASE ADAPTER OUT", Short: "Merge a LoRA adapter (PEFT's format) into its base",
		Long: "BASE is a model folder, a preset or a shipped model, ADAPTER a folder with adapter_config.json and\n" +
			"adapter_model.safetensors. OUT becomes a model folder in the base's types: W + (alpha/r) B A, rounded once.",
		Example: "  imagecot merge tiny out/train/lora/final/adapter merged",
		Args:    exactArgs(3, "a base, an adapter and an output folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := experiment.ModelFolder(args[0], "generator")
			if err != nil {
				return err
			}
			f, err := ckpt.OpenModelFS(dir, ".")
			if err != nil {
				return formatError(err)
			}
			defer f.Close()
			adapter, err := ckpt.OpenAdapter(args[1])
			if err != nil {
				return formatError(err)
			}
			merged, err := ckpt.Merge(f, adapter, llavaov.Canonical)
			if err != nil {
				return refused(err)
			}
			out := args[2]
			if err := writable(out); err != nil {
				return err
			}
			path := filepath.Join(out, ckpt.ModelFile)
			if _, err := os.Stat(path); err == nil {
				return usage("remove it, or name another folder", "%s is there already", path)
			}
			for _, name := range beside {
				text, err := fs.ReadFile(dir, name)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err == nil {
					err = atomicfile.WriteFile(filepath.Join(out, name), text, 0o644)
				}
				if err != nil {
					return fmt.Errorf("cli: merge: %w", err)
				}
			}
			if err := ckpt.Write(path, merged, f.Metadata()); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, path)
			return err
		},
	}
}
