package curate

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"imagecot/internal/prng"
)

// Correction is one row of self-correction data: a wrong and a right image of one prompt, and what is wrong.
type Correction struct {
	Task     string  `parquet:"task,dict"`
	Prompt   string  `parquet:"prompt,dict"`
	Metadata string  `parquet:"metadata,dict"`
	BadSeed  uint64  `parquet:"bad_seed"`
	GoodSeed uint64  `parquet:"good_seed"`
	Bad      []int32 `parquet:"bad"`  // tokens of the image that is to be corrected
	Good     []int32 `parquet:"good"` // tokens of the image that it is to become
	Reason   string  `parquet:"reason,dict"`
}

// CorrectionData builds self-correction data from ranking data (Sec. 4, "Self-correction Fine-tuning": 10K groups of prompt,
// bad image, good image and reason). A bad image gets the good ones that have most tokens in common with it: a correction
// changes what is wrong and as little else as the data allow.
type CorrectionData struct {
	Dir       string
	From      string // folder of ranking data
	PerImage  int    // good images for a bad one, at most
	PerPrompt int    // groups of a prompt, at most
	Seed      uint64
	PartSize  int // groups a part
	Reasons   Reasons
	Progress  Parts
}

// Run builds what is missing and writes the card. Data without a prompt of both labels are an error.
func (d CorrectionData) Run(ctx context.Context) error {
	if d.PerImage < 1 || d.PerPrompt < 1 || d.PartSize < 1 {
		return fmt.Errorf("curate: correction: %d good images for a bad one, %d groups a prompt, %d a part, want at least 1", d.PerImage, d.PerPrompt, d.PartSize)
	}
	images, hash, err := readRanking(d.From)
	if err != nil {
		return err
	}
	couples, bad, err := d.match(images)
	if err != nil {
		return err
	}
	unlock, err := claim(d.Dir, struct {
		Kind      string `json:"kind"`
		From      string `json:"from"` // fingerprint of the ranking data
		Annotator string `json:"annotator"`
		PerImage  int    `json:"per_image"`
		PerPrompt int    `json:"per_prompt"`
		Seed      uint64 `json:"seed"`
		PartSize  int    `json:"part_size"`
	}{"correction", hash, d.Reasons.Name, d.PerImage, d.PerPrompt, d.Seed, d.PartSize})
	if err != nil {
		return err
	}
	defer unlock()
	reasons, err := d.Reasons.of(ctx, d.Dir, bad, d.Progress)
	if err != nil {
		return err
	}
	var rows []Correction
	for _, c := range couples {
		if reason := reasons[nameOf(c.bad)]; reason != "" {
			rows = append(rows, Correction{
				Task: c.bad.Task, Prompt: c.bad.Prompt, Metadata: c.bad.Metadata, BadSeed: c.bad.Seed, GoodSeed: c.good.Seed,
				Bad: c.bad.Final(), Good: c.good.Final(), Reason: reason,
			})
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("curate: correction: %s gave a reason for none of %d images", d.Reasons.Name, len(bad))
	}
	if err := rebuild(d.Dir, rows, d.PartSize); err != nil {
		return err
	}
	return d.card(rows, len(couples), len(bad))
}

// couple is a bad image and a good one that it may become.
type couple struct{ bad, good Image }

// match lists the couples of every prompt and the bad images among them.
func (d CorrectionData) match(images []Image) (couples []couple, bad []Image, err error) {
	all, err := groups(d.From, images)
	if err != nil {
		return nil, nil, err
	}
	for _, g := range all {
		rng := prng.New(prng.Derive(d.Seed, "correction\x00"+g.prompt), 0, prng.Curate).Rand()
		rng.Shuffle(len(g.no), func(i, j int) { g.no[i], g.no[j] = g.no[j], g.no[i] })
		rng.Shuffle(len(g.yes), func(i, j int) { g.yes[i], g.yes[j] = g.yes[j], g.yes[i] })
		left := d.PerPrompt
		for _, wrong := range g.no {
			nearest := slices.Clone(g.yes)
			slices.SortStableFunc(nearest, func(a, b Image) int { return cmp.Compare(alike(wrong, b), alike(wrong, a)) })
			nearest = nearest[:min(len(nearest), d.PerImage, left)]
			for _, right := range nearest {
				couples = append(couples, couple{wrong, right})
			}
			if left -= len(nearest); len(nearest) > 0 {
				bad = append(bad, wrong)
			}
		}
	}
	if len(couples) == 0 {
		return nil, nil, fmt.Errorf("curate: correction: none of %d prompts in %s has images of both labels", len(all), d.From)
	}
	return couples, bad, nil
}

// alike counts the tokens that two final images have in common, place by place.
func alike(a, b Image) int {
	n := 0
	for i, t := range a.Final() {
		if b.Final()[i] == t {
			n++
		}
	}
	return n
}

func (d CorrectionData) card(rows []Correction, couples, bad int) error {
	labels := balance{}
	for _, r := range rows {
		labels.add(r.Task, r.Prompt, false)
		labels.add(r.Task, r.Prompt, true)
	}
	return card{
		title: "Self-correction data",
		lines: []string{
			fmt.Sprintf("%d groups of prompt, bad image, good image and reason; at most %d a prompt and %d a bad image, seed %d", len(rows), d.PerPrompt, d.PerImage, d.Seed),
			fmt.Sprintf("reasons by %s for %d bad images; %d groups were left out because there was none (aside.jsonl)", d.Reasons.Name, bad, couples-len(rows)),
			"bad: the evaluator misses something that the prompt asks for; good: an image of the same prompt where it finds everything",
			use(rows),
			"a row below counts two images a group",
		},
		rows: labels.table(),
	}.write(d.Dir)
}
