package showo

import (
	"context"
	"fmt"
	"strings"

	"imagecot/cot"
	"imagecot/internal/graphx"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// Self-correction (PARM++, Sec. 4): an image is made again from prompt, bad image and reason. Deviation D21: the paper
// tells no layout. Here it is
//
//	[t2i] prompt. reason [eot] [soi] bad image [eoi] | [soi] image [eoi]
//
// where text is causal, the bad image sees the text and itself, and the new image sees everything. What stands before the
// bar sees nothing behind it, so that its keys and values are computed once, and a correction is decoded like any
// other path. Guidance compares with the usual empty prompt, without a bad image.

var _ cot.Corrector = (*Generator)(nil)

// CorrectionText is what a correction is told: the prompt and what is wrong.
func CorrectionText(prompt, reason string) string {
	reason = strings.Join(strings.Fields(reason), " ")
	if reason == "" {
		return prompt
	}
	return prompt + ". " + reason
}

// correctionWidth is the most ids of a correction's text, marks included: room for a prompt and as much again.
func (p Prompting) correctionWidth() int { return 2*p.cfg.MaxSeqLength + 1 }

// CorrectionCondition is the text that a correction is decoded from: t2i, text, eot; at most 2S+1 ids.
func (p Prompting) CorrectionCondition(text []int32) []int32 {
	return p.condition(text, p.correctionWidth()-1)
}

// Correction is the training sequence: pads, t2i, text, eot, soi, bad image, eoi, soi, image, eoi. bad and image are ids,
// image as the model sees it with labels as its targets (see T2I). The loss counts the last image alone.
func (p Prompting) Correction(text, bad, image, labels []int32) Row {
	s := p.images(p.CorrectionCondition(text), p.correctionWidth(), bad, image)
	s.label(labels)
	return s
}

// CorrectionLoss is T2ILoss of Prompting.Correction's rows: ids and labels [B, L], pads [B], L = 2S+1 + 2 (N+2).
func CorrectionLoss(s graphx.Scope, cfg Config, ids, labels, pads *Node) *Node {
	loss, n := imageSums(s, cfg, ids, labels, pads, 2)
	return Div(ReduceAllSum(loss), MaxScalar(ReduceAllSum(n), 1))
}

// Correction runs a correction's text (Prompting.CorrectionCondition) and bad image [N], tokens 0..K-1, through the model.
func (d *Decoder) Correction(ids, bad []int32) (*Prefix, error) {
	if err := d.cfg.checkTokens(bad, false); err != nil {
		return nil, fmt.Errorf("showo: image to be corrected: %w", err)
	}
	p := NewPrompting(d.cfg)
	return d.prefix(ids, p.appendImage(nil, d.cfg.ImageIDs(bad)), widthOf(len(ids), p.correctionWidth()))
}

// Correct implements cot.Corrector. bad is a finished path; a text longer than 2S+1 ids is cut.
func (g *Generator) Correct(ctx context.Context, p cot.Prompt, bad *cot.Path, reason string, seed uint64) (*cot.Path, error) {
	ids := g.prompts.CorrectionCondition(g.text.Encode(CorrectionText(p.Text, reason)))
	prefix, err := g.decoder.Correction(ids, bad.Tokens)
	if err != nil {
		return nil, fmt.Errorf("%w (path %d, step %d of %d)", err, bad.Index, bad.Step, g.Steps())
	}
	paths, err := g.Start(ctx, p, []uint64{seed})
	if err != nil {
		return nil, err
	}
	for range g.Steps() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := g.advance(ctx, paths, []*Prefix{prefix}); err != nil {
			return nil, fmt.Errorf("%w (correcting path %d)", err, bad.Index)
		}
	}
	return paths[0], nil
}
