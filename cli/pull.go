package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"imagecot/hub"
	"imagecot/preset"
	"imagecot/report"
)

// pulledJSON is what pull prints with --json for each checkpoint that it brought.
type pulledJSON struct {
	Name    string `json:"name"`
	Folder  string `json:"folder"`
	Licence string `json:"licence,omitempty"`
	Pickled bool   `json:"pickled"` // weights are a torch file, which no model is loaded from
}

func (a *app) pullCommand() *cobra.Command {
	var o preset.Options
	var include []string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "pull NAME|ORG/NAME|ORG/NAME@REVISION...", Short: "Download published checkpoints",
		Long: "Brings a preset and what it needs (`imagecot models presets` lists them), or a repository, into the\n" +
			"cache that Hugging Face's tools use. HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are\n" +
			"honoured. Every file is checked for size and hash; a pull that was cut goes on where it stopped.",
		Example: "  imagecot pull show-o-256\n  imagecot pull --allow-pickle cot-dpo\n  imagecot pull lmms-lab/llava-onevision-qwen2-0.5b-ov@main",
		Args:    atLeast(1, "at least one preset or repository"),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := hub.FromEnv()
			if err != nil {
				return &userError{err: err, code: exitUsage}
			}
			var pulled []pulledJSON
			for _, name := range args {
				var more []pulledJSON
				if isRepo(name) {
					more, err = a.pullRepo(cmd, h, strings.TrimPrefix(name, "hf:"), include, o)
				} else {
					more, err = a.pullPreset(cmd, h, name, o)
				}
				if err != nil {
					return err
				}
				pulled = append(pulled, more...)
			}
			if err := a.showPulled(pulled, asJSON); err != nil {
				return err
			}
			for _, p := range pulled {
				if p.Pickled {
					return &userError{
						err:  fmt.Errorf("%s was published as a torch file, which models are not loaded from", p.Name),
						code: exitPartial, hint: "`imagecot pull --allow-pickle " + p.Name + "` makes a safetensors file of it; nothing in it is run",
					}
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&include, "include", nil, "patterns of the files of a repository (default: all)")
	f.BoolVar(&o.Check, "check", false, "verify the hashes of files that are there")
	f.BoolVar(&o.AllowPickle, "allow-pickle", false, "make a safetensors file of a torch file")
	f.BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

// isRepo tells ORG/NAME from the name of a preset or of a preset's file.
func isRepo(name string) bool {
	return strings.HasPrefix(name, "hf:") || strings.Contains(name, "/") && !strings.HasSuffix(name, ".yaml")
}

func (a *app) pullRepo(cmd *cobra.Command, h *hub.Hub, name string, include []string, o preset.Options) ([]pulledJSON, error) {
	r, err := hub.ParseRepo(name)
	if err != nil {
		return nil, &userError{err: err, code: exitUsage}
	}
	o.Progress = a.bytesProgress(name)
	dir, err := preset.PullRepo(cmd.Context(), h, r, "", include, o)
	if err != nil {
		return nil, pullError(err)
	}
	return []pulledJSON{{Name: name, Folder: dir}}, nil
}

func (a *app) pullPreset(cmd *cobra.Command, h *hub.Hub, name string, o preset.Options) ([]pulledJSON, error) {
	p, err := preset.Find(name)
	if errors.Is(err, preset.ErrUnknown) {
		return nil, &userError{err: err, code: exitNotFound, hint: "`imagecot models presets` lists the names; a repository is ORG/NAME"}
	}
	if err != nil {
		return nil, &userError{err: err, code: exitUsage}
	}
	all, err := p.Needs()
	if err != nil {
		return nil, &userError{err: err, code: exitUsage}
	}
	var out []pulledJSON
	for _, p := range append(all, p) {
		a.note("%s: %s, about %s, licence: %s", p.Name, p.About, preset.Size(p.Bytes), p.Licence)
		o.Progress = a.bytesProgress(p.Name)
		dir, pickled, err := p.Pull(cmd.Context(), h, o)
		if err != nil {
			return nil, pullError(err)
		}
		out = append(out, pulledJSON{p.Name, dir, p.Licence, pickled})
	}
	return out, nil
}

// pullError adds the exit code that an error of the hub means.
func pullError(err error) error {
	switch {
	case errors.Is(err, hub.ErrOffline):
		return &userError{err: err, code: exitNotFound, hint: "unset HF_HUB_OFFLINE to download"}
	case errors.Is(err, hub.ErrHash):
		return refused(err)
	case errors.Is(err, hub.ErrAccess):
		return &userError{err: err, code: exitNotFound}
	case errors.As(err, new(net.Error)):
		return &userError{err: err, code: exitFailure, hint: "HF_ENDPOINT names another hub; HF_HUB_OFFLINE=1 keeps to what is here"}
	}
	return err
}

// bytesProgress shows a download in MB.
func (a *app) bytesProgress(name string) hub.Progress {
	show, last := a.progress(name+", MB"), int64(-1)
	return func(done, total int64) {
		if mb := done / 1_000_000; mb != last && total > 0 || done == total {
			last = mb
			show(int(mb), int(total/1_000_000))
		}
	}
}

func (a *app) showPulled(pulled []pulledJSON, asJSON bool) error {
	if asJSON {
		return a.json(struct {
			Pulled []pulledJSON `json:"pulled"`
		}{pulled})
	}
	for _, p := range pulled {
		if _, err := fmt.Fprintf(a.stdout, "%s\t%s\n", p.Name, p.Folder); err != nil {
			return fmt.Errorf("cli: output: %w", err)
		}
	}
	return nil
}

// presetJSON is a preset and whether its files are in the cache.
type presetJSON struct {
	preset.Preset
	Here      bool   `json:"here"`
	Directory string `json:"directory,omitempty"` // of the files that are here
}

// showPreset prints what a preset is and where it lies, or what brings it.
func (a *app) showPreset(p preset.Preset, asJSON bool) error {
	h, err := hub.FromEnv()
	if err != nil {
		return &userError{err: err, code: exitUsage}
	}
	dir, err := p.Dir(h)
	var absent *preset.MissingError
	if err != nil && !errors.As(err, &absent) {
		return err
	}
	if asJSON {
		return a.json(presetJSON{p, err == nil, dir})
	}
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-10s %s\n", name, value)
		}
	}
	line("preset", p.Name)
	line("what", p.About)
	line("role", p.Role)
	line("licence", p.Licence)
	if p.URL != "" {
		line("from", p.URL)
		line("sha256", p.SHA256)
	} else {
		line("from", p.Repo)
		line("revision", cmp.Or(p.Revision, "main"))
		line("folder", p.Folder)
		line("files", strings.Join(p.Files, ", ")+map[bool]string{true: " (? = if there is one)"}[strings.Contains(strings.Join(p.Files, ""), "?")])
	}
	line("size", preset.Size(p.Bytes))
	line("tokenizer", p.Tokenizer)
	line("text", p.Text)
	if p.Resolution > 0 {
		line("images", fmt.Sprintf("%d x %d", p.Resolution, p.Resolution))
	}
	if d := p.Decoding; d != nil {
		line("decoding", fmt.Sprintf("%d steps, guidance %g, temperature %g", d.Steps, d.Guidance, d.Temperature))
	}
	line("questions", p.Questions)
	if absent == nil {
		line("here", dir)
	} else {
		line("here", "no; `"+absent.Command()+"` brings "+preset.Size(absent.Bytes))
	}
	if _, err := fmt.Fprint(a.stdout, b.String()); err != nil {
		return fmt.Errorf("cli: output: %w", err)
	}
	return nil
}

func (a *app) modelsPresetsCommand() *cobra.Command {
	var asJSON bool
	var format string
	cmd := &cobra.Command{
		Use: "presets", Short: "List the published checkpoints that `imagecot pull` knows by name", Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			all, err := preset.All()
			if err != nil {
				return &userError{err: err, code: exitUsage}
			}
			h, err := hub.FromEnv()
			if err != nil {
				return &userError{err: err, code: exitUsage}
			}
			var list []presetJSON
			t := report.Table{Header: []string{"preset", "role", "size", "here", "licence", "what it is"}}
			for _, p := range all {
				_, err := p.Dir(h)
				here := map[bool]string{true: "yes", false: "-"}[err == nil]
				list = append(list, presetJSON{Preset: p, Here: err == nil})
				t.Rows = append(t.Rows, []string{p.Name, p.Role, preset.Size(p.Bytes), here, p.Licence, p.About})
			}
			if asJSON {
				return a.json(struct {
					Presets []presetJSON `json:"presets"`
				}{list})
			}
			return a.printTable(t, format)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().StringVar(&format, "format", "text", "table format: text, markdown, csv, html")
	return cmd
}
