package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imagecot/backend"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	var budget time.Duration
	cmd := &cobra.Command{
		Use: "doctor", Short: "Measure the engine and look for problems", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.note("measuring for about %s", budget)
			d, err := backend.Diagnose(cmd.Context(), a.backend, budget)
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(d)
			}
			var b strings.Builder
			line := func(name, format string, args ...any) {
				fmt.Fprintf(&b, "%-10s "+format+"\n", append([]any{name}, args...)...)
			}
			const gb = 1e9
			line("platform", "%s, %s", d.Platform, d.Go)
			line("processor", "%s, %d cores", d.CPU, d.Cores)
			line("memory", "%.1f GB, %.1f GB free", float64(d.MemTotal)/gb, float64(d.MemFree)/gb)
			line("engine", "%s on %s: %s", d.Engine, d.Device, d.Description)
			if d.Plugin != "" {
				line("plugin", "%s", d.Plugin)
			}
			line("products", "%.1f GFLOPS float32, %.1f GFLOPS bfloat16 (%d x %d)", d.GemmF32, d.GemmBF16, d.GemmSize, d.GemmSize)
			line("bandwidth", "%.1f GB/s", d.Bandwidth)
			line("first run", "%.2f s to compile a product", d.FirstRun)
			for _, p := range d.Problems {
				line("problem", "%s", p)
			}
			if d.Note != "" {
				line("note", "%s", d.Note)
			}
			_, err = fmt.Fprint(a.stdout, b.String())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().DurationVar(&budget, "budget", 10*time.Second, "how long to measure")
	return cmd
}
