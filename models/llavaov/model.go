package llavaov

import (
	"context"
	"fmt"
	"image"
	"slices"

	"imagecot/internal/graphx"
	"imagecot/models/nn"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// Model runs the network tile by tile: every program sees a fixed number of rows, and lengths are rounded up, so that
// few shapes are compiled and the bits of a row do not depend on the others.
type Model struct {
	cfg      Config
	batch    int
	headRows int
	newline  []float32
	tower    *graphx.Program // tiles [B, S, S, 3] -> rows [B, N, D]
	begin    *graphx.Program // ids [n], rows [B, R, D] -> keys, values
	extend   *graphx.Program // ids [B, T], keys, values, lengths -> keys, values, logits [B, V]
}

// State is what the decoder remembers of a conversation: keys and values of its latest part and a link to the earlier
// ones. It does not change once made.
type State struct {
	parent *State
	past   int       // positions before this part
	n      int       // positions of this part
	k, v   []float32 // [layers, key-value heads, n, head size]
	// Logits at the last position, [head rows]; nil for a state that ends in image rows.
	Logits []float32
}

// Len is the number of positions so far.
func (s *State) Len() int {
	if s == nil {
		return 0
	}
	return s.past + s.n
}

// NewModel prepares the programs over weights as LoadWeights returns them. batch is the number of rows that run
// together; headRows > 0 computes that many logits instead of all.
func NewModel(be compute.Backend, c Config, w *graphx.Weights, batch, headRows int) (*Model, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if batch < 1 || headRows < 0 || headRows > c.Text.VocabSize {
		return nil, fmt.Errorf("llavaov: batch is %d, head rows %d of %d", batch, headRows, c.Text.VocabSize)
	}
	m := &Model{cfg: c, batch: batch, headRows: headRows}
	newline := w.Get(newlineName)
	if newline == nil {
		return nil, fmt.Errorf("llavaov: weight %q is missing", newlineName)
	}
	m.newline = tensors.MustCopyFlatData[float32](newline)
	policy := graphx.PolicyFor(be)
	var err error
	if m.tower, err = graphx.NewProgram(be, "llavaov tower", part(w, towerPrefix, projectorPrefix), policy, m.towerFunc); err != nil {
		return nil, err
	}
	decoder := part(w, "model.layers.", "model.norm.", embedName, headName)
	if m.begin, err = graphx.NewProgram(be, "llavaov image rows", decoder, policy, m.beginFunc); err != nil {
		return nil, err
	}
	m.extend, err = graphx.NewProgram(be, "llavaov turn", decoder, policy, m.extendFunc)
	return m, err
}

// part is the weights whose names begin with one of the prefixes.
func part(w *graphx.Weights, prefixes ...string) *graphx.Weights {
	out := map[string]*tensors.Tensor{}
	for _, name := range w.Names() {
		for _, p := range prefixes {
			if len(name) >= len(p) && name[:len(p)] == p {
				out[name] = w.Get(name)
			}
		}
	}
	return graphx.NewWeights(out)
}

func (m *Model) towerFunc(s graphx.Scope, in []*Node) []*Node {
	h := Tower(s.In("model", "vision_tower", "vision_tower", "vision_model"), m.cfg.Vision, m.cfg.TowerLayers, in[0], nil)
	return []*Node{Project(s.In("model", "mm_projector"), h)}
}

// beginFunc stops at the last layer's keys and values: nobody looks at what the image rows would say.
func (m *Model) beginFunc(s graphx.Scope, in []*Node) []*Node {
	d := in[1].Shape().Dimensions
	words := Embed(s.In("model"), in[0])
	n := words.Shape().Dimensions[0]
	x := Concatenate([]*Node{BroadcastToDims(Reshape(words, 1, n, d[2]), d[0], n, d[2]), in[1]}, 1)
	c := forward{t: m.cfg.Text, mask: causal(x.Graph(), n+d[1])}
	cos, sin := nn.RotaryConstants(x.Graph(), 0, n+d[1], m.cfg.Text.HeadSize(), m.cfg.Text.RopeTheta)
	c.cos, c.sin = InsertAxes(cos, 0, 0), InsertAxes(sin, 0, 0)
	_, own := c.run(s.In("model"), x, false)
	return own
}

// extendFunc takes ids [B, T], keys and values of the past [L, B, K, P, d], and int32 [B] each: the past's length and
// the last position in use.
func (m *Model) extendFunc(s graphx.Scope, in []*Node) []*Node {
	ids, k, v, length, last := in[0], in[1], in[2], in[3], in[4]
	x := Embed(s.In("model"), ids)
	c := forward{t: m.cfg.Text, mask: pastMask(ids, length, k.Shape().Dimensions[3]), last: last}
	d := ids.Shape().Dimensions
	c.positions(Add(Iota(x.Graph(), ids.Shape(), 1), BroadcastToDims(InsertAxes(length, -1), d...)))
	for i := range m.cfg.Text.NumHiddenLayers {
		layer := func(x *Node) *Node { return Squeeze(Slice(x, AxisRange(i, i+1)), 0) }
		c.past = append(c.past, keysValues{layer(k), layer(v)})
	}
	h, own := c.run(s.In("model"), x, true)
	return append(own, Logits(s, Squeeze(h, 1), m.headRows))
}

// Config of the model.
func (m *Model) Config() Config { return m.cfg }

// ImageRows returns the rows that the decoder reads for each image, newlines included, row-major [rows, D]. A tile that
// comes twice in an image runs once.
func (m *Model) ImageRows(ctx context.Context, images []image.Image, aspect string) ([][]float32, error) {
	most, _, err := maxTiles(aspect)
	if err != nil {
		return nil, err
	}
	var tiles []*image.RGBA
	place := map[*image.RGBA]int{}
	of := make([][]int, len(images)) // indices into tiles
	geometry := make([]Geometry, len(images))
	for i, img := range images {
		list, g, err := m.cfg.Tiles(img, aspect)
		if err != nil {
			return nil, err
		}
		geometry[i] = g
		for _, t := range list {
			if _, ok := place[t]; !ok {
				place[t] = len(tiles)
				tiles = append(tiles, t)
			}
			of[i] = append(of[i], place[t])
		}
	}
	projected, err := m.project(ctx, tiles)
	if err != nil {
		return nil, err
	}
	rows := make([][]float32, len(images))
	for i := range images {
		var mine [][]float32
		for _, t := range of[i] {
			mine = append(mine, projected[t])
		}
		rows[i] = PackRows(mine, m.newline, geometry[i], m.cfg.Vision.Grid(), most, m.cfg.Layout)
	}
	return rows, nil
}

// project runs tower and projector: [N, D] for each tile.
func (m *Model) project(ctx context.Context, tiles []*image.RGBA) ([][]float32, error) {
	size, n := m.cfg.Vision.ImageSize, m.cfg.Vision.Grid()*m.cfg.Vision.Grid()*m.cfg.Text.HiddenSize
	out := make([][]float32, 0, len(tiles))
	for from := 0; from < len(tiles); from += m.batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		pixels := make([]float32, 0, m.batch*size*size*3)
		live := tiles[from:min(from+m.batch, len(tiles))]
		for _, t := range live {
			pixels = AppendPixels(pixels, t)
		}
		pixels = pixels[:cap(pixels)] // unused rows are grey
		result, err := m.tower.Run(graphx.Tensor(pixels, m.batch, size, size, 3))
		if err != nil {
			return nil, err
		}
		flat := graphx.Floats(result[0])
		for i := range live {
			out = append(out, flat[i*n:(i+1)*n])
		}
	}
	return out, nil
}

// bucket rounds a length up, so that few shapes are compiled.
func bucket(n int) int {
	const small, large = 16, 64
	if n <= 2*large {
		return (n + small - 1) / small * small
	}
	return (n + large - 1) / large * large
}

// Begin makes the states after the ids before the image and each image's rows.
func (m *Model) Begin(ctx context.Context, before []int32, images [][]float32) ([]*State, error) {
	d := m.cfg.Text.HiddenSize
	single := m.cfg.Vision.Grid()*m.cfg.Vision.Grid() + 1
	lengths := make([]int, len(images))
	for i, rows := range images {
		if lengths[i] = bucket(len(rows) / d); len(rows)/d == single {
			lengths[i] = single // pad mode has one length
		}
	}
	states := make([]*State, len(images))
	err := m.inTiles(ctx, lengths, func(live []int, length int) error {
		flat := make([]float32, m.batch*length*d)
		for row, i := range live {
			copy(flat[row*length*d:], images[i])
		}
		out, err := m.begin.Run(graphx.Tensor(before, len(before)), graphx.Tensor(flat, m.batch, length, d))
		if err != nil {
			return err
		}
		k, v := graphx.Floats(out[0]), graphx.Floats(out[1])
		for row, i := range live {
			n := len(before) + len(images[i])/d
			states[i] = &State{n: n, k: m.row(k, row, m.batch, len(before)+length, n), v: m.row(v, row, m.batch, len(before)+length, n)}
		}
		return nil
	})
	return states, err
}

// inTiles calls run with the indices of up to batch items whose key is equal.
func (m *Model) inTiles(ctx context.Context, keys []int, run func(live []int, key int) error) error {
	groups, order := map[int][]int{}, []int{}
	for i, key := range keys {
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], i)
	}
	for _, key := range order {
		for all := groups[key]; len(all) > 0; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(m.batch, len(all))
			if err := run(all[:n], key); err != nil {
				return err
			}
			all = all[n:]
		}
	}
	return nil
}

// row cuts one row's first n of length positions out of keys or values [L, B, K, length, d]: [L, K, n, d].
func (m *Model) row(flat []float32, row, batch, length, n int) []float32 {
	kv, size := m.cfg.Text.NumKeyValueHeads, m.cfg.Text.HeadSize()
	out := make([]float32, 0, m.cfg.Text.NumHiddenLayers*kv*n*size)
	for l := range m.cfg.Text.NumHiddenLayers {
		for h := range kv {
			at := ((l*batch+row)*kv + h) * length * size
			out = append(out, flat[at:at+n*size]...)
		}
	}
	return out
}

// lay copies a state's keys and values, earlier parts included, into row of k and v [L, B, K, length, d].
func (m *Model) lay(s *State, k, v []float32, row, batch, length int) {
	kv, size := m.cfg.Text.NumKeyValueHeads, m.cfg.Text.HeadSize()
	for ; s != nil; s = s.parent {
		for l := range m.cfg.Text.NumHiddenLayers {
			for h := range kv {
				to := (((l*batch+row)*kv+h)*length + s.past) * size
				from := (l*kv + h) * s.n * size
				copy(k[to:to+s.n*size], s.k[from:])
				copy(v[to:to+s.n*size], s.v[from:])
			}
		}
	}
}

// Extend makes the states after further ids, one list for each parent. Each pays for its own ids only.
func (m *Model) Extend(ctx context.Context, parents []*State, ids [][]int32) ([]*State, error) {
	const shift = 1 << 20
	keys := make([]int, len(parents))
	for i, p := range parents {
		total := p.Len() + len(ids[i])
		if len(ids[i]) == 0 || total > m.cfg.Text.MaxPositionEmbeddings {
			return nil, fmt.Errorf("llavaov: conversation of %d + %d positions, at most %d", p.Len(), len(ids[i]), m.cfg.Text.MaxPositionEmbeddings)
		}
		for _, id := range ids[i] {
			if id < 0 || int(id) >= m.cfg.Text.VocabSize {
				return nil, fmt.Errorf("llavaov: id %d, the vocabulary has %d", id, m.cfg.Text.VocabSize)
			}
		}
		keys[i] = bucket(p.Len())*shift + bucket(len(ids[i]))
	}
	states := make([]*State, len(parents))
	err := m.inTiles(ctx, keys, func(live []int, key int) error {
		tile := make([]*State, len(live))
		text := make([][]int32, len(live))
		for row, i := range live {
			tile[row], text[row] = parents[i], ids[i]
		}
		made, err := m.extendTile(tile, text, m.batch, key/shift, key%shift)
		for row, i := range live {
			if err == nil {
				states[i] = made[row]
			}
		}
		return err
	})
	return states, err
}

// extendTile runs one tile of batch rows at past length p and own length t.
func (m *Model) extendTile(parents []*State, ids [][]int32, batch, p, t int) ([]*State, error) {
	layers, kv, size := m.cfg.Text.NumHiddenLayers, m.cfg.Text.NumKeyValueHeads, m.cfg.Text.HeadSize()
	k, v := make([]float32, layers*batch*kv*p*size), make([]float32, layers*batch*kv*p*size)
	text, lengths, last := make([]int32, batch*t), make([]int32, batch), make([]int32, batch)
	for row, parent := range parents {
		m.lay(parent, k, v, row, batch, p)
		copy(text[row*t:], ids[row])
		lengths[row], last[row] = int32(parent.Len()), int32(len(ids[row])-1)
	}
	out, err := m.extend.Run(graphx.Tensor(text, batch, t), graphx.Tensor(k, layers, batch, kv, p, size),
		graphx.Tensor(v, layers, batch, kv, p, size), graphx.Tensor(lengths, batch), graphx.Tensor(last, batch))
	if err != nil {
		return nil, err
	}
	k, v = graphx.Floats(out[0]), graphx.Floats(out[1])
	logits := graphx.Floats(out[2])
	columns := len(logits) / batch
	states := make([]*State, len(parents))
	for row, parent := range parents {
		n := len(ids[row])
		states[row] = &State{
			parent: parent, past: parent.Len(), n: n, k: m.row(k, row, batch, t, n), v: m.row(v, row, batch, t, n),
			Logits: append([]float32(nil), logits[row*columns:(row+1)*columns]...),
		}
	}
	return states, nil
}

// Greedy continues a state with the likeliest token, again and again, until a stop token or most tokens. It returns the
// tokens without the stop and the logit of each.
func (m *Model) Greedy(ctx context.Context, s *State, most int, stops []int32) (ids []int32, logits []float32, err error) {
	for len(ids) < most {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		best := argmax(s.Logits)
		if slices.Contains(stops, int32(best)) {
			break
		}
		ids, logits = append(ids, int32(best)), append(logits, s.Logits[best])
		if len(ids) == most || s.Len() >= m.cfg.Text.MaxPositionEmbeddings {
			break
		}
		next, err := m.extendTile([]*State{s}, [][]int32{{int32(best)}}, 1, bucket(s.Len()), 1)
		if err != nil {
			return nil, nil, err
		}
		s = next[0]
	}
	return ids, logits, nil
}

func argmax(v []float32) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}
