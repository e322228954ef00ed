package llavaov

import "math"

// Unpad returns how many rows and columns of a grid of tiles (gw x gh tiles, n rows of patches a tile) show the image,
// and the first of them: w x h is the image. The authors cut int() of a float64 product; transformers rounds it to
// seven decimals first, which the HF layout follows.
func Unpad(w, h, gw, gh, n int, layout Layout) (top, left, rows, cols int) {
	cw, ch := gw*n, gh*n
	whole := func(v float64) int {
		if layout == HF {
			v = math.RoundToEven(v*1e7) / 1e7
		}
		return int(v)
	}
	rows, cols = ch, cw
	if float64(w)/float64(h) > float64(cw)/float64(ch) {
		top = (ch - whole(float64(h)*(float64(cw)/float64(w)))) / 2
		rows -= 2 * top
	} else {
		left = (cw - whole(float64(w)*(float64(ch)/float64(h)))) / 2
		cols -= 2 * left
	}
	return top, left, rows, cols
}

// Shrunk is the size to which a grid of rows x cols patches is reduced when it is more than 1.1 times too large for
// maxTiles tiles of n x n patches, and by how much (times).
func Shrunk(rows, cols, n, maxTiles int) (h, w int, times float64) {
	times = math.Sqrt(float64(rows*cols) / float64(maxTiles*n*n))
	if times <= 1.1 {
		return rows, cols, times
	}
	return int(floorDiv(float64(rows), times)), int(floorDiv(float64(cols), times)), times
}

// floorDiv is the floor of the exact quotient of two positive doubles, which floor(a/b) is not always.
func floorDiv(a, b float64) float64 { return math.Round((a - math.Mod(a, b)) / b) }

// PackRows puts one image's projected tiles together: tiles holds n*n rows of width d each, the whole image first.
// The result is the rows that the decoder reads, newline included: of a single tile (pad) its rows and a newline; of
// anyres the first tile's rows, then the grid without padding, shrunk if need be, with a newline after each of its rows.
func PackRows(tiles [][]float32, newline []float32, g Geometry, n, maxTiles int, layout Layout) []float32 {
	d := len(newline)
	if g.Tiles == [2]int{} {
		return append(append(make([]float32, 0, (n*n+1)*d), tiles[0]...), newline...)
	}
	top, left, rows, cols := Unpad(g.W, g.H, g.Tiles[0], g.Tiles[1], n, layout)
	grid := make([]float32, 0, rows*cols*d)
	for y := top; y < top+rows; y++ {
		for x := left; x < left+cols; x++ {
			tile := tiles[1+y/n*g.Tiles[0]+x/n]
			at := (y%n*n + x%n) * d
			grid = append(grid, tile[at:at+d]...)
		}
	}
	if h, w, times := Shrunk(rows, cols, n, maxTiles); times > 1.1 {
		grid = bilinear(grid, rows, cols, h, w, d)
		rows, cols = h, w
	}
	out := append(make([]float32, 0, len(tiles[0])+rows*(cols+1)*d), tiles[0]...)
	for y := range rows {
		out = append(out, grid[y*cols*d:(y+1)*cols*d]...)
		out = append(out, newline...)
	}
	return out
}

// RowCount is the number of rows that PackRows makes.
func RowCount(g Geometry, n, maxTiles int, layout Layout) int {
	if g.Tiles == [2]int{} {
		return n*n + 1
	}
	_, _, rows, cols := Unpad(g.W, g.H, g.Tiles[0], g.Tiles[1], n, layout)
	h, w, _ := Shrunk(rows, cols, n, maxTiles)
	return n*n + h*(w+1)
}

// tap is where one result of a bilinear resize lies on an axis: between source i and j, at share f from i.
type tap struct {
	i, j int
	f    float32
}

func taps(in, out int) []tap {
	all := make([]tap, out)
	for k := range all {
		at := max(0, (float32(k)+.5)*(float32(in)/float32(out))-.5)
		i := min(int(at), in-1)
		all[k] = tap{i, min(i+1, in-1), at - float32(i)}
	}
	return all
}

// bilinear resizes x [rows, cols, d] to [h, w, d] without antialiasing; corners are not aligned.
func bilinear(x []float32, rows, cols, h, w, d int) []float32 {
	out := make([]float32, 0, h*w*d)
	ty, tx := taps(rows, h), taps(cols, w)
	for _, v := range ty {
		for _, u := range tx {
			a, b := x[(v.i*cols+u.i)*d:], x[(v.i*cols+u.j)*d:]
			e, f := x[(v.j*cols+u.i)*d:], x[(v.j*cols+u.j)*d:]
			for k := range d {
				upper := a[k]*(1-u.f) + b[k]*u.f
				lower := e[k]*(1-u.f) + f[k]*u.f
				out = append(out, upper*(1-v.f)+lower*v.f)
			}
		}
	}
	return out
}
