package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"imagecot/backend"
	"imagecot/experiment"
	"imagecot/judge/openai"
	"imagecot/tiny"
	"imagecot/train"
)

func TestExitCodes(t *testing.T) {
	signalled := func(s os.Signal) context.Context {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(stopped{s})
		return ctx
	}
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want int
	}{
		{"nothing", t.Context(), nil, 0},
		{"anything", t.Context(), errors.New("boom"), 1},
		{"recipe", t.Context(), fmt.Errorf("x: %w", experiment.ErrRecipe), 2},
		{"another run", t.Context(), fmt.Errorf("x: %w", experiment.ErrOtherRun), 2},
		{"unknown command", t.Context(), errors.New(`unknown command "x" for "imagecot"`), 2},
		{"recipe of a training", t.Context(), fmt.Errorf("x: %w", train.RecipeError(errors.New("y"))), 2},
		{"unknown engine", t.Context(), fmt.Errorf("x: %w", backend.ErrUnknown), 2},
		{"no engine", t.Context(), fmt.Errorf("x: %w", backend.ErrNone), 4},
		{"no plugin", t.Context(), fmt.Errorf("x: %w", backend.ErrPlugin), 5},
		{"missing model", t.Context(), fmt.Errorf("x: %w", tiny.ErrMissing), 4},
		{"missing file", t.Context(), fmt.Errorf("x: %w", fs.ErrNotExist), 4},
		{"bad file", t.Context(), formatError(errors.New("overlap")), 5},
		{"missing file of a format", t.Context(), formatError(fs.ErrNotExist), 4},
		{"disk full", t.Context(), fmt.Errorf("x: %w", syscall.ENOSPC), 6},
		{"read-only", t.Context(), fmt.Errorf("x: %w", syscall.EROFS), 6},
		{"no permission", t.Context(), fmt.Errorf("x: %w", fs.ErrPermission), 6},
		{"interrupt", signalled(os.Interrupt), context.Canceled, 130},
		{"interrupt hidden by another error", signalled(os.Interrupt), errors.New("stopped"), 130},
		{"termination", signalled(syscall.SIGTERM), context.Canceled, 143},
		{"interrupt that came too late", signalled(os.Interrupt), nil, 0},
	} {
		if got, _ := exitCode(c.ctx, c.err); got != c.want {
			t.Errorf("%s: exit code %d, want %d", c.name, got, c.want)
		}
	}
}

// Errors that users meet say what to do next.
func TestWaysOut(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{fmt.Errorf("x: %w", &experiment.UnknownModelError{Name: "x", Part: "judge"}), 4, "imagecot models presets"},
		{fmt.Errorf("x: %w", openai.ErrEndpoint), 1, "OPENAI_API_KEY"},
		{fmt.Errorf("x: %w", train.RecipeError(errors.New("y"))), 2, "recipes/tiny"},
		{pullError(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), 1, "HF_ENDPOINT"},
		{missing(t.Context(), fs.ErrNotExist, "look there"), 4, "look there"},
		{missing(t.Context(), usage("read this", "x"), "look there"), 2, "read this"},
	} {
		if code, hint := exitCode(t.Context(), c.err); code != c.code || !strings.Contains(hint, c.want) {
			t.Errorf("%v: exit code %d with the hint %q, want %d and %q", c.err, code, hint, c.code, c.want)
		}
	}
}

func TestErrorsAreOneLine(t *testing.T) {
	var b bytes.Buffer
	printError(&b, errors.New("first\nsecond\n"), "do this")
	if got := b.String(); got != "imagecot: first second\n  do this\n" {
		t.Errorf("printed %q", got)
	}
}

func TestPromptsFromEverywhere(t *testing.T) {
	file := t.TempDir() + "/list"
	if err := os.WriteFile(file, []byte("one\n\n# no\n two \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{stdin: strings.NewReader("three\n")}
	got, err := a.readPrompts([]string{"zero", file, "-"})
	if err != nil || strings.Join(got, "|") != "zero|one|two|three" {
		t.Errorf("prompts %q, error %v", got, err)
	}
}
