package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"imagecot/backend"
	"imagecot/report"
)

func (a *app) backendCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backend", Short: "Install and list engines", Args: exactArgs(0, "a subcommand"),
		Long: "The pure-Go engine is always there. XLA is much faster and is a plugin: one shared library, fetched only\n" +
			"by `imagecot backend install` (PIP_INDEX_URL is honoured) and checked against its hash.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.backendInstallCommand(), a.backendListCommand())
	return cmd
}

func (a *app) backendInstallCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "install [cpu|cuda]", Short: "Fetch an XLA plugin",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("usage: "+cmd.UseLine(), "%s takes at most one device", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			device := "cpu"
			if len(args) == 1 {
				device = args[0]
			}
			bars := map[string]func(done, total int){}
			p, err := backend.Install(cmd.Context(), device, func(stage string, done, total int64) {
				if bars[stage] == nil {
					bars[stage] = a.progress(stage)
				}
				if total > 0 {
					bars[stage](int(done), int(total))
				}
			})
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(p)
			}
			_, err = fmt.Fprintln(a.stdout, p.Path)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

func (a *app) backendListCommand() *cobra.Command {
	var asJSON bool
	var format string
	cmd := &cobra.Command{
		Use: "list", Short: "List the engines of this machine", Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			plugins, err := backend.List()
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(struct {
					Plugins []backend.Plugin `json:"plugins"`
				}{append([]backend.Plugin{}, plugins...)})
			}
			t := report.Table{Header: []string{"engine", "device", "name", "MB", "path"}}
			for _, p := range plugins {
				t.Rows = append(t.Rows, []string{"xla", p.Device, p.Name, strconv.FormatInt(p.Size/1_000_000, 10), p.Path})
			}
			t.Rows = append(t.Rows, []string{"go", "cpu", "pure Go, built in", "", ""})
			return a.printTable(t, format)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().StringVar(&format, "format", "text", "table format: text, markdown, csv, html")
	return cmd
}
