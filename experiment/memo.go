package experiment

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"image"
	"slices"
	"sync"
	"time"

	"imagecot/cot"
)

// memoGenerator remembers the decoding steps and step images of one prompt, so that several strategies and several N
// share them. It is exact: a step is a function of prompt, path seed, step number and settled tokens alone. What a
// strategy counts as its cost is unchanged. Safe for concurrent use; a state may be computed twice then, equally.
type memoGenerator struct {
	cot.Generator
	official bool // the first path of a selection is decoded otherwise than the others (showo.Options.Official)
	mu       sync.Mutex
	states   map[digest]cot.Path
	images   map[digest]image.Image
	spent    rates // since the last take
}

// take returns what was computed since the last call, and how long it took.
func (m *memoGenerator) take() rates {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.spent
	m.spent = rates{}
	return r
}

type digest = [sha256.Size]byte

func newMemoGenerator(g cot.Generator, official bool) *memoGenerator {
	return &memoGenerator{Generator: g, official: official, states: map[digest]cot.Path{}, images: map[digest]image.Image{}}
}

// forget drops everything, before the next prompt.
func (m *memoGenerator) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.states)
	clear(m.images)
}

func (m *memoGenerator) stateKey(p *cot.Path) digest {
	b := binary.LittleEndian.AppendUint64(nil, p.Seed)
	if m.official && p.Index == 0 {
		b = append(b, "first"...)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Step))
	b = appendTokens(b, p.Tokens)
	return sha256.Sum256(append(b, p.Prompt.Text...))
}

func appendTokens(b []byte, tokens []int32) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tokens)))
	for _, t := range tokens {
		b = binary.LittleEndian.AppendUint32(b, uint32(t))
	}
	return b
}

// Advance takes known steps from memory and has the others computed together.
func (m *memoGenerator) Advance(ctx context.Context, paths []*cot.Path) error {
	var todo []*cot.Path
	var keys []digest
	m.mu.Lock()
	for _, p := range paths {
		key := m.stateKey(p)
		if s, ok := m.states[key]; ok {
			p.Step, p.LogConf = s.Step, s.LogConf
			p.Tokens, p.Sample = slices.Clone(s.Tokens), slices.Clone(s.Sample)
			continue
		}
		todo, keys = append(todo, p), append(keys, key)
	}
	m.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	begun := time.Now()
	if err := m.Generator.Advance(ctx, todo); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spent.Steps += len(todo)
	m.spent.StepsS += time.Since(begun).Seconds()
	for i, p := range todo {
		s := *p
		s.Tokens, s.Sample = slices.Clone(p.Tokens), slices.Clone(p.Sample)
		m.states[keys[i]] = s
	}
	return nil
}

// Decode takes known step images from memory.
func (m *memoGenerator) Decode(ctx context.Context, paths []*cot.Path) ([]image.Image, error) {
	out := make([]image.Image, len(paths))
	var todo []*cot.Path
	var at []int
	m.mu.Lock()
	for i, p := range paths {
		if out[i] = m.images[sha256.Sum256(appendTokens(nil, p.Sample))]; out[i] == nil {
			todo, at = append(todo, p), append(at, i)
		}
	}
	m.mu.Unlock()
	if len(todo) == 0 {
		return out, nil
	}
	begun := time.Now()
	imgs, err := m.Generator.Decode(ctx, todo)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spent.Images += len(todo)
	m.spent.ImagesS += time.Since(begun).Seconds()
	for i, img := range imgs {
		out[at[i]] = img
		m.images[sha256.Sum256(appendTokens(nil, todo[i].Sample))] = img
	}
	return out, nil
}

// bank is the paths of a prompt that a strategy will look at, whatever comes.
type bank struct {
	prompt cot.Prompt
	seeds  []uint64
}

// decodeAll runs all paths of the banks to their ends in one batch, which fills the tiles that they are computed in.
func (m *memoGenerator) decodeAll(ctx context.Context, banks ...bank) error {
	var paths []*cot.Path
	for _, b := range banks {
		some, err := m.Start(ctx, b.prompt, b.seeds)
		if err != nil {
			return err
		}
		paths = append(paths, some...)
	}
	for range m.Steps() {
		if err := m.Advance(ctx, paths); err != nil {
			return err
		}
	}
	_, err := m.Decode(ctx, paths)
	return err
}

// memoJudge remembers verdicts and reasons by question text, earlier turns and pixels, or tokens where there are no pixels.
type memoJudge struct {
	cot.Judge
	mu       sync.Mutex
	verdicts map[digest]cot.Verdict
	reasons  map[digest]string
	pixels   map[image.Image]digest
	calls    int     // computed since the last take
	seconds  float64 // that they took
}

// take returns how many questions were answered since the last call, memory aside, and how long it took.
func (m *memoJudge) take() (calls int, seconds float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	calls, seconds = m.calls, m.seconds
	m.calls, m.seconds = 0, 0
	return calls, seconds
}

func newMemoJudge(j cot.Judge) *memoJudge {
	return &memoJudge{Judge: j, verdicts: map[digest]cot.Verdict{}, reasons: map[digest]string{}, pixels: map[image.Image]digest{}}
}

func (m *memoJudge) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.verdicts)
	clear(m.reasons)
	clear(m.pixels)
}

// Explain implements cot.Explainer for judges that do.
func (m *memoJudge) Explain(ctx context.Context, q cot.Question) (string, error) {
	e, ok := m.Judge.(cot.Explainer)
	if !ok {
		return "", fmt.Errorf("experiment: the judge %T gives no reasons", m.Judge)
	}
	m.mu.Lock()
	key := m.key(q)
	reason, ok := m.reasons[key]
	m.mu.Unlock()
	if ok {
		return reason, nil
	}
	begun := time.Now()
	reason, err := e.Explain(ctx, q)
	if err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	m.seconds += time.Since(begun).Seconds()
	m.reasons[key] = reason
	return reason, nil
}

// Ask answers known questions from memory and passes the others on together.
func (m *memoJudge) Ask(ctx context.Context, qs []cot.Question) ([]cot.Verdict, error) {
	out := make([]cot.Verdict, len(qs))
	var todo []cot.Question
	var at []int
	keys := make([]digest, len(qs))
	m.mu.Lock()
	for i, q := range qs {
		keys[i] = m.key(q)
		v, ok := m.verdicts[keys[i]]
		if !ok {
			todo, at = append(todo, q), append(at, i)
			continue
		}
		out[i] = v
	}
	m.mu.Unlock()
	if len(todo) == 0 {
		return out, nil
	}
	begun := time.Now()
	vs, err := m.Judge.Ask(ctx, todo)
	if err != nil {
		return nil, err
	}
	if len(vs) != len(todo) {
		return nil, fmt.Errorf("experiment: judge gave %d verdicts for %d questions", len(vs), len(todo))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls += len(todo)
	m.seconds += time.Since(begun).Seconds()
	for i, v := range vs {
		out[at[i]] = v
		m.verdicts[keys[at[i]]] = v
	}
	return out, nil
}

// key of a question. The caller holds the lock. Images are immutable once decoded, so their hash is kept by identity.
func (m *memoJudge) key(q cot.Question) digest {
	px, ok := m.pixels[q.Image]
	switch {
	case q.Image == nil:
		px = sha256.Sum256(appendTokens(nil, q.Tokens))
	case !ok:
		px = hashImage(q.Image)
		m.pixels[q.Image] = px
	}
	h := sha256.New()
	h.Write(px[:])
	field := func(s string) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	field(string(q.Kind))
	field(q.Prompt.Text)
	field(q.Text)
	for _, t := range q.After {
		field(t.Text)
		field(t.Answer)
	}
	return digest(h.Sum(nil))
}

func hashImage(img image.Image) digest {
	b := img.Bounds()
	buf := binary.LittleEndian.AppendUint64(nil, uint64(b.Dx()))
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, a := img.At(x, y).RGBA()
			buf = append(buf, byte(r>>8), byte(g>>8), byte(bl>>8), byte(a>>8))
		}
	}
	return sha256.Sum256(buf)
}
