package showo

// Row is one row of model input with its labels and what its attention mask follows from.
type Row struct {
	IDs    []int32 // [L]
	Labels []int32 // [L], Ignore where there is no target; nil for inference
	Pads   int     // left pads (t2i)

	task  task
	n     int // text ids before the first soi (t2i), ids up to eoi (mmu)
	block int // ids of an image with its marks (t2i)
}

type task int

const (
	taskT2I task = iota
	taskMMU
	taskLM
)

// Prompting lays out sequences ("universal prompting"). Texts are tokenizer ids without marks; images are N vocabulary
// ids (Config.ImageIDs).
type Prompting struct{ cfg Config }

// NewPrompting lays sequences out for an architecture.
func NewPrompting(cfg Config) Prompting { return Prompting{cfg} }

// lead puts sot before the text unless it begins with it.
func (p Prompting) lead(text []int32) []int32 {
	if len(text) > 0 && text[0] == p.cfg.EOT() {
		return text
	}
	return append([]int32{p.cfg.EOT()}, text...)
}

// Condition is what an image is decoded from: t2i, text, eot; at most S+1 ids, of which the last is eot.
func (p Prompting) Condition(text []int32) []int32 { return p.condition(text, p.cfg.MaxSeqLength) }

// condition cuts mark and text to most ids and adds eot.
func (p Prompting) condition(text []int32, most int) []int32 {
	ids := append([]int32{p.cfg.T2I()}, p.lead(text)...)
	if len(ids) > most {
		ids = ids[:most]
	}
	return append(ids, p.cfg.EOT())
}

// Fits reports whether a text is conditioned on whole, without truncation.
func (p Prompting) Fits(text []int32) bool { return len(p.lead(text))+2 <= p.cfg.MaxSeqLength+1 }

// appendImage adds soi, image ids, eoi.
func (p Prompting) appendImage(ids, image []int32) []int32 {
	ids = append(ids, p.cfg.SOI())
	ids = append(ids, image...)
	return append(ids, p.cfg.EOI())
}

// T2IGen is the sequence to decode an image of the text from: pads, t2i, text, eot, soi, image, eoi.
func (p Prompting) T2IGen(text, image []int32) Row {
	return p.images(p.Condition(text), p.cfg.MaxSeqLength+1, image)
}

// images is a condition, padded on the left to width ids, and images after it.
func (p Prompting) images(condition []int32, width int, images ...[]int32) Row {
	s := Row{Pads: width - len(condition), n: width, block: p.cfg.NumVQTokens + 2, task: taskT2I}
	for range s.Pads {
		s.IDs = append(s.IDs, p.cfg.Pad())
	}
	s.IDs = append(s.IDs, condition...)
	for _, image := range images {
		s.IDs = p.appendImage(s.IDs, image)
	}
	return s
}

// Uncond is T2IGen of the empty text.
func (p Prompting) Uncond(image []int32) Row { return p.T2IGen(nil, image) }

// T2I is the training sequence: image is what the model sees, labels its targets (ids, or Ignore). Task mark,
// text, soi and eoi have themselves as labels. drop replaces the text by the empty one.
func (p Prompting) T2I(text, image, labels []int32, drop bool) Row {
	if drop {
		text = nil
	}
	s := p.T2IGen(text, image)
	s.label(labels)
	return s
}

// label makes every id its own label, but for pads and the last image, whose labels are given.
func (s *Row) label(labels []int32) {
	s.Labels = make([]int32, len(s.IDs))
	copy(s.Labels, s.IDs)
	for i := range s.Pads {
		s.Labels[i] = Ignore
	}
	copy(s.Labels[len(s.IDs)-1-len(labels):], labels)
}

// MMU is the training sequence of understanding: mmu, soi, image, eoi, text, eot, right pads. Targets are the text's ids.
func (p Prompting) MMU(text, image []int32) Row {
	t := p.lead(text)
	if len(t)+1 > p.cfg.MaxSeqLength {
		t = t[:p.cfg.MaxSeqLength-1]
	}
	t = append(t[:len(t):len(t)], p.cfg.EOT())
	s := p.imageFirst(image)
	for range s.n {
		s.Labels = append(s.Labels, Ignore)
	}
	s.IDs, s.Labels = append(s.IDs, t...), append(s.Labels, t...)
	p.padRight(&s, s.n+p.cfg.MaxSeqLength)
	return s
}

// MMUGen is the sequence to answer a question from: mmu, soi, image, eoi, sot, question.
func (p Prompting) MMUGen(question, image []int32) Row {
	s := p.imageFirst(image)
	s.IDs = append(append(s.IDs, p.cfg.EOT()), question...)
	return s
}

func (p Prompting) imageFirst(image []int32) Row {
	s := Row{IDs: p.appendImage([]int32{p.cfg.MMU()}, image), task: taskMMU}
	s.n = len(s.IDs)
	return s
}

// LM is plain text of a given length: text, eot, right pads. A longer text is cut and has no eot.
func (p Prompting) LM(text []int32, length int) Row {
	t := p.lead(text)
	t = append(t[:len(t):len(t)], p.cfg.EOT())
	t = t[:min(length, len(t))]
	s := Row{IDs: t, Labels: append([]int32(nil), t...), task: taskLM}
	p.padRight(&s, length)
	return s
}

func (p Prompting) padRight(s *Row, length int) {
	for len(s.IDs) < length {
		s.IDs, s.Labels = append(s.IDs, p.cfg.Pad()), append(s.Labels, Ignore)
	}
}

// Allow is the attention mask [L*L]: 1 where query row q may attend key column k, at q*L+k.
func (s Row) Allow() []uint8 {
	n := len(s.IDs)
	allow := make([]uint8, n*n)
	for q := range n {
		for k := range n {
			if s.may(q, k) {
				allow[q*n+k] = 1
			}
		}
	}
	return allow
}

func (s Row) may(q, k int) bool {
	switch {
	case s.task == taskT2I && q >= s.n: // an image sees the text, the images before it, and itself
		return k >= s.Pads && (k-s.n)/s.block <= (q-s.n)/s.block
	case s.task == taskT2I:
		return k <= q && (k < s.Pads) == (q < s.Pads)
	case s.task == taskMMU:
		return k <= q || k < s.n
	}
	return k <= q
}
