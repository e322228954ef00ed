package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"imagecot/experiment"
	"imagecot/internal/atomicfile"
	"imagecot/recipes"
)

// trainAll runs the commands of a training from nothing, one after the other and each in a process of its own, in a
// folder that holds the recipes, so that the commands in the recipes are those that run. A command that is finished is
// not run again; one that was stopped goes on by itself.
func (a *app) trainAll(ctx context.Context, steps []experiment.TrainStep, dir string) error {
	if err := copyRecipes(dir); err != nil {
		return err
	}
	for i, s := range steps {
		mark := filepath.Join(dir, "trained", s.Name)
		if text, err := os.ReadFile(mark); err == nil && string(text) == s.Run+"\n" {
			continue
		}
		a.note("%d of %d: %s", i+1, len(steps), s.Run)
		begun := time.Now()
		if err := a.runSelf(ctx, dir, strings.Fields(s.Run)); err != nil {
			return fmt.Errorf("cli: reproduce: `%s` in %s: %w", s.Run, dir, err)
		}
		a.note("%d of %d took %s", i+1, len(steps), time.Since(begun).Round(time.Second))
		if err := os.MkdirAll(filepath.Dir(mark), 0o755); err != nil {
			return fmt.Errorf("cli: reproduce: %w", err)
		}
		if err := writeFile(mark, []byte(s.Run+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// runSelf runs this program with other arguments in a folder. Its output goes to standard error: ours is for results.
// When ctx ends it is interrupted and given time to save.
func (a *app) runSelf(ctx context.Context, dir string, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	backend := a.backend
	if _, err := os.Stat(backend); err == nil {
		if backend, err = filepath.Abs(backend); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Args = args
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, a.stderr, a.stderr
	cmd.Env = append(os.Environ(), "IMAGECOT_BACKEND="+backend)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Minute
	ownGroup(cmd)
	err = cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// copyRecipes writes the embedded recipes to DIR/recipes.
func copyRecipes(dir string) error {
	return fs.WalkDir(recipes.Files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, "recipes", filepath.FromSlash(path))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		text, err := fs.ReadFile(recipes.Files, path)
		if err != nil {
			return err
		}
		return atomicfile.WriteFile(to, text, 0o644)
	})
}
