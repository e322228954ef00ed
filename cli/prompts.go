package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxPromptFile bounds what is read from a prompt file or standard input.
const maxPromptFile = 16 << 20

// readPrompts turns the arguments of generate into prompts: each is a prompt, the name of a file with one prompt a line,
// or - for standard input.
func (a *app) readPrompts(args []string) ([]string, error) {
	var prompts []string
	for _, arg := range args {
		switch {
		case arg == "-":
			lines, err := promptLines(a.stdin)
			if err != nil {
				return nil, fmt.Errorf("cli: standard input: %w", err)
			}
			prompts = append(prompts, lines...)
		case isFile(arg):
			f, err := os.Open(arg)
			if err != nil {
				return nil, fmt.Errorf("cli: prompts: %w", err)
			}
			lines, err := promptLines(f)
			_ = f.Close()
			if err != nil {
				return nil, fmt.Errorf("cli: %s: %w", arg, err)
			}
			prompts = append(prompts, lines...)
		case strings.HasSuffix(arg, ".txt") && !strings.Contains(arg, " "):
			return nil, fmt.Errorf("cli: prompt file %s: %w", arg, fs.ErrNotExist)
		default:
			prompts = append(prompts, arg)
		}
	}
	for _, p := range prompts {
		if strings.TrimSpace(p) == "" {
			return nil, usage(`for example: imagecot generate "a photo of a red circle"`, "the prompt is empty")
		}
	}
	if len(prompts) == 0 {
		return nil, usage("one prompt a line", "there is no prompt in %s", strings.Join(args, " "))
	}
	return prompts, nil
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// promptLines reads one prompt a line; blank lines and lines that start with # do not count.
func promptLines(r io.Reader) ([]string, error) {
	var out []string
	limited := &io.LimitedReader{R: r, N: maxPromptFile + 1}
	sc := bufio.NewScanner(limited)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	if limited.N == 0 {
		return nil, errors.New("more than 16 MiB of prompts")
	}
	return out, sc.Err()
}
