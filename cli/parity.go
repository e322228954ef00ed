package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/spf13/cobra"

	"imagecot/backend"
	"imagecot/ckpt"
	"imagecot/parity"
	"imagecot/report"
)

// parityJSON is one case of parity --json.
type parityJSON struct {
	parity.Report
	Error string `json:"error,omitempty"`
}

func (a *app) parityCommand() *cobra.Command {
	var asJSON bool
	var dtype string
	cmd := &cobra.Command{
		Use: "parity DIR...", Short: "Compare with the outputs of reference implementations",
		Long: "Runs case folders by their kind and prints the largest difference of each output. Exit code 0: all\n" +
			"within tolerance; 1: something is outside or could not be computed; 2: a kind that has no runner; 4: all else is\n" +
			"within tolerance, and a case is not there.",
		Args: atLeast(1, "at least one case folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			float, ok := map[string]ckpt.DType{"f32": ckpt.F32, "bf16": ckpt.BF16}[dtype]
			if !ok {
				return usage("", "--dtype is %q, want f32 or bf16", dtype)
			}
			be, info, err := backend.Open(a.backend)
			if err != nil {
				return err
			}
			defer be.Finalize()
			if info.Note != "" {
				a.note("%s", info.Note)
			}
			t := report.Table{Header: []string{"case", "kind", "output", "values", "max abs", "max rel", "tolerance", "result"}}
			var list []parityJSON
			var failed, unknown, missing int
			for _, dir := range args {
				if err := cmd.Context().Err(); err != nil {
					return err
				}
				r, err := parity.RunAs(cmd.Context(), be, dir, float)
				row := parityJSON{Report: r}
				switch {
				case err != nil:
					row.Error = err.Error()
					failed++
					switch {
					case errors.Is(err, parity.ErrUnknownKind):
						unknown++
					case errors.Is(err, fs.ErrNotExist):
						missing++
					}
					t.Rows = append(t.Rows, []string{dir, r.Kind, "", "", "", "", "", err.Error()})
				case !r.OK:
					failed++
				}
				for _, o := range r.Outputs {
					result := "ok"
					if !o.OK {
						result = "OUTSIDE: " + o.Detail
					}
					t.Rows = append(t.Rows, []string{dir, r.Kind, o.Name, strconv.Itoa(o.Values), number(o.MaxAbs), number(o.MaxRel), o.Tolerance, result})
				}
				list = append(list, row)
			}
			if err := a.parityResult(t, list, asJSON); err != nil {
				return err
			}
			switch {
			case unknown > 0:
				return usage("", "%d of %d cases have a kind without a runner", unknown, len(args))
			case failed > 0 && failed == missing:
				return &userError{
					err:  fmt.Errorf("%d of %d cases are not there or lack a file", missing, len(args)),
					code: exitNotFound, hint: "a case is a folder with case.json",
				}
			case failed > 0:
				return fmt.Errorf("%d of %d cases are outside their tolerance or could not be computed", failed, len(args))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().StringVar(&dtype, "dtype", "f32", "how matrices of Show-o and LLaVA-OneVision are kept: f32 or bf16 (to see how far bf16 is: tolerances are those of f32)")
	return cmd
}

func (a *app) parityResult(t report.Table, list []parityJSON, asJSON bool) error {
	if asJSON {
		return a.json(struct {
			Cases []parityJSON `json:"cases"`
		}{list})
	}
	return a.printTable(t, "text")
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }
