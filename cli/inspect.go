package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"imagecot/ckpt"
	"imagecot/experiment"
	"imagecot/internal/imgio"
	"imagecot/report"
)

// maxImage bounds the size of image files that are read.
const maxImage = 64 << 20

func (a *app) inspectCommand() *cobra.Command {
	var asJSON, recipe, pickle bool
	cmd := &cobra.Command{
		Use: "inspect FILE|FOLDER|NAME", Short: "Show what a PNG or a checkpoint holds",
		Long: "A PNG: its size and text chunks, among them the recipe that repeats it. A safetensors file, a model\n" +
			"folder, a shipped model, a preset or a LoRA adapter: every tensor with type, shape and the model's weight\n" +
			"that it is, after the whole file was checked. A folder called like a model is ./NAME.",
		Args: exactArgs(1, "one file, folder or model's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := args[0]
			dir, err := inspected(path)
			if err != nil {
				return missing(cmd.Context(), err, "a name is one of `imagecot models list` or `imagecot models presets`; all else is a file or a folder")
			}
			if dir == nil && !isTorch(path) && !strings.HasSuffix(strings.ToLower(path), ".safetensors") {
				return a.inspectPNG(path, asJSON, recipe)
			}
			if recipe {
				return usage("", "--recipe is for PNG files")
			}
			return a.inspectCheckpoint(path, dir, asJSON, pickle)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().BoolVar(&pickle, "allow-pickle", false, "open a torch file (.bin, .pt, .pth); nothing in it is run")
	cmd.Flags().BoolVar(&recipe, "recipe", false, "only the recipe inside a PNG, as JSON")
	return cmd
}

// inspected is the folder that is looked at, of a shipped model, on disk or of a preset; nil for a file.
func inspected(name string) (fs.FS, error) {
	if shipped(name) {
		return experiment.ModelFolder(name, "generator")
	}
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if dir, ok, failed := experiment.Published(name); ok {
			return os.DirFS(dir), failed
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cli: inspect: %w", err)
	}
	if !info.IsDir() {
		return nil, nil
	}
	return os.DirFS(name), nil
}

// refused marks an error about the content of a file.
func refused(err error) error { return &userError{err: err, code: exitRefused} }

type pngJSON struct {
	File   string            `json:"file"`
	Width  int               `json:"width"`
	Height int               `json:"height"`
	Texts  map[string]string `json:"texts"`
	Recipe json.RawMessage   `json:"imagecot,omitempty"`
}

func (a *app) inspectPNG(path string, asJSON, recipe bool) error {
	data, err := readLimited(path)
	if err != nil {
		return err
	}
	texts, err := imgio.ReadText(bytes.NewReader(data))
	if err != nil {
		return refused(fmt.Errorf("cli: inspect %s: %w", path, err))
	}
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return refused(fmt.Errorf("cli: inspect %s: %w", path, err))
	}
	out := pngJSON{File: path, Width: c.Width, Height: c.Height, Texts: map[string]string{}}
	for _, t := range texts {
		if t.Key == "imagecot" && json.Valid([]byte(t.Value)) {
			out.Recipe = json.RawMessage(t.Value)
			continue
		}
		out.Texts[t.Key] = t.Value
	}
	switch {
	case recipe && out.Recipe == nil:
		return refused(fmt.Errorf("cli: inspect %s: no imagecot recipe inside", path))
	case recipe:
		return a.json(out.Recipe)
	case asJSON:
		return a.json(out)
	}
	fmt.Fprintf(a.stdout, "%s: PNG, %d x %d pixels\n", path, c.Width, c.Height)
	for _, t := range texts {
		value := t.Value
		if t.Key == "imagecot" && out.Recipe != nil {
			var b bytes.Buffer
			if json.Indent(&b, out.Recipe, "", "  ") == nil {
				value = b.String()
			}
		}
		fmt.Fprintf(a.stdout, "\n[%s]\n%s\n", t.Key, value)
	}
	return nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cli: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxImage+1))
	if err != nil {
		return nil, fmt.Errorf("cli: %w", err)
	}
	if len(data) > maxImage {
		return nil, refused(fmt.Errorf("cli: %s is larger than %d bytes", path, maxImage))
	}
	return data, nil
}

// readImage opens an image file for scoring.
func readImage(path string) (image.Image, error) {
	data, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	img, err := imgio.Decode(bytes.NewReader(data), imgio.Limits{})
	if err != nil {
		return nil, refused(fmt.Errorf("cli: image %s: %w", path, err))
	}
	return img, nil
}

type checkpointJSON struct {
	File     string            `json:"file"`
	Model    string            `json:"model,omitempty"`
	Tensors  []tensorJSON      `json:"tensors"`
	Missing  []string          `json:"missing,omitempty"`
	Numbers  int               `json:"parameters"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Manifest *ckpt.Manifest    `json:"manifest,omitempty"`
}

type tensorJSON struct {
	Name  string     `json:"name"`
	DType ckpt.DType `json:"dtype"`
	Shape []int      `json:"shape"`
	Use   string     `json:"use,omitempty"` // the model's weight that it is
}

// openInspected opens a model folder, a safetensors file or, if that is allowed, a torch file.
func openInspected(path string, dir fs.FS, pickle bool) (*ckpt.File, error) {
	switch {
	case dir != nil:
		f, err := ckpt.OpenModelFS(dir, ".")
		if err == nil {
			return f, nil
		}
		if _, failed := fs.Stat(dir, ckpt.AdapterFile); failed == nil {
			return ckpt.OpenFS(dir, ckpt.AdapterFile)
		}
		return nil, fmt.Errorf("cli: inspect %s: %w", path, err)
	case !isTorch(path):
		return ckpt.Open(path)
	case !pickle:
		return nil, usage("add --allow-pickle if you trust where the file comes from", "%s is a pickle, which is not opened unasked", path)
	}
	return ckpt.OpenTorch(path)
}

func isTorch(path string) bool {
	return slices.Contains([]string{".bin", ".pt", ".pth"}, strings.ToLower(filepath.Ext(path)))
}

// inspectCheckpoint shows what is in a folder, or without one in the file at path.
func (a *app) inspectCheckpoint(path string, dir fs.FS, asJSON, pickle bool) error {
	f, err := openInspected(path, dir, pickle)
	if err != nil {
		var own *userError
		if errors.As(err, &own) {
			return err
		}
		return formatError(err)
	}
	defer f.Close()
	beside := dir
	if dir == nil {
		beside = os.DirFS(filepath.Dir(path))
	}
	mapping := experiment.MapTensors(experiment.ConfigOf(beside), f)
	out := checkpointJSON{File: path, Model: mapping.Model, Missing: mapping.Missing, Metadata: f.Metadata()}
	t := report.Table{Header: []string{"tensor", "type", "shape", "is the weight"}}
	for _, name := range f.Names() {
		info, _ := f.Info(name)
		use := mapping.Uses[name]
		out.Tensors = append(out.Tensors, tensorJSON{name, info.DType, info.Shape, use})
		out.Numbers += info.Size()
		switch {
		case mapping.Model == "":
			use = "?"
		case use == "":
			use = "- (not read)"
		case use == name:
			use = "of this name"
		}
		t.Rows = append(t.Rows, []string{name, string(info.DType), fmt.Sprint(info.Shape), use})
	}
	if dir != nil {
		m, err := ckpt.ReadManifestFS(dir, ".")
		if err == nil {
			out.Manifest = &m
		} else if !errors.Is(err, fs.ErrNotExist) {
			return formatError(err)
		}
	}
	if asJSON {
		return a.json(out)
	}
	t.Footer = []string{strconv.Itoa(len(out.Tensors)) + " tensors", "", strconv.Itoa(out.Numbers) + " numbers", cmp.Or(mapping.Model, "no model that is known here")}
	if err := a.printTable(t, "text"); err != nil {
		return err
	}
	if n := len(mapping.Missing); n > 0 {
		_, err = fmt.Fprintf(a.stdout, "missing: %d weights of %s, first %s\n", n, mapping.Model, strings.Join(mapping.Missing[:min(n, 5)], ", "))
	}
	return err
}
