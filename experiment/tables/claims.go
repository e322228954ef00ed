package tables

import (
	"fmt"
	"math"

	"imagecot/experiment"
	"imagecot/experiment/paper"
	"imagecot/geneval"
	"imagecot/internal/stats"
)

// ClaimVerdict is a claim with its verdict and the evidence.
type ClaimVerdict struct {
	paper.Claim
	Verdict  paper.Verdict `json:"verdict"`
	Evidence []Evidence    `json:"evidence,omitempty"`
}

// Evidence is one comparison: the paired difference A - B over the prompts, its interval, and the costs.
type Evidence struct {
	A         string         `json:"a"`
	B         string         `json:"b"`
	Condition string         `json:"condition"`
	Verdict   paper.Verdict  `json:"verdict"`
	Missing   string         `json:"missing,omitempty"` // why it was not measured
	Prompts   int            `json:"prompts"`
	ImagesA   int            `json:"images_a"`
	ImagesB   int            `json:"images_b"`
	Diff      float64        `json:"diff"`
	CI95      stats.Interval `json:"ci95"`
	P         float64        `json:"p"`
	StepsA    float64        `json:"decoding_steps_a"`
	StepsB    float64        `json:"decoding_steps_b"`
	CallsA    float64        `json:"judge_calls_a"`
	CallsB    float64        `json:"judge_calls_b"`
	Paper     *float64       `json:"paper,omitempty"` // the paper's difference
}

// judge gives a verdict to each claim whose rows were all measured or asked for; claims about others are left out.
func (r Results) judge() ([]ClaimVerdict, error) {
	var out []ClaimVerdict
	for _, c := range paper.Claims() {
		v := ClaimVerdict{Claim: c}
		asked := true
		var all, anyOf []paper.Verdict
		for i, x := range append(c.All[:len(c.All):len(c.All)], c.Any...) {
			a, b := r.known[x.A], r.known[x.B]
			if a == nil || b == nil {
				asked = false
				break
			}
			e, err := compare(x, a, b)
			if err != nil {
				return nil, err
			}
			v.Evidence = append(v.Evidence, e)
			if i < len(c.All) {
				all = append(all, e.Verdict)
			} else {
				anyOf = append(anyOf, e.Verdict)
			}
		}
		if asked {
			v.Verdict = c.Together(all, anyOf)
			out = append(out, v)
		}
	}
	return out, nil
}

// leastPrompts is how many prompts a verdict needs. The interval is a bootstrap over prompts: of one prompt it is a point, and few
// would say anything.
const leastPrompts = 30

func compare(c paper.Comparison, a, b *Row) (Evidence, error) {
	e := Evidence{A: c.A, B: c.B, Condition: c.Condition(), Verdict: paper.CannotTell}
	if d, ok := c.Paper(); ok {
		d = math.Round(d*100) / 100
		e.Paper = &d
	}
	for _, row := range []*Row{a, b} {
		if row.found == nil {
			e.Missing = fmt.Sprintf("%s: %s", row.ID(), row.Missing)
			return e, nil
		}
	}
	d, err := geneval.Compare(b.found.Rows, a.found.Rows)
	if err != nil {
		return e, fmt.Errorf("tables: %s against %s: %w", c.A, c.B, err)
	}
	for _, t := range d.Tasks {
		e.Prompts += t.Prompts
	}
	cost := func(m *experiment.Measurement) (float64, float64) { return m.Cost.DecodingSteps, m.Cost.JudgeCalls }
	e.StepsA, e.CallsA = cost(a.found)
	e.StepsB, e.CallsB = cost(b.found)
	e.ImagesA, e.ImagesB = a.found.Selections, b.found.Selections
	e.Diff, e.CI95, e.P = d.Overall.Diff, d.Overall.CI95, d.Overall.P
	if e.Prompts >= leastPrompts {
		e.Verdict = c.Judge(e.CI95, e.StepsA/e.StepsB)
	}
	return e, nil
}
