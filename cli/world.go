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

// checkJSON counts how often the detector sees what was drawn.
type checkJSON struct {
	Kind      string  `json:"kind"`
	Scenes    int     `json:"scenes"`
	Agree     int     `json:"agree"` // multiset of shape and colour equal
	Share     float64 `json:"share"`
	BlurSigma float64 `json:"blur_sigma"`
	Noise     float64 `json:"noise"`
}

func (a *app) worldCheckCommand() *cobra.Command {
	var c checkJSON
	var seed uint64
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check", Short: "Count how often the detector finds exactly the objects that were drawn",
		Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			mix, err := mixOf(c.Kind)
			if err != nil {
				return err
			}
			if c.Scenes < 1 {
				return usage("", "--count is %d, want at least 1", c.Scenes)
			}
			rng := rand.New(rand.NewPCG(seed, 1))
			for range c.Scenes {
				s := mix.Draw(rng)
				pix := make([]float32, 3*world.Side*world.Side)
				world.RenderInto(pix, s)
				if c.BlurSigma > 0 {
					world.Blur(pix, c.BlurSigma)
				}
				if c.Noise > 0 {
					world.AddNoise(pix, c.Noise, rng)
				}
				facts, err := (world.Detector{Small: c.Kind == "crowd" || c.Kind == "tokenizer"}).Look(world.ToImage(pix))
				if err != nil {
					return err
				}
				if sameObjects(s, facts) {
					c.Agree++
				}
			}
			c.Share = float64(c.Agree) / float64(c.Scenes)
			if asJSON {
				return a.json(c)
			}
			_, err = fmt.Fprintf(a.stdout, "%d of %d scenes (%.2f %%)\n", c.Agree, c.Scenes, 100*c.Share)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Kind, "kind", "ordinary", "a kind of scene or a mix, as in render")
	f.IntVarP(&c.Scenes, "count", "c", 2000, "how many scenes")
	f.Uint64Var(&seed, "seed", 1, "the same seed draws the same scenes")
	f.Float64Var(&c.BlurSigma, "blur", 0, "sigma of a Gaussian blur, in pixels")
	f.Float64Var(&c.Noise, "noise", 0, "standard deviation of pixel noise, in the range -1..1")
	f.BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

// sameObjects compares shapes and colours as multisets.
func sameObjects(s world.Scene, facts world.Facts) bool {
	count := map[[2]string]int{}
	for _, o := range s.Objects {
		count[[2]string{o.Shape.String(), o.Colour.String()}]++
	}
	for _, o := range facts.Objects {
		count[[2]string{o.Shape.String(), o.Colour.String()}]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
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
