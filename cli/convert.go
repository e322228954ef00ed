package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"imagecot/ckpt"
)

func (a *app) convertCommand() *cobra.Command {
	var allow bool
	cmd := &cobra.Command{
		Use: "convert FILE.bin [OUT.safetensors]", Short: "Make a safetensors file of a torch file (.bin, .pt, .pth)",
		Long: "torch files are pickles, and a pickle can name code. imagecot runs none of it: it rebuilds tensors and\n" +
			"refuses a file that names anything else. Still it opens such a file only when told to, with\n" +
			"--allow-pickle, and models are loaded from safetensors alone.",
		Example: "  imagecot convert --allow-pickle dpo/pytorch_model.bin",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usage("usage: "+cmd.UseLine(), "%s takes one or two files, got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			from := args[0]
			to := filepath.Join(filepath.Dir(from), ckpt.ModelFile)
			if len(args) == 2 {
				to = args[1]
			}
			switch _, err := os.Stat(from); {
			case err != nil:
				return fmt.Errorf("cli: convert: %w", err)
			case !allow:
				return usage("add --allow-pickle if you trust where the file comes from", "%s is a pickle, which is not opened unasked", from)
			case !strings.HasSuffix(to, ".safetensors"):
				return usage("", "the output %s does not end in .safetensors", to)
			}
			if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
				return usage("remove it, or name another file", "%s is there already", to)
			}
			if err := ckpt.Convert(from, to); err != nil {
				return formatError(err)
			}
			_, err := fmt.Fprintln(a.stdout, to)
			return err
		},
	}
	cmd.Flags().BoolVar(&allow, "allow-pickle", false, "open a pickle")
	return cmd
}
