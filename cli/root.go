// Package cli is the command line: one file a command. Standard output carries data only (text or, with --json, one
// object); progress, notes and errors go to standard error. Commands translate flags into recipes and errors into exit
// codes; everything else is done by the packages below.
package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"charm.land/fang/v2"
	"github.com/spf13/cobra"
)

// app is what the commands share.
type app struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	backend string
	quiet   bool
}

// Main runs the program with the process's arguments and streams and returns its exit code. The first interrupt stops
// at the next safe point, the second one at once.
func Main() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		s := <-signals
		cancel(stopped{s})
		<-signals
		os.Exit(exitInterrupt)
	}()
	return Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Run executes one command line.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	code := exitOK
	_ = fang.Execute(ctx, root, fang.WithVersion(version().Version), fang.WithErrorHandler(func(w io.Writer, _ fang.Styles, err error) {
		var hint string
		code, hint = exitCode(ctx, err)
		printError(w, err, hint)
	}))
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "imagecot",
		Short: "Generate images with chain of thought: verify and choose step by step",
		Long: "imagecot decodes several paths of an image, lets a judge look at step images, truncates paths without\n" +
			"potential and keeps the best: \"Can We Generate Images with CoT?\" (arXiv 2501.13926) as a program.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("see `imagecot --help`", "unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("see `"+cmd.CommandPath()+" --help`", "%w", err)
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.backend, "backend", envOr("IMAGECOT_BACKEND", "auto"), "engine: auto, go, xla or the path of a PJRT plugin")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no notes on standard error")
	root.AddCommand(
		a.generateCommand(), a.evalCommand(), a.scoreCommand(), a.compareCommand(), a.reproduceCommand(),
		a.trainCommand(), a.curateCommand(), a.worldCommand(),
		a.backendCommand(), a.doctorCommand(), a.modelsCommand(), a.inspectCommand(), a.pullCommand(), a.convertCommand(), a.mergeCommand(), a.parityCommand(), a.versionCommand(),
	)
	return root
}

func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// exactArgs and atLeast are cobra's checks with our exit code.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("usage: "+cmd.UseLine(), "%s takes %s, got %d arguments", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usage("usage: "+cmd.UseLine(), "%s takes %s", cmd.CommandPath(), what)
		}
		return nil
	}
}
