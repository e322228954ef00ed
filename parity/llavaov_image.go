package parity

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"os"
	"strings"

	"imagecot/internal/imgio"
	"imagecot/models/llavaov"

	"github.com/gomlx/compute"
)

// patchPixels is the side of a patch in the cases of image preparation and packing, as in the published tower.
const patchPixels = 14

// readImage decodes a picture of the case's folder.
func readImage(c *Case, name string) (image.Image, error) {
	f, err := os.Open(c.Path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return imgio.Decode(f, imgio.Limits{})
}

// gridConfig is the published way of cutting images, at a tile size: pinpoints from 1 x 1 to 6 x 6 tiles.
func gridConfig(size int, layout llavaov.Layout) llavaov.Config {
	c := llavaov.Config{Layout: layout, Vision: llavaov.VisionConfig{ImageSize: size, PatchSize: patchPixels}}
	for w := 1; w <= 6; w++ {
		for h := 1; h <= 6; h++ {
			c.Pinpoints = append(c.Pinpoints, [2]int{w * size, h * size})
		}
	}
	return c
}

// channelsFirst returns pixels in [-1, 1] as [tiles, 3, rows, columns]: rows r0, r0+dr, .., columns c0, c0+dc, ..
func channelsFirst(tiles []*image.RGBA, r0, dr, c0, dc int) []float32 {
	var out []float32
	for _, t := range tiles {
		size := t.Bounds().Size()
		pixels := llavaov.AppendPixels(nil, t)
		for k := range 3 {
			for y := r0; y < size.Y; y += dr {
				for x := c0; x < size.X; x += dc {
					out = append(out, pixels[(y*size.X+x)*3+k])
				}
			}
		}
	}
	return out
}

func llavaImage(_ context.Context, _ compute.Backend, c *Case) error {
	var params struct {
		Aspect string `json:"image_aspect_ratio"`
		Size   int    `json:"size"`
		Images map[string]struct {
			Tiles  int    `json:"tiles"`
			SHA256 string `json:"sha256_u8"`
		} `json:"images"`
	}
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	cfg := gridConfig(params.Size, llavaov.Authors)
	for _, name := range sortedKeys(params.Images) {
		img, err := readImage(c, name+".png")
		if err != nil {
			return err
		}
		tiles, _, err := cfg.Tiles(img, params.Aspect)
		if err != nil {
			return err
		}
		c.CompareExact("tiles", name, len(tiles), params.Images[name].Tiles)
		levels, means := tileLevels(tiles)
		sum := sha256.Sum256(levels)
		c.CompareExact("sha256_u8", name, hex.EncodeToString(sum[:]), params.Images[name].SHA256)
		if c.Has("out." + name + ".u8") {
			c.Compare("out."+name+".u8", levels)
		}
		if c.Has("out." + name + ".sub") {
			c.Compare("out."+name+".sub", channelsFirst(tiles, 3, 17, 5, 13))
		}
		if c.Has("out." + name + ".mean") {
			c.Compare("out."+name+".mean", means)
		}
	}
	return llavaGeometry(c, params.Size)
}

// tileLevels returns the bytes [tiles, rows, columns, 3] and the means of the values in [-1, 1], [tiles, 3].
func tileLevels(tiles []*image.RGBA) (levels []uint8, means []float64) {
	for _, t := range tiles {
		size := t.Bounds().Size()
		for y := range size.Y {
			for x := range size.X {
				at := t.PixOffset(x, y)
				levels = append(levels, t.Pix[at:at+3]...)
			}
		}
		var sum [3]float64
		for i, v := range llavaov.AppendPixels(nil, t) {
			sum[i%3] += float64(v)
		}
		for _, s := range sum {
			means = append(means, s/float64(size.X*size.Y))
		}
	}
	return levels, means
}

// gridCase is a line of cases.jsonl.
type gridCase struct {
	W, H                        int
	Best, Resized, Paste, Tiles [2]int
	Authors, HF                 gridRows
}

// gridRows is what becomes of a grid's rows; sizes are columns, rows.
type gridRows struct {
	Unpadded, Final [2]int
	Times           float64
	Tokens          int
}

// llavaGeometry compares the geometry of many image sizes, where the case has a list.
func llavaGeometry(c *Case, size int) error {
	f, err := os.Open(c.Path("cases.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	cfg := gridConfig(size, llavaov.Authors)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		var want gridCase
		if err := json.Unmarshal(lines.Bytes(), &want); err != nil {
			return fmt.Errorf("cases.jsonl line %d: %w", n, err)
		}
		label := fmt.Sprintf("%d x %d", want.W, want.H)
		g := llavaov.AnyRes(want.W, want.H, size, cfg.Pinpoints)
		c.CompareExact("geometry", label, [4][2]int{g.Best, g.Resized, g.Paste, g.Tiles}, [4][2]int{want.Best, want.Resized, want.Paste, want.Tiles})
		got := want
		unit := size / patchPixels
		for layout, part := range map[llavaov.Layout]*gridRows{llavaov.Authors: &got.Authors, llavaov.HF: &got.HF} {
			_, _, rows, cols := llavaov.Unpad(want.W, want.H, g.Tiles[0], g.Tiles[1], unit, layout)
			h, w, times := llavaov.Shrunk(rows, cols, unit, 9)
			part.Unpadded, part.Final, part.Times = [2]int{cols, rows}, [2]int{w, h}, times
			part.Tokens = llavaov.RowCount(g, unit, 9, layout)
		}
		c.CompareExact("rows", label, got, want)
	}
	return lines.Err()
}

func llavaovPack(_ context.Context, _ compute.Backend, c *Case) error {
	var params struct {
		Size     int `json:"size"`
		Grid     int `json:"grid"`
		MaxTiles int `json:"max_tiles"`
		Images   map[string]struct {
			W, H    int
			Mode    string
			Authors int `json:"tokens_authors"`
			HF      int `json:"tokens_hf"`
		} `json:"images"`
	}
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	newline, err := c.Float32("in.newline")
	if err != nil {
		return err
	}
	pinpoints := gridConfig(params.Size, llavaov.Authors).Pinpoints
	for _, name := range sortedKeys(params.Images) {
		want := params.Images[name]
		flat, err := c.Float32("in." + name + ".features")
		if err != nil {
			return err
		}
		g := llavaov.Geometry{W: want.W, H: want.H}
		if want.Mode != "pad" {
			g = llavaov.AnyRes(want.W, want.H, params.Size, pinpoints)
		}
		n := params.Grid * params.Grid * len(newline)
		var tiles [][]float32
		for at := 0; at+n <= len(flat); at += n {
			tiles = append(tiles, flat[at:at+n])
		}
		if need := max(1, 1+g.Tiles[0]*g.Tiles[1]); g.Tiles != [2]int{} && len(tiles) != need {
			return fmt.Errorf("%s: %d tiles, want %d", name, len(tiles), need)
		}
		for layout, text := range map[llavaov.Layout]string{llavaov.Authors: "authors", llavaov.HF: "hf"} {
			rows := llavaov.PackRows(tiles, newline, g, params.Grid, params.MaxTiles, layout)
			tokens := want.Authors
			if layout == llavaov.HF {
				tokens = want.HF
			}
			c.CompareExact("tokens", name+" "+text, len(rows)/len(newline), tokens)
			if out := "out." + name + "." + text; c.Has(out) {
				c.Compare(out, rows)
			}
		}
	}
	return nil
}
