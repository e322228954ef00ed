package llavaov

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"image"
	"io/fs"
	"math"
	"os"
	"path"
	"strings"
	"sync"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/internal/graphx"
	"imagecot/internal/imgio"

	"github.com/gomlx/compute"
)

// Options of a Judge; the zero value is the paper's way of asking, read from raw logits.
type Options struct {
	// Aspect is how the judge sees images, "pad" or "anyres_max_N"; empty means "pad". The paper trains with
	// anyres_max_9 and asks with pad (Deviation D12: ours are trained as they are asked).
	Aspect string
	// Batch is the number of questions that run together, 0 means 4, or 1 of a large model. Smaller batches are filled up.
	Batch int
	// HeadRows is the number of head rows in the softmax; 0 means all rows of the file.
	HeadRows int
	// Official counts the released selector's spellings alone, "yes" and "no", and as many head rows as the tokenizer
	// has tokens.
	Official bool
	// CacheImages is the number of images whose states are kept for later questions; 0 means 64.
	CacheImages int
	// DType is how OpenFS keeps matrices: "f32", "bf16" or "auto" (ckpt.File.Kept); empty means auto.
	DType string
	// MaxNewTokens bounds a reason; 0 means 64.
	MaxNewTokens int
}

// Judge is a local LLaVA-OneVision. It implements cot.Judge and cot.Explainer, and is safe for concurrent use; calls
// run one after the other.
type Judge struct {
	model   *Model
	chat    *Chat
	o       Options
	yes, no []int32

	mu    sync.Mutex
	cache cache
}

var (
	_ cot.Judge     = (*Judge)(nil)
	_ cot.Explainer = (*Judge)(nil)
)

// NewJudge makes a judge of weights as LoadWeights returns them and the checkpoint's tokenizer.
func NewJudge(be compute.Backend, c Config, w *graphx.Weights, tok *bpe.Tokenizer, o Options) (*Judge, error) {
	if o.Aspect == "" {
		o.Aspect = "pad"
	}
	if o.Batch == 0 {
		o.Batch = 4
		if w.Large() {
			o.Batch = 1
		}
	}
	if o.CacheImages == 0 {
		o.CacheImages = 64
	}
	if o.MaxNewTokens == 0 {
		o.MaxNewTokens = 64
	}
	if _, _, err := maxTiles(o.Aspect); err != nil {
		return nil, err
	}
	if tok.VocabSize() > c.Text.VocabSize {
		return nil, fmt.Errorf("llavaov: the tokenizer has %d tokens, the model %d (does the tokenizer belong to this checkpoint?)", tok.VocabSize(), c.Text.VocabSize)
	}
	if o.Official && o.HeadRows == 0 {
		o.HeadRows = tok.VocabSize()
	}
	chat, err := NewChat(tok)
	if err != nil {
		return nil, err
	}
	j := &Judge{chat: chat, o: o, cache: cache{most: o.CacheImages, entries: map[imageKey]*seen{}}}
	if j.yes, j.no, err = chat.Verdicts(o.Official); err != nil {
		return nil, err
	}
	for _, id := range append(append([]int32{}, j.yes...), j.no...) {
		if o.HeadRows > 0 && int(id) >= o.HeadRows {
			return nil, fmt.Errorf("llavaov: %d head rows leave out the answer token %d", o.HeadRows, id)
		}
	}
	j.model, err = NewModel(be, c, w, o.Batch, o.HeadRows)
	return j, err
}

// Open makes a judge of a model folder: config.json, model.safetensors (or its shards) and tokenizer.json.
func Open(be compute.Backend, dir string, o Options) (*Judge, error) {
	return OpenFS(be, os.DirFS(dir), ".", nil, o)
}

// OpenFS is Open for a folder of a file system, for example an embedded one. tok replaces the folder's tokenizer where
// it is not nil.
func OpenFS(be compute.Backend, fsys fs.FS, dir string, tok *bpe.Tokenizer, o Options) (*Judge, error) {
	text, err := fs.ReadFile(fsys, path.Join(dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("llavaov: %w", err)
	}
	c, err := LoadConfig(text)
	if err != nil {
		return nil, err
	}
	if tok == nil {
		sub, err := fs.Sub(fsys, dir)
		if err != nil {
			return nil, fmt.Errorf("llavaov: %w", err)
		}
		if tok, err = bpe.OpenFS(sub); err != nil {
			return nil, fmt.Errorf("llavaov: %w", err)
		}
	}
	f, err := ckpt.OpenModelFS(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("llavaov: %w", err)
	}
	defer f.Close()
	place := ckpt.Place{Engine: be}
	if place.Float, err = f.Kept(o.DType); err != nil {
		return nil, fmt.Errorf("llavaov: %w", err)
	}
	w, err := LoadWeightsFor(c, f, place)
	if err != nil {
		return nil, err
	}
	return NewJudge(be, c, w, tok, o)
}

// Model that the judge asks.
func (j *Judge) Model() *Model { return j.model }

// Ask answers questions, in the order asked. Questions about one image share its keys and values, in this call and in
// later ones; a question that was asked before is not run again; earlier turns are run once.
func (j *Judge) Ask(ctx context.Context, qs []cot.Question) ([]cot.Verdict, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.cache.trim()
	answers, err := j.ask(ctx, qs)
	if err != nil {
		return nil, err
	}
	verdicts := make([]cot.Verdict, len(qs))
	for i, a := range answers {
		verdicts[i] = a.verdict
		if !a.verdict.Valid() {
			return nil, fmt.Errorf("llavaov: question %d: the logits are not numbers", i)
		}
	}
	return verdicts, nil
}

// Explain asks a question and writes down the likeliest answer: at most MaxNewTokens tokens, special ones left out.
func (j *Judge) Explain(ctx context.Context, q cot.Question) (string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.cache.trim()
	answers, err := j.ask(ctx, []cot.Question{q})
	if err != nil {
		return "", err
	}
	a := answers[0]
	first := int32(a.top)
	if a.stops(j.chat.stops) {
		return "", nil
	}
	ids := []int32{first}
	if j.o.MaxNewTokens > 1 {
		next, err := j.model.Extend(ctx, []*State{a.state}, [][]int32{ids})
		if err != nil {
			return "", err
		}
		rest, _, err := j.model.Greedy(ctx, next[0], j.o.MaxNewTokens-1, j.chat.stops)
		if err != nil {
			return "", err
		}
		ids = append(ids, rest...)
	}
	return strings.TrimSpace(j.chat.tok.Decode(ids, true)), nil
}

func (j *Judge) ask(ctx context.Context, qs []cot.Question) ([]*answer, error) {
	turns, images, keys := make([][][]int32, len(qs)), make([]*image.RGBA, len(qs)), make([]imageKey, len(qs))
	for i, q := range qs {
		var err error
		if turns[i], err = j.chat.Turns(q.After, q.Text); err != nil {
			return nil, fmt.Errorf("%w (question %d)", err, i)
		}
		if q.Image == nil {
			return nil, fmt.Errorf("llavaov: question %d has no image", i)
		}
		images[i] = imgio.RGB(q.Image)
		keys[i] = keyOf(images[i])
	}
	if err := j.look(ctx, images, keys); err != nil {
		return nil, err
	}
	at := make([]*answer, len(qs))
	for i := range qs {
		at[i] = j.cache.use(keys[i])
	}
	for depth := 0; ; depth++ {
		var open []int // questions that have a turn of this depth
		for i := range qs {
			if depth < len(turns[i]) {
				open = append(open, i)
			}
		}
		if len(open) == 0 {
			return at, nil
		}
		if err := j.turn(ctx, open, at, turns, depth); err != nil {
			return nil, err
		}
	}
}

// look makes the states of the images that are not in the cache.
func (j *Judge) look(ctx context.Context, images []*image.RGBA, keys []imageKey) error {
	var fresh []image.Image
	var freshKeys []imageKey
	known := map[imageKey]bool{}
	for i, key := range keys {
		if j.cache.entries[key] == nil && !known[key] {
			known[key] = true
			fresh, freshKeys = append(fresh, images[i]), append(freshKeys, key)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	rows, err := j.model.ImageRows(ctx, fresh, j.o.Aspect)
	if err != nil {
		return err
	}
	states, err := j.model.Begin(ctx, j.chat.before, rows)
	if err != nil {
		return err
	}
	for i, key := range freshKeys {
		j.cache.entries[key] = &seen{root: &answer{state: states[i]}}
	}
	return nil
}

// turn moves the open questions one turn on; turns that the cache knows are not run.
func (j *Judge) turn(ctx context.Context, open []int, at []*answer, turns [][][]int32, depth int) error {
	type job struct {
		parent *answer
		key    string
	}
	var jobs []job
	var parents []*State
	var ids [][]int32
	waiting := map[job]bool{}
	for _, i := range open {
		w := job{at[i], idsKey(turns[i][depth])}
		if w.parent.next[w.key] == nil && !waiting[w] {
			waiting[w] = true
			jobs, parents, ids = append(jobs, w), append(parents, w.parent.state), append(ids, turns[i][depth])
		}
	}
	states, err := j.model.Extend(ctx, parents, ids)
	if err != nil {
		return err
	}
	for n, w := range jobs {
		if w.parent.next == nil {
			w.parent.next = map[string]*answer{}
		}
		w.parent.next[w.key] = j.read(states[n])
	}
	for _, i := range open {
		at[i] = at[i].next[idsKey(turns[i][depth])]
	}
	return nil
}

// read takes the verdict out of a state and drops its logits, which are as many as the vocabulary.
func (j *Judge) read(s *State) *answer {
	a := &answer{state: s, top: argmax(s.Logits), verdict: cot.Verdict{LogPYes: LogP(s.Logits, j.yes), LogPNo: LogP(s.Logits, j.no)}}
	s.Logits = nil
	return a
}

// LogP is the log of the softmax of logits, summed over ids, computed in float64.
func LogP(logits []float32, ids []int32) float64 {
	return logSumExp(len(ids), func(i int) float64 { return float64(logits[ids[i]]) }) -
		logSumExp(len(logits), func(i int) float64 { return float64(logits[i]) })
}

func logSumExp(n int, at func(i int) float64) float64 {
	top := math.Inf(-1)
	for i := range n {
		top = math.Max(top, at(i))
	}
	sum := 0.
	for i := range n {
		sum += math.Exp(at(i) - top)
	}
	return top + math.Log(sum)
}

// answer is a node in the tree of conversations about one image: the state after the header of an answer.
type answer struct {
	state   *State
	verdict cot.Verdict
	top     int // the likeliest first token
	next    map[string]*answer
}

func (a *answer) stops(ids []int32) bool {
	for _, id := range ids {
		if int(id) == a.top {
			return true
		}
	}
	return false
}

func idsKey(ids []int32) string {
	b := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return string(b)
}

type imageKey [sha256.Size]byte

func keyOf(img *image.RGBA) imageKey {
	h := sha256.New()
	size := img.Bounds().Size()
	fmt.Fprintf(h, "%d %d\n", size.X, size.Y)
	for y := range size.Y {
		h.Write(img.Pix[y*img.Stride : y*img.Stride+4*size.X])
	}
	return imageKey(h.Sum(nil))
}

// seen is an image in the cache.
type seen struct {
	root *answer
	used uint64
}

// cache keeps the images that were asked about last.
type cache struct {
	most    int
	clock   uint64
	entries map[imageKey]*seen
}

func (c *cache) use(key imageKey) *answer {
	c.clock++
	e := c.entries[key]
	e.used = c.clock
	return e.root
}

// trim forgets the images that were not asked about for longest.
func (c *cache) trim() {
	for len(c.entries) > c.most {
		var oldest imageKey
		first := uint64(math.MaxUint64)
		for key, e := range c.entries {
			if e.used < first {
				oldest, first = key, e.used
			}
		}
		delete(c.entries, oldest)
	}
}
