package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// json writes one object to standard output.
func (a *app) json(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("cli: output: %w", err)
	}
	return nil
}

// note writes a line to standard error unless --quiet.
func (a *app) note(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// writable makes a folder and tries whether files can be written there, before any time is spent on what goes in.
func writable(dir string) error {
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, ".try-*"); err == nil {
			_, err = f.WriteString("imagecot")
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}
	if err != nil {
		return &userError{err: fmt.Errorf("cli: cannot write to %s: %w", dir, err), code: exitResource, hint: "choose another folder with --out"}
	}
	return nil
}

// terminal says whether standard error is a terminal that wants to see moving things.
func (a *app) terminal() bool {
	f, ok := a.stderr.(*os.File)
	return ok && !a.quiet && os.Getenv("CI") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// progress returns a function that shows how much is done: a bar with rate and time left on a terminal, else a line
// every half minute.
func (a *app) progress(what string) func(done, total int) {
	if a.quiet {
		return func(int, int) {}
	}
	if !a.terminal() {
		last := time.Now()
		return func(done, total int) {
			if done == total || time.Since(last) > 30*time.Second {
				last = time.Now()
				a.note("%s: %d of %d", what, done, total)
			}
		}
	}
	var bar *progressbar.ProgressBar
	return func(done, total int) {
		if bar == nil {
			bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetDescription(what),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true),
				progressbar.OptionUseANSICodes(true), progressbar.OptionClearOnFinish(),
				progressbar.OptionEnableColorCodes(os.Getenv("NO_COLOR") == ""))
		}
		_ = bar.Set(done)
		if done == total {
			_ = bar.Finish()
			bar = nil
		}
	}
}
