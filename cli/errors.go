package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"imagecot/backend"
	"imagecot/curate"
	"imagecot/experiment"
	"imagecot/judge/openai"
	"imagecot/tiny"
	"imagecot/train"
)

// Exit codes of every command.
const (
	exitOK         = 0
	exitFailure    = 1
	exitUsage      = 2 // flags, arguments, recipes
	exitPartial    = 3
	exitNotFound   = 4
	exitRefused    = 5 // checksum or format
	exitResource   = 6 // memory, disk, permission to write
	exitInterrupt  = 130
	exitTerminated = 143
)

// userError is an error with an exit code and a line that says what to do.
type userError struct {
	err  error
	code int
	hint string
}

func (e *userError) Error() string { return e.err.Error() }
func (e *userError) Unwrap() error { return e.err }

// usage makes an error about how the command was called.
func usage(hint, format string, args ...any) error {
	return &userError{err: fmt.Errorf(format, args...), code: exitUsage, hint: hint}
}

// stopped is the cause of a context that a signal cancelled.
type stopped struct{ signal os.Signal }

func (s stopped) Error() string { return "stopped by " + s.signal.String() }

// stoppedHint is true of every command: those that keep parts (train, curate, eval, reproduce) go on after them.
const stoppedHint = "nothing half-written is left; a command that keeps finished parts goes on from there"

// exitCode maps an error to the exit code and a hint, which may be empty.
func exitCode(ctx context.Context, err error) (int, string) {
	if err == nil {
		return exitOK, ""
	}
	var stop stopped
	if errors.As(context.Cause(ctx), &stop) {
		if stop.signal == syscall.SIGTERM {
			return exitTerminated, stoppedHint
		}
		return exitInterrupt, stoppedHint
	}
	var ue *userError
	if errors.As(err, &ue) {
		return ue.code, ue.hint
	}
	switch {
	case errors.Is(err, experiment.ErrOtherRun), errors.Is(err, curate.ErrOtherData):
		return exitUsage, "choose another folder with --out"
	case errors.Is(err, experiment.ErrRecipe):
		return exitUsage, "see --help"
	case errors.Is(err, train.ErrRecipe):
		return exitUsage, "recipes/tiny and recipes/full hold recipes to start from"
	case errors.Is(err, backend.ErrUnknown):
		return exitUsage, "`imagecot backend list` shows the engines that are here"
	case errors.Is(err, backend.ErrNone):
		return exitNotFound, "`imagecot backend install` fetches one; --backend go needs none"
	case errors.Is(err, experiment.ErrRefused):
		return exitRefused, ""
	case errors.Is(err, backend.ErrPlugin):
		return exitRefused, "`imagecot backend install` fetches one; --backend go needs none"
	case errors.As(err, new(*experiment.UnknownModelError)):
		return exitNotFound, modelsHint
	case errors.Is(err, openai.ErrEndpoint):
		return exitFailure, "check the address after @ and that a server answers there; the key is read from " + openai.KeyEnv + " or " + openai.OpenAIKeyEnv
	case errors.Is(err, tiny.ErrMissing):
		return exitNotFound, "`imagecot models list` shows what is there"
	case errors.Is(err, syscall.ENOSPC):
		return exitResource, "free some space or choose another folder with --out"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return exitResource, "choose a folder that you may write with --out"
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound, ""
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "unknown flag"):
		return exitUsage, "see `imagecot --help`"
	}
	return exitFailure, ""
}

// missing adds a line of what to do to an error of something that is not there, if it has none.
func missing(ctx context.Context, err error, hint string) error {
	if code, known := exitCode(ctx, err); code == exitNotFound && known == "" {
		return &userError{err: err, code: code, hint: hint}
	}
	return err
}

// printError writes one line of what went wrong and, if there is one, a line of what to do.
func printError(w io.Writer, err error, hint string) {
	fmt.Fprintf(w, "imagecot: %s\n", strings.ReplaceAll(strings.TrimRight(err.Error(), "\n"), "\n", " "))
	if hint != "" {
		fmt.Fprintf(w, "  %s\n", hint)
	}
}

// formatError marks an error of a file that is there but cannot be what it claims.
func formatError(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return refused(err)
}
