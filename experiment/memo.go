package experiment

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"image"
	"slices"
	"sync"

	"imagecot/cot"
)

type digest = [sha256.Size]byte

// memoGenerator remembers decoding steps and step images, so that several strategies and several N share them. It is
// exact: a step is a function of prompt, path seed, step number and settled tokens alone. What a strategy counts as its
// cost is unchanged.
type memoGenerator struct {
	cot.Generator
	official bool // the first path of a selection is decoded otherwise than the others (showo.Options.Official)
	states   *memory[*cot.Path, cot.Path]
	images   *memory[*cot.Path, image.Image]
}

func newMemoGenerator(g cot.Generator, official bool) *memoGenerator {
	m := &memoGenerator{Generator: g, official: official, images: newMemory(g.Decode)}
	m.states = newMemory(func(ctx context.Context, paths []*cot.Path) ([]cot.Path, error) {
		if err := g.Advance(ctx, paths); err != nil {
			return nil, err
		}
		out := make([]cot.Path, len(paths))
		for i, p := range paths {
			out[i] = snapshot(p)
		}
		return out, nil
	})
	return m
}

// snapshot is a copy that shares nothing with the path.
func snapshot(p *cot.Path) cot.Path {
	s := *p
	s.Tokens, s.Sample = slices.Clone(p.Tokens), slices.Clone(p.Sample)
	return s
}

// forget drops what is known of a prompt.
func (m *memoGenerator) forget(prompt string) {
	m.states.forget(prompt)
	m.images.forget(prompt)
}

func (m *memoGenerator) stateKey(p *cot.Path) digest {
	b := binary.LittleEndian.AppendUint64(nil, p.Seed)
	if m.official && p.Index == 0 {
		b = append(b, "first"...)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Step))
	return sha256.Sum256(appendTokens(b, p.Tokens))
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
	all := make([]work[*cot.Path], len(paths))
	for i, p := range paths {
		all[i] = work[*cot.Path]{p.Prompt.Text, m.stateKey(p), p}
	}
	states, err := m.states.get(ctx, all)
	if err != nil {
		return err
	}
	for i, p := range paths {
		s := snapshot(&states[i])
		p.Step, p.LogConf, p.Tokens, p.Sample = s.Step, s.LogConf, s.Tokens, s.Sample
	}
	return nil
}

// Decode takes known step images from memory.
func (m *memoGenerator) Decode(ctx context.Context, paths []*cot.Path) ([]image.Image, error) {
	all := make([]work[*cot.Path], len(paths))
	for i, p := range paths {
		all[i] = work[*cot.Path]{p.Prompt.Text, sha256.Sum256(appendTokens(nil, p.Sample)), p}
	}
	return m.images.get(ctx, all)
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

// memoCorrector remembers corrections by what they are made from: prompt, bad image, reason and seed.
type memoCorrector struct {
	paths *memory[correction, cot.Path]
}

// correction is the arguments of cot.Corrector.
type correction struct {
	prompt cot.Prompt
	bad    *cot.Path
	reason string
	seed   uint64
}

func newMemoCorrector(c cot.Corrector) *memoCorrector {
	return &memoCorrector{newMemory(one(func(ctx context.Context, x correction) (cot.Path, error) {
		p, err := c.Correct(ctx, x.prompt, x.bad, x.reason, x.seed)
		if err != nil {
			return cot.Path{}, err
		}
		return snapshot(p), nil
	}))}
}

// Correct implements cot.Corrector.
func (m *memoCorrector) Correct(ctx context.Context, p cot.Prompt, bad *cot.Path, reason string, seed uint64) (*cot.Path, error) {
	b := appendTokens(binary.LittleEndian.AppendUint64(nil, seed), bad.Tokens)
	out, err := m.paths.get(ctx, []work[correction]{{p.Text, sha256.Sum256(append(b, reason...)), correction{p, bad, reason, seed}}})
	if err != nil {
		return nil, err
	}
	path := snapshot(&out[0])
	return &path, nil
}

// memoJudge remembers verdicts and reasons by question text, earlier turns and pixels, or tokens where there are no pixels.
type memoJudge struct {
	cot.Judge
	verdicts *memory[cot.Question, cot.Verdict]
	reasons  *memory[cot.Question, string]
	mu       sync.Mutex
	pixels   map[string]map[image.Image]digest // by prompt
}

func newMemoJudge(j cot.Judge) *memoJudge {
	return &memoJudge{
		Judge: j, verdicts: newMemory(j.Ask), pixels: map[string]map[image.Image]digest{},
		reasons: newMemory(one(func(ctx context.Context, q cot.Question) (string, error) {
			e, ok := j.(cot.Explainer)
			if !ok {
				return "", fmt.Errorf("experiment: the judge %T gives no reasons", j)
			}
			return e.Explain(ctx, q)
		})),
	}
}

// take returns how many questions were answered since the last call, memory aside, and how long it took.
func (m *memoJudge) take() (calls int, seconds float64) {
	n, s := m.verdicts.take()
	k, t := m.reasons.take()
	return n + k, s + t
}

// forget drops the answers about a prompt.
func (m *memoJudge) forget(prompt string) {
	m.verdicts.forget(prompt)
	m.reasons.forget(prompt)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pixels, prompt)
}

// Explain implements cot.Explainer for judges that do.
func (m *memoJudge) Explain(ctx context.Context, q cot.Question) (string, error) {
	out, err := m.reasons.get(ctx, []work[cot.Question]{{q.Prompt.Text, m.key(q), q}})
	if err != nil {
		return "", err
	}
	return out[0], nil
}

// Ask answers known questions from memory and passes the others on together.
func (m *memoJudge) Ask(ctx context.Context, qs []cot.Question) ([]cot.Verdict, error) {
	all := make([]work[cot.Question], len(qs))
	for i, q := range qs {
		all[i] = work[cot.Question]{q.Prompt.Text, m.key(q), q}
	}
	return m.verdicts.get(ctx, all)
}

// key of a question, its prompt aside.
func (m *memoJudge) key(q cot.Question) digest {
	h := sha256.New()
	px := m.look(q)
	h.Write(px[:])
	field := func(s string) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	field(string(q.Kind))
	field(q.Text)
	for _, t := range q.After {
		field(t.Text)
		field(t.Answer)
	}
	return digest(h.Sum(nil))
}

// look hashes what is asked about. Images are immutable once decoded, so their hash is kept by identity.
func (m *memoJudge) look(q cot.Question) digest {
	if q.Image == nil {
		return sha256.Sum256(appendTokens(nil, q.Tokens))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pixels[q.Prompt.Text] == nil {
		m.pixels[q.Prompt.Text] = map[image.Image]digest{}
	}
	px, ok := m.pixels[q.Prompt.Text][q.Image]
	if !ok {
		px = hashImage(q.Image)
		m.pixels[q.Prompt.Text][q.Image] = px
	}
	return px
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
