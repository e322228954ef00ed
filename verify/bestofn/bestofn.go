// Package bestofn decodes N paths to the end and keeps the best by any score of the final image. With the evaluator
// itself as score it is the oracle: the upper bound of every judge.
package bestofn

import (
	"cmp"
	"context"
	"fmt"
	"image"

	"imagecot/cot"
	"imagecot/verify"
)

// Score rates a final image; higher is better, NaN never wins.
type Score func(ctx context.Context, p cot.Prompt, img image.Image) (float64, error)

// Strategy is best of N by Score.
type Strategy struct {
	Name     string // in the Selection; "bestofn" if empty
	Score    Score
	Observer cot.Observer
}

// Select implements cot.Strategy: the first path of the highest score. It fails with verify.ErrNoVerdict if no score is a
// number.
func (s Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g, Observer: s.Observer}
	if err := run.Start(ctx, p, seeds); err != nil {
		return cot.Selection{}, err
	}
	if err := run.Finish(ctx, run.Paths); err != nil {
		return cot.Selection{}, err
	}
	images, err := run.Decode(ctx, run.Paths)
	if err != nil {
		return cot.Selection{}, err
	}
	best, highest := -1, 0.0
	for i, img := range images {
		score, err := s.Score(ctx, p, img)
		if err != nil {
			return cot.Selection{}, fmt.Errorf("bestofn: path %d: %w", i, err)
		}
		run.Note(run.Paths[i], fmt.Sprintf("score %.4g", score))
		if score == score && (best < 0 || score > highest) { // NaN is not equal to itself
			best, highest = i, score
		}
	}
	if best < 0 {
		return cot.Selection{}, fmt.Errorf("bestofn: %d final images: %w", len(images), verify.ErrNoVerdict)
	}
	return run.Select(cmp.Or(s.Name, "bestofn"), run.Paths[best], len(run.Paths), fmt.Sprintf("highest score, %.4g", highest)), nil
}
