// Package parmpp is PARM++ (Sec. 4): PARM with a reflection on what it chose.
//
//  1. PARM chooses the best of N' of N paths.
//  2. reflection: does the final image follow the prompt? Yes: it is the result.
//  3. no: the judge says in words what is wrong.
//  4. self-correction: the generator makes a new image from prompt, bad image and reason; it is reflected upon in turn.
//
// After three corrections it ends in any case. Then the image with the highest odds of yes is returned, which may be
// PARM's own: the result is never worse than that in its judge's eyes (Deviation D19: the paper does not say what is
// returned if no image passes). The package knows no models.
package parmpp

import (
	"context"
	"fmt"

	"imagecot/cot"
	"imagecot/internal/prng"
	"imagecot/verify"
	"imagecot/verify/parm"
	"imagecot/verify/questions"
)

// Rounds is how many corrections the paper allows.
const Rounds = 3

// Strategy is PARM++ as verifier.
type Strategy struct {
	Judge        cot.Judge
	Explainer    cot.Explainer // the same judge, in words
	Corrector    cot.Corrector // the generator, tuned to correct itself
	Questions    questions.Set
	Observer     cot.Observer
	Rounds       int  // corrections at most; 0 means Rounds
	From         int  // first step whose image is judged, as in parm.Strategy
	NoReflection bool // end with PARM's choice: Explainer and Corrector are not needed (the ablation in Table 5)
}

// Select implements cot.Strategy.
func (s Strategy) Select(ctx context.Context, g cot.Generator, p cot.Prompt, seeds []uint64) (cot.Selection, error) {
	run := verify.Run{Generator: g, Judge: s.Judge, Questions: s.Questions, Observer: s.Observer}
	if err := run.Start(ctx, p, seeds); err != nil {
		return cot.Selection{}, err
	}
	c, err := parm.Strategy{Judge: s.Judge, Questions: s.Questions, From: s.From}.Choose(ctx, &run)
	if err != nil {
		return cot.Selection{}, err
	}
	if !s.NoReflection {
		if c.Path, c.Reason, err = s.reflect(ctx, &run, c); err != nil {
			return cot.Selection{}, err
		}
	}
	return run.Select("parmpp", c.Path, c.NPrime, c.Reason), nil
}

// reflect returns the best of the image that PARM chose and its corrections, and why.
func (s Strategy) reflect(ctx context.Context, run *verify.Run, chosen parm.Choice) (*cot.Path, string, error) {
	run.Note(chosen.Path, chosen.Reason)
	rounds := s.Rounds
	if rounds == 0 {
		rounds = Rounds
	}
	images := []*cot.Path{chosen.Path}
	var verdicts []cot.Verdict
	for round := 0; ; round++ {
		v, err := run.Reflect(ctx, images[round])
		if err != nil {
			return nil, "", err
		}
		if verdicts = append(verdicts, v); v.Yes() || round >= rounds {
			break
		}
		corrected, err := run.Correct(ctx, s.Explainer, s.Corrector, prng.Derive(images[round].Seed, "correction"))
		if err != nil {
			return nil, "", fmt.Errorf("parmpp: round %d: %w", round+1, err)
		}
		images = append(images, corrected)
	}
	best := verify.HighestOdds(verdicts)
	p := verdicts[best].PYes()
	switch {
	case best == 0 && verdicts[0].Yes():
		return images[0], fmt.Sprintf("%s; it passes reflection, P(yes) %.4f", chosen.Reason, p), nil
	case verdicts[best].Yes():
		return images[best], fmt.Sprintf("passes reflection after %d corrections, P(yes) %.4f", best, p), nil
	case best == 0:
		return images[0], fmt.Sprintf("%s; none of %d corrections is better, P(yes) %.4f", chosen.Reason, len(images)-1, p), nil
	}
	return images[best], fmt.Sprintf("no image passes reflection; correction %d of %d has the highest odds, P(yes) %.4f", best, len(images)-1, p), nil
}
