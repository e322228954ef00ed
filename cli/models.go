package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"imagecot/ckpt"
	"imagecot/preset"
	"imagecot/report"
	"imagecot/tiny"
)

// modelJSON describes a shipped model.
type modelJSON struct {
	Name     string         `json:"name"`
	Role     string         `json:"role"`
	Present  bool           `json:"present"`
	Bytes    int64          `json:"bytes,omitempty"`
	Manifest *ckpt.Manifest `json:"manifest,omitempty"`
}

// modelsHint says where the names of models are.
const modelsHint = "`imagecot models list` shows the models inside, `imagecot models presets` those that `imagecot pull` brings"

// shipped says whether a model inside this program has the name.
func shipped(name string) bool {
	return name == "tiny" || slices.ContainsFunc(tiny.Models(), func(m tiny.Model) bool { return m.Name == name })
}

func describeModel(m tiny.Model) (modelJSON, error) {
	out := modelJSON{Name: m.Name, Role: m.Role, Bytes: tiny.Size(m.Name)}
	dir, err := tiny.Open(m.Name)
	if errors.Is(err, tiny.ErrMissing) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	out.Present = true
	manifest, err := ckpt.ReadManifestFS(dir, ".")
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	out.Manifest = &manifest
	return out, nil
}

func (a *app) modelsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "models", Short: "List and show the models inside this program, and published ones", Args: exactArgs(0, "a subcommand"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.modelsListCommand(), a.modelsShowCommand(), a.modelsPresetsCommand())
	return cmd
}

func (a *app) modelsListCommand() *cobra.Command {
	var asJSON bool
	var format string
	cmd := &cobra.Command{
		Use: "list", Short: "List the shipped models", Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			var list []modelJSON
			t := report.Table{Header: []string{"model", "kB", "steps", "trained", "what it does"}}
			for _, m := range tiny.Models() {
				d, err := describeModel(m)
				if err != nil {
					return err
				}
				list = append(list, d)
				kb, steps, date := "-", "-", "missing"
				if d.Present {
					kb, date = strconv.FormatInt(d.Bytes/1000, 10), "-"
				}
				if d.Manifest != nil {
					steps, date = strconv.Itoa(d.Manifest.Steps), d.Manifest.Date
				}
				t.Rows = append(t.Rows, []string{d.Name, kb, steps, date, d.Role})
			}
			if asJSON {
				return a.json(struct {
					Models []modelJSON `json:"models"`
				}{list})
			}
			return a.printTable(t, format)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().StringVar(&format, "format", "text", "table format: text, markdown, csv, html")
	return cmd
}

func (a *app) modelsShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show a shipped model's card, or with --json its manifest; or what a preset is", Args: exactArgs(1, "one model name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if name == "tiny" {
				name = "generator"
			}
			if p, err := preset.Find(name); err == nil {
				return a.showPreset(p, asJSON)
			} else if !errors.Is(err, preset.ErrUnknown) {
				return missing(cmd.Context(), err, modelsHint)
			}
			dir, err := tiny.Open(name)
			if err != nil {
				return missing(cmd.Context(), err, modelsHint)
			}
			if asJSON {
				for _, m := range tiny.Models() {
					if m.Name == name {
						d, err := describeModel(m)
						if err != nil {
							return err
						}
						return a.json(d)
					}
				}
			}
			card, err := fs.ReadFile(dir, tiny.CardFile)
			if err != nil {
				return fmt.Errorf("cli: model card: %w", err)
			}
			_, err = a.stdout.Write(card)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}
