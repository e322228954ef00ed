package dpo

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Form is how a margin becomes a loss.
type Form string

// The forms. Eq7 is the paper's.
const (
	Eq7 Form = "sigmoid" // -log sigmoid(margin): Rafailov et al., arXiv 2305.18290, Eq. 7
	IPO Form = "ipo"     // (margin/beta - 1/(2 beta))^2: Azar et al., arXiv 2310.12036, Eq. 17
)

// Options of the loss.
type Options struct {
	Form      Form
	Beta      float64
	Smoothing float64 // share of labels taken to be wrong (sigmoid only): 0 to below .5
}

// Validate reports settings that have no loss.
func (o Options) Validate() error {
	switch {
	case o.Form != Eq7 && o.Form != IPO:
		return fmt.Errorf("dpo: loss %q, want sigmoid or ipo", o.Form)
	case !(o.Beta > 0):
		return fmt.Errorf("dpo: beta is %v, want a positive number", o.Beta)
	case !(o.Smoothing >= 0 && o.Smoothing < .5):
		return fmt.Errorf("dpo: label_smoothing is %v, want 0 to below .5", o.Smoothing)
	case o.Smoothing > 0 && o.Form != Eq7:
		return fmt.Errorf("dpo: label_smoothing belongs to the sigmoid loss, not to %s", o.Form)
	}
	return nil
}

// of is the loss of one margin, as Loss computes it in the graph.
func (o Options) of(margin float64) float64 {
	if o.Form == IPO {
		d := margin/o.Beta - 1/(2*o.Beta)
		return d * d
	}
	softplus := func(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }
	return (1-o.Smoothing)*softplus(-margin) + o.Smoothing*softplus(margin)
}

// Loss is the loss of each pair [B]. chosen and rejected [B] are log-ratios, log p(y) of the policy minus that of the
// reference:
//
//	margin = beta (log pi(c)/ref(c) - log pi(r)/ref(r))
//	loss   = -(1-e) log sigmoid(margin) - e log sigmoid(-margin)
func Loss(o Options, chosen, rejected *Node) (loss, margin *Node) {
	difference := Sub(chosen, rejected)
	margin = MulScalar(difference, o.Beta)
	if o.Form == IPO {
		return Square(AddScalar(difference, -1/(2*o.Beta))), margin
	}
	loss = Softplus(Neg(margin))
	if o.Smoothing > 0 {
		loss = Add(MulScalar(loss, 1-o.Smoothing), MulScalar(Softplus(margin), o.Smoothing))
	}
	return loss, margin
}
