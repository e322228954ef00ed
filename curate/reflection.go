package curate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"imagecot/internal/prng"
)

// Reflected is one row of PARM++'s reflection data: a final image, whether it follows its prompt, and what is wrong if not.
type Reflected struct {
	Task     string  `parquet:"task,dict"`
	Prompt   string  `parquet:"prompt,dict"`
	Metadata string  `parquet:"metadata,dict"`
	Path     int32   `parquet:"path"`
	Seed     uint64  `parquet:"seed"`
	Image    []int32 `parquet:"image"` // tokens of the final image
	Correct  bool    `parquet:"correct"`
	Reason   string  `parquet:"reason,dict"` // "" for a correct image
}

// ReflectionData builds reflection data from ranking data (Sec. 4, "PARM++ Ranking Data Curation"): wrong images with reasons
// and right ones, 80 to 20.
type ReflectionData struct {
	Dir      string
	From     string // folder of ranking data
	Count    int    // most images; 0 means as many as the ratio allows
	Seed     uint64
	PartSize int // images a part
	Reasons  Reasons
	Progress Parts
}

// wrongToRight is the paper's ratio of negatives to positives, 80 to 20.
const wrongToRight = 4

// Run builds what is missing and writes the card. Data without images of both labels are an error.
func (d ReflectionData) Run(ctx context.Context) error {
	if d.Count < 0 || d.PartSize < 1 {
		return fmt.Errorf("curate: reflection: %d images, %d images a part", d.Count, d.PartSize)
	}
	images, hash, err := readRanking(d.From)
	if err != nil {
		return err
	}
	wrong, right, err := d.choose(images)
	if err != nil {
		return err
	}
	unlock, err := claim(d.Dir, struct {
		Kind      string `json:"kind"`
		From      string `json:"from"` // fingerprint of the ranking data
		Annotator string `json:"annotator"`
		Count     int    `json:"count"`
		Seed      uint64 `json:"seed"`
		PartSize  int    `json:"part_size"`
	}{"reflection", hash, d.Reasons.Name, d.Count, d.Seed, d.PartSize})
	if err != nil {
		return err
	}
	defer unlock()
	reasons, err := d.Reasons.of(ctx, d.Dir, wrong, d.Progress)
	if err != nil {
		return err
	}
	rows := d.rows(images, wrong, right, reasons)
	if err := rebuild(d.Dir, rows, d.PartSize); err != nil {
		return err
	}
	return d.card(rows, len(wrong))
}

// choose takes as many wrong images as the ratio allows, and the right ones in the order in which they are wanted. Both are
// spread over the prompts: the first of every prompt, then the second of every prompt.
func (d ReflectionData) choose(images []Image) (wrong, right []Image, err error) {
	all, err := groups(d.From, images)
	if err != nil {
		return nil, nil, err
	}
	rng := prng.New(prng.Derive(d.Seed, "reflection"), 0, prng.Curate).Rand()
	var no, yes [][]Image
	for _, g := range all {
		no = append(no, g.no)
	}
	for _, mixed := range []bool{true, false} { // in every round of spread right images of prompts that have wrong ones too come first
		for _, g := range all {
			if (len(g.no) > 0) == mixed {
				yes = append(yes, g.yes)
			}
		}
	}
	wrong, right = spread(no, rng), spread(yes, rng)
	if len(wrong) == 0 || len(right) == 0 {
		return nil, nil, fmt.Errorf("curate: reflection: %s has %d images labelled no and %d labelled yes; both are needed", d.From, len(wrong), len(right))
	}
	most := min(len(wrong), wrongToRight*len(right))
	if d.Count > 0 {
		most = min(most, max(1, d.Count*wrongToRight/(wrongToRight+1)))
	}
	return wrong[:most], right, nil
}

// spread shuffles the images of each prompt and lists the first of every prompt, then the second of every prompt, ...
func spread(byPrompt [][]Image, rng *rand.Rand) []Image {
	var out []Image
	longest := 0
	lists := make([][]Image, len(byPrompt))
	for i, list := range byPrompt {
		lists[i] = slices.Clone(list)
		rng.Shuffle(len(list), func(a, b int) { lists[i][a], lists[i][b] = lists[i][b], lists[i][a] })
		longest = max(longest, len(list))
	}
	for n := range longest {
		for _, list := range lists {
			if n < len(list) {
				out = append(out, list[n])
			}
		}
	}
	return out
}

// rows keeps the wrong images that have a reason and a quarter as many right ones, in the order of the ranking data.
func (d ReflectionData) rows(images, wrong, right []Image, reasons map[imageName]string) []Reflected {
	kept := map[imageName]bool{}
	for _, img := range wrong {
		if reasons[nameOf(img)] != "" {
			kept[nameOf(img)] = true
		}
	}
	for _, img := range right[:min(len(right), max(1, (len(kept)+wrongToRight/2)/wrongToRight))] {
		kept[nameOf(img)] = true
	}
	var out []Reflected
	for _, img := range images {
		if !kept[nameOf(img)] {
			continue
		}
		row := Reflected{
			Task: img.Task, Prompt: img.Prompt, Metadata: img.Metadata, Path: img.Path, Seed: img.Seed, Image: img.Final(), Correct: img.Correct,
		}
		if !img.Correct {
			row.Reason = reasons[nameOf(img)]
		}
		out = append(out, row)
	}
	return out
}

func (d ReflectionData) card(rows []Reflected, asked int) error {
	labels := balance{}
	no := 0
	for _, r := range rows {
		labels.add(r.Task, r.Prompt, r.Correct)
		if !r.Correct {
			no++
		}
	}
	return card{
		title: "Reflection data",
		lines: []string{
			fmt.Sprintf("%d final images, %d wrong with a reason and %d right (80 to 20 where there are enough), seed %d", len(rows), no, len(rows)-no, d.Seed),
			fmt.Sprintf("reasons by %s; %d images got none and were set aside (aside.jsonl)", d.Reasons.Name, asked-no),
			"yes: the evaluator finds everything that the prompt asks for",
			use(rows),
		},
		rows: labels.table(),
	}.write(d.Dir)
}
