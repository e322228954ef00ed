package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"imagecot/geneval"
	"imagecot/internal/atomicfile"
	"imagecot/world"
)

func (a *app) worldCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "world", Short: "Look at the tiny world: scenes, captions, detector", Args: exactArgs(0, "a subcommand"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.worldRenderCommand(), a.worldCheckCommand(), a.worldPromptsCommand())
	return cmd
}

// sceneRow is one line of scenes.jsonl.
type sceneRow struct {
	File       string   `json:"file"`
	Kind       string   `json:"kind"`
	Background string   `json:"background"`
	Objects    []string `json:"objects"`
	Fragments  int      `json:"fragments"`
	Caption    string   `json:"caption"`
}

// mixes are the names that --kind takes beside those of the kinds of scenes.
var mixes = map[string]world.Mix{"ordinary": world.Ordinary, "tokenizer": world.TokenizerMix, "judge": world.JudgeMix}

// mixOf returns the mix of that name.
func mixOf(name string) (world.Mix, error) {
	if m, ok := mixes[name]; ok {
		return m, nil
	}
	kind, err := world.ParseKind(name)
	if err != nil {
		return world.Mix{}, usage("mixes are ordinary, tokenizer, judge", "%w", err)
	}
	return world.Mix{}.Weight(kind, 1), nil
}

func (a *app) worldRenderCommand() *cobra.Command {
	var kind, out string
	var count, columns, scale int
	var seed uint64
	cmd := &cobra.Command{
		Use: "render", Short: "Draw scenes: one PNG each, a contact sheet, and what is in them",
		Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			mix, err := mixOf(kind)
			if err != nil {
				return err
			}
			if count < 1 || count > 100_000 {
				return usage("", "--count is %d, want 1 to 100000", count)
			}
			if err := writable(out); err != nil {
				return err
			}
			rng := rand.New(rand.NewPCG(seed, 0))
			var rows bytes.Buffer
			var images []image.Image
			var captions []string
			for i := range count {
				s := mix.Draw(rng)
				row := sceneRow{File: fmt.Sprintf("%05d.png", i), Kind: kind, Background: s.Background.String(), Fragments: len(s.Fragments), Caption: world.Caption(rng, s)}
				for _, o := range s.Objects {
					row.Objects = append(row.Objects, o.String())
				}
				img := world.Render(s)
				if err := writePNG(filepath.Join(out, row.File), img); err != nil {
					return err
				}
				if err := json.NewEncoder(&rows).Encode(row); err != nil {
					return fmt.Errorf("cli: world: %w", err)
				}
				if len(images) < 200 {
					images, captions = append(images, img), append(captions, row.Caption)
				}
			}
			if err := writeFile(filepath.Join(out, "scenes.jsonl"), rows.Bytes()); err != nil {
				return err
			}
			sheet := filepath.Join(out, "sheet.png")
			if err := writePNG(sheet, world.Sheet(images, captions, world.SheetOptions{Columns: columns, Scale: scale})); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, sheet)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&kind, "kind", "ordinary", "what to draw: a kind of scene (single, pair, count, clutter, crowd) or a mix (ordinary, tokenizer, judge)")
	f.IntVarP(&count, "count", "c", 32, "how many scenes (the sheet shows the first 200)")
	f.Uint64Var(&seed, "seed", 1, "the same seed draws the same scenes")
	f.StringVarP(&out, "out", "o", "out/world", "folder to write to")
	f.IntVar(&columns, "columns", 8, "columns of the sheet")
	f.IntVar(&scale, "scale", 2, "enlargement on the sheet")
	return cmd
}

func (a *app) worldPromptsCommand() *cobra.Command {
	var task string
	cmd := &cobra.Command{
		Use: "prompts", Short: "Print the held-out test prompts, one metadata object a line",
		Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			n := 0
			for _, m := range world.TestPrompts() {
				if task != "" && m.Tag != task {
					continue
				}
				n++
				if _, err := fmt.Fprintln(a.stdout, m.Dump()); err != nil {
					return err
				}
			}
			if n == 0 {
				return usage("tasks are "+strings.Join(geneval.Tasks(), ", "), "unknown task %q", task)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&task, "task", "", "only this task")
	return cmd
}

func writePNG(path string, img image.Image) error {
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return fmt.Errorf("cli: %w", err)
	}
	return writeFile(path, b.Bytes())
}

func writeFile(path string, data []byte) error {
	if err := atomicfile.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("cli: write %s: %w", path, err)
	}
	return nil
}
