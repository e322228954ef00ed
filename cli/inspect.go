package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"imagecot/ckpt"
	"imagecot/internal/imgio"
	"imagecot/report"
)

// maxImage bounds the size of image files that are read.
const maxImage = 64 << 20

func (a *app) inspectCommand() *cobra.Command {
	var asJSON, recipe bool
	cmd := &cobra.Command{
		Use: "inspect FILE", Short: "Show what a PNG or a checkpoint holds",
		Long: "A PNG: its size and text chunks, among them the recipe that repeats it. A safetensors file or a model folder: the\n" +
			"tensors with types and shapes, after the whole file was checked.",
		Args: exactArgs(1, "one file or folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			path := args[0]
			info, err := os.Stat(path)
			if err != nil {
				return fmt.Errorf("cli: inspect: %w", err)
			}
			if info.IsDir() || strings.HasSuffix(strings.ToLower(path), ".safetensors") {
				if recipe {
					return usage("", "--recipe is for PNG files")
				}
				return a.inspectCheckpoint(path, info.IsDir(), asJSON)
			}
			return a.inspectPNG(path, asJSON, recipe)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().BoolVar(&recipe, "recipe", false, "only the recipe inside a PNG, as JSON")
	return cmd
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
	Tensors  []tensorJSON      `json:"tensors"`
	Numbers  int               `json:"parameters"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Manifest *ckpt.Manifest    `json:"manifest,omitempty"`
}

type tensorJSON struct {
	Name  string     `json:"name"`
	DType ckpt.DType `json:"dtype"`
	Shape []int      `json:"shape"`
}

func (a *app) inspectCheckpoint(path string, folder, asJSON bool) error {
	open := ckpt.Open
	if folder {
		open = ckpt.OpenModel
	}
	f, err := open(path)
	if err != nil {
		return formatError(err)
	}
	defer f.Close()
	out := checkpointJSON{File: path, Metadata: f.Metadata()}
	t := report.Table{Header: []string{"tensor", "type", "shape"}}
	for _, name := range f.Names() {
		info, _ := f.Info(name)
		out.Tensors = append(out.Tensors, tensorJSON{name, info.DType, info.Shape})
		out.Numbers += info.Size()
		t.Rows = append(t.Rows, []string{name, string(info.DType), fmt.Sprint(info.Shape)})
	}
	if _, err := os.Stat(filepath.Join(path, ckpt.ManifestFile)); folder && err == nil {
		m, err := ckpt.ReadManifest(path)
		if err != nil {
			return formatError(err)
		}
		out.Manifest = &m
	}
	if asJSON {
		return a.json(out)
	}
	t.Footer = []string{strconv.Itoa(len(out.Tensors)) + " tensors", "", strconv.Itoa(out.Numbers) + " numbers"}
	return a.printTable(t, "text")
}
