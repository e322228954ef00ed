// Package align knows the objectives that move a trained generator by preferences and rewards: DPO, and what stands on it; and
// those of supervised fine-tuning, which start from any published checkpoint too.
package align

import (
	"context"
	"io"

	"imagecot/align/dpo"
	"imagecot/align/guide"
	"imagecot/align/iterdpo"
	"imagecot/align/policy"
	"imagecot/align/sft"
	"imagecot/train"
	"imagecot/train/objective"

	"github.com/gomlx/compute"
)

// Maker makes every objective that a recipe can name; models are found in from.
func Maker(from policy.Sources) objective.Maker {
	return func(be compute.Backend, r train.Recipe, dir string) (objective.Trainable, error) {
		switch r.Kind {
		case "dpo":
			return dpo.New(be, from.Folders, r, dir)
		case "correction":
			return sft.NewCorrection(be, from.Folders, r, dir)
		case "guide":
			return guide.New(be, from, r, dir)
		case "sft":
			return sft.NewJudge(be, from, r)
		}
		return objective.New(be, r, dir)
	}
}

// Run trains what the recipe says below dir, as objective.Run does. Iterative DPO is several runs.
func Run(ctx context.Context, be compute.Backend, from policy.Sources, r train.Recipe, dir string, show io.Writer) error {
	if r.Kind == "iterdpo" {
		return iterdpo.Run(ctx, be, from, r, dir, show)
	}
	return objective.Run(ctx, be, r, dir, show, Maker(from))
}
