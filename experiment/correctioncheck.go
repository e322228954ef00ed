package experiment

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"imagecot/cot"
	"imagecot/curate"
	"imagecot/geneval"
	"imagecot/internal/prng"
	"imagecot/verify/questions"
)

// ReasonScore is how well a judge says what is wrong with images that are.
type ReasonScore struct {
	Rows   int `json:"rows"`
	Same   int `json:"same"`   // the reason is the annotator's, word for word
	Partly int `json:"partly"` // at least one of its clauses is among the annotator's
}

// ReasonRows are the wrong images of a reflection data set that training leaves out, at most limit of them (0 for all).
func ReasonRows(dir string, share float64, limit int) ([]curate.Reflected, error) {
	rows, err := curate.Read[curate.Reflected](dir)
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r curate.Reflected) bool { return r.Correct || !curate.LeftOut(r.Scene(), share) })
	return everyNth(rows, limit), nil
}

// everyNth takes limit rows evenly, all if limit is 0.
func everyNth[Row any](rows []Row, limit int) []Row {
	if limit <= 0 || limit >= len(rows) {
		return rows
	}
	out := make([]Row, limit)
	for i := range out {
		out[i] = rows[i*len(rows)/limit]
	}
	return out
}

// CheckReasons asks a judge what is wrong with each image.
func (p *Pipeline) CheckReasons(ctx context.Context, judge string, rows []curate.Reflected, progress func(done, total int)) (ReasonScore, error) {
	j, err := p.judge(judge)
	if err != nil {
		return ReasonScore{}, err
	}
	set := p.Recipe.Questions
	if set == "" {
		set = j.questions
	}
	words, err := questions.Get(set)
	if err != nil {
		return ReasonScore{}, fmt.Errorf("experiment: %w: %w", ErrRecipe, err)
	}
	score := ReasonScore{Rows: len(rows)}
	for i, r := range rows {
		path := &cot.Path{Prompt: cot.Prompt{Text: r.Prompt}, Sample: r.Image}
		images, err := p.Generator.Decode(ctx, []*cot.Path{path})
		if err != nil {
			return score, err
		}
		q := words.Ask(cot.Reason, path)
		q.Image = images[0]
		reason, err := j.Explain(ctx, q)
		if err != nil {
			return score, err
		}
		if reason == r.Reason {
			score.Same++
		}
		truth := strings.Split(r.Reason, " and ")
		if slices.ContainsFunc(strings.Split(reason, " and "), func(clause string) bool { return slices.Contains(truth, clause) }) {
			score.Partly++
		}
		if progress != nil {
			progress(i+1, len(rows))
		}
	}
	return score, nil
}

// CorrectionScore is what a generator makes of bad images whose faults are known, over one task or all.
type CorrectionScore struct {
	Task      string  `json:"task"` // "all" for all
	Images    int     `json:"images"`
	Corrected int     `json:"corrected"` // right after one correction, with the reason that the data give
	Silent    int     `json:"silent"`    // the same without a reason: what the bad image alone is worth
	Plain     int     `json:"plain"`     // right if drawn anew from the prompt alone
	Kept      float64 `json:"kept"`      // mean share of the bad image's tokens that the correction keeps
}

// CheckCorrection corrects the bad images of a self-correction data set that training leaves out, at most limit of them (0 for
// all), and evaluates what comes out, beside fresh images of the same prompts and seeds.
func (p *Pipeline) CheckCorrection(ctx context.Context, dir string, share float64, limit int, progress func(done, total int)) ([]CorrectionScore, error) {
	rows, err := curate.Read[curate.Correction](dir)
	if err != nil {
		return nil, err
	}
	corrector, ok := p.Generator.(cot.Corrector)
	if !ok {
		return nil, fmt.Errorf("experiment: %w: the generator cannot correct images", ErrRecipe)
	}
	seen := map[uint64]bool{}
	rows = slices.DeleteFunc(rows, func(r curate.Correction) bool {
		again := seen[r.BadSeed]
		seen[r.BadSeed] = true
		return again || !curate.LeftOut(r.Scene(), share)
	})
	if rows = everyNth(rows, limit); len(rows) == 0 {
		return nil, fmt.Errorf("experiment: %w: no validation prompt in %s at a share of %v", ErrRecipe, dir, share)
	}
	by := map[string]*CorrectionScore{}
	for i, r := range rows {
		one, err := p.correctOnce(ctx, corrector, r)
		if err != nil {
			return nil, err
		}
		for _, task := range []string{r.Task, "all"} {
			if by[task] == nil {
				by[task] = &CorrectionScore{Task: task}
			}
			s := by[task]
			s.Images++
			s.Corrected, s.Silent, s.Plain = s.Corrected+one.Corrected, s.Silent+one.Silent, s.Plain+one.Plain
			s.Kept += (one.Kept - s.Kept) / float64(s.Images)
		}
		if progress != nil {
			progress(i+1, len(rows))
		}
	}
	var out []CorrectionScore
	for _, task := range append(geneval.Tasks(), "all") {
		if by[task] != nil {
			out = append(out, *by[task])
		}
	}
	return out, nil
}

// correctOnce corrects one bad image with its reason and without, and draws the prompt anew.
func (p *Pipeline) correctOnce(ctx context.Context, c cot.Corrector, r curate.Correction) (CorrectionScore, error) {
	var s CorrectionScore
	m, err := geneval.ParseMetadata([]byte(r.Metadata))
	if err != nil {
		return s, err
	}
	prompt := cot.Prompt{Text: r.Prompt}
	bad := &cot.Path{Prompt: prompt, Step: p.Generator.Steps(), Tokens: r.Bad, Sample: r.Bad}
	seed := prng.Derive(r.BadSeed, "correction check")
	told, err := c.Correct(ctx, prompt, bad, r.Reason, seed)
	if err != nil {
		return s, err
	}
	silent, err := c.Correct(ctx, prompt, bad, "", seed)
	if err != nil {
		return s, err
	}
	fresh, err := p.Generator.Start(ctx, prompt, []uint64{seed})
	if err != nil {
		return s, err
	}
	for range p.Generator.Steps() {
		if err := p.Generator.Advance(ctx, fresh); err != nil {
			return s, err
		}
	}
	images, err := p.Generator.Decode(ctx, []*cot.Path{told, silent, fresh[0]})
	if err != nil {
		return s, err
	}
	for i, count := range []*int{&s.Corrected, &s.Silent, &s.Plain} {
		result, err := p.Evaluate(ctx, images[i], m)
		if err != nil {
			return s, err
		}
		if result.Correct {
			*count = 1
		}
	}
	for i, token := range told.Tokens {
		if token == r.Bad[i] {
			s.Kept += 1 / float64(len(r.Bad))
		}
	}
	return s, nil
}
