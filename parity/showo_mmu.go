package parity

import (
	"context"
	"fmt"
	"slices"

	"imagecot/models/showo"

	"github.com/gomlx/compute"
)

func init() { register("showo-mmu", showoMMU) }

// showoMMU answers the case's question through the generator's own understanding.
func showoMMU(ctx context.Context, be compute.Backend, c *Case) error {
	var params struct {
		Limit int     `json:"max_new_tokens"`
		Yes   []int32 `json:"yes_ids"`
		No    []int32 `json:"no_ids"`
	}
	if err := c.DecodeParams(&params); err != nil {
		return err
	}
	cfg, w, err := showoModel(be, c)
	if err != nil {
		return err
	}
	ids, err := c.Int32("in.input_ids")
	if err != nil {
		return err
	}
	allow, err := c.U8("in.allow")
	if err != nil {
		return err
	}
	imageEnd := 2 + cfg.NumVQTokens
	if len(ids) < imageEnd+2 || c.Shape("in.input_ids")[0] != 1 {
		return fmt.Errorf("in.input_ids has shape %v, want one row of more than %d ids", c.Shape("in.input_ids"), imageEnd+1)
	}
	image, question := ids[2:imageEnd], ids[imageEnd+2:]
	row := showo.NewPrompting(cfg).MMUGen(question, image)
	c.CompareExact("in.input_ids", "layout", row.IDs, ids)
	c.CompareExact("in.allow", "mask", row.Allow(), allow)

	u, err := showo.NewUnderstander(be, cfg, w)
	if err != nil {
		return err
	}
	seen, err := u.See(ctx, imageTokens(cfg, image))
	if err != nil {
		return err
	}
	var logits [][]float32
	answer, err := u.Answer(ctx, seen, question, params.Limit, func(l []float32) { logits = append(logits, l) })
	if err != nil {
		return err
	}
	c.Compare("out.tokens", answer)
	c.Compare("out.logits", slices.Concat(logits...))
	v := showo.VerdictOf(logits[0], params.Yes, params.No)
	c.Compare("out.logp_yes", v.LogPYes)
	c.Compare("out.logp_no", v.LogPNo)
	return nil
}
