package llavaov

import (
	"fmt"
	"strings"

	"imagecot/internal/graphx"

	"github.com/gomlx/gomlx/core/tensors"
)

// Example is one conversation about an image to learn from: a segment of a packed batch.
type Example []ExampleTurn

// ExampleTurn is a question and the answer to learn.
type ExampleTurn struct {
	Text   string // the question
	Answer string
	// Words is the part of Text that is learned too, next word by next word (in the tiny world the prompt, in
	// questions whose answer is yes); empty for none.
	Words string
	// Weight is what the turn counts beside others; 0 means 1.
	Weight float64
}

// Shares are the shares of three kinds of targets in the loss; each is a mean over the batch.
type Shares struct {
	Verdict float64 // answers yes and no
	Answer  float64 // words of other answers, and the end of every answer
	Words   float64 // words of questions
}

// TinyShares are the tiny world's.
var TinyShares = Shares{Verdict: 1, Answer: .5, Words: .5}

// PackedBatch holds the arrays of PackedInputs without the pixels, row-major [B, S, T].
type PackedBatch struct {
	B, S, T          int
	IDs, Targets     []int32
	Weights, Answers []float32
}

// Tensors in the order of PackedInputs: IDs, Targets, Weights, Answers.
func (p *PackedBatch) Tensors() []*tensors.Tensor {
	return []*tensors.Tensor{
		graphx.Tensor(p.IDs, p.B, p.S, p.T), graphx.Tensor(p.Targets, p.B, p.S, p.T),
		graphx.Tensor(p.Weights, p.B, p.S, p.T), graphx.Tensor(p.Answers, p.B, p.S, p.T),
	}
}

// kinds of targets.
type targetKind uint8

const (
	notLearned targetKind = iota
	verdictTarget
	answerTarget
	wordTarget
)

// segment is one tokenised example: kind[i] and weight[i] belong to ids[i] as a target.
type segment struct {
	ids    []int32
	kind   []targetKind
	weight []float64
}

// Options returns the constants of PackedLoss for this chat: the ids yes and no are the bare lower-case spellings.
func (c *Chat) Options(denseWeight float64) (PackedOptions, error) {
	yes, no, err := c.Verdicts(true)
	if err != nil {
		return PackedOptions{}, err
	}
	return PackedOptions{Prefix: c.before, Yes: yes[0], No: no[0], DenseWeight: denseWeight}, nil
}

// Pack tokenises the examples of each image and lays them out. s is the number of segments and t the number of
// positions of a segment, equal for all batches of one program; 0 means the smallest that fits (t to a multiple of 8).
func (c *Chat) Pack(images [][]Example, s, t int, shares Shares) (*PackedBatch, error) {
	all := make([][]segment, len(images))
	longest, most := 0, 0
	for b, examples := range images {
		for i, e := range examples {
			seg, err := c.segment(e)
			if err != nil {
				return nil, fmt.Errorf("%w (image %d, example %d)", err, b, i)
			}
			longest = max(longest, len(seg.ids)-1) // the last id is a target only
			all[b] = append(all[b], seg)
		}
		most = max(most, len(examples))
	}
	if s == 0 {
		s = most
	}
	if t == 0 {
		t = (longest + 7) / 8 * 8
	}
	if most > s || longest > t || s*t == 0 {
		return nil, fmt.Errorf("llavaov: pack: %d segments of up to %d positions do not fit %d of %d", most, longest, s, t)
	}
	p := &PackedBatch{B: len(images), S: s, T: t}
	n := p.B * s * t
	p.IDs, p.Targets, p.Weights, p.Answers = make([]int32, n), make([]int32, n), make([]float32, n), make([]float32, n)
	p.fill(all, shares)
	return p, nil
}

// fill lays the segments out; weights of a kind add up to the kind's share.
func (p *PackedBatch) fill(all [][]segment, shares Shares) {
	var sum [4]float64
	for _, segments := range all {
		for _, seg := range segments {
			for i, k := range seg.kind {
				sum[k] += seg.weight[i]
			}
		}
	}
	share := [4]float64{0, shares.Verdict, shares.Answer, shares.Words}
	for b, segments := range all {
		for i, seg := range segments {
			at := (b*p.S + i) * p.T
			for j := 1; j < len(seg.ids); j++ {
				o := at + j - 1
				p.IDs[o], p.Targets[o] = seg.ids[j-1], seg.ids[j]
				if k := seg.kind[j]; k != notLearned {
					p.Weights[o] = float32(share[k] * seg.weight[j] / sum[k])
				}
				if seg.kind[j] == verdictTarget {
					p.Answers[o] = 1
				}
			}
		}
	}
}

func (c *Chat) segment(e Example) (segment, error) {
	var seg segment
	if len(e) == 0 {
		return seg, fmt.Errorf("llavaov: pack: an example without a turn")
	}
	head := " "
	for _, t := range e {
		if err := c.plain(t.Answer); err != nil {
			return seg, err
		}
		weight := t.Weight
		if weight == 0 {
			weight = 1
		}
		ids, err := c.turn(head, t.Text)
		if err != nil {
			return seg, err
		}
		from, to := 0, 0
		if t.Words != "" {
			if from, to, err = c.span(head, t, ids); err != nil {
				return seg, err
			}
		}
		for i, id := range ids {
			kind := notLearned
			if from <= i && i < to {
				kind = wordTarget
			}
			seg.add(id, kind, weight)
		}
		answer := strings.TrimSpace(t.Answer)
		kind := answerTarget
		if word := strings.ToLower(answer); word == yesWords[0] || word == noWords[0] {
			kind = verdictTarget
		}
		for _, id := range c.tok.Encode(answer) {
			seg.add(id, kind, weight)
		}
		seg.add(c.end, answerTarget, weight)
		// The next turn's ids begin after the closing token, which is in the segment already.
		head = strings.TrimPrefix(betweenTurns, endOfTurn)
	}
	return seg, nil
}

func (s *segment) add(id int32, k targetKind, weight float64) {
	s.ids, s.kind, s.weight = append(s.ids, id), append(s.kind, k), append(s.weight, weight)
}

// span finds the tokens of t.Words among the ids of the turn: what is left when the tokens that the text before it and
// the text after it have in common with the whole are taken away.
func (c *Chat) span(head string, t ExampleTurn, ids []int32) (from, to int, err error) {
	at := strings.Index(t.Text, t.Words)
	if at < 0 {
		return 0, 0, fmt.Errorf("llavaov: pack: the words %q are not in the question %q", t.Words, t.Text)
	}
	before := c.tok.Encode(head + strings.TrimRight(t.Text[:at], " "))
	after := c.tok.Encode(t.Text[at+len(t.Words):] + afterQuery)
	for from < min(len(before), len(ids)) && before[from] == ids[from] {
		from++
	}
	n := 0
	for n < min(len(after), len(ids)-from) && after[len(after)-1-n] == ids[len(ids)-1-n] {
		n++
	}
	return from, len(ids) - n, nil
}
