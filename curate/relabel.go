package curate

import (
	"context"
	"fmt"
	"image"
	"slices"
	"strings"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/prng"
)

// Judge finds out about one image, and is then asked about as many prompts as one likes.
type Judge func(ctx context.Context, img image.Image) (func(geneval.Metadata) (geneval.Result, error), error)

// Relabelled builds ranking data from ranking data, without a new image: an image that is wrong for its own prompt is often right
// for another (hindsight; Andrychowicz et al., arXiv 1707.01495, there for goals). Each prompt gets images of other prompts, some
// that are right for it, and some that show all objects and are wrong: of relations and colours, which a weak generator rarely
// gets right when it is asked to, there are plenty so. An extension of the paper's data (Deviation D31).
type Relabelled struct {
	Dir       string
	From      string // folder of ranking data, or several: A,B
	PerPrompt int    // most images of each label that a prompt gets
	Seed      uint64
	PartSize  int // rows a part
	Generator cot.Generator
	Judge     Judge
	Options   any   // who decodes and judges, for recipe.json
	Progress  Parts // images looked at
}

// Run builds all of it and writes the card. Data that give no image another prompt are an error.
func (r Relabelled) Run(ctx context.Context) error {
	if r.PerPrompt < 1 || r.PartSize < 1 {
		return fmt.Errorf("curate: relabel: %d images of a label, %d rows a part, want at least 1", r.PerPrompt, r.PartSize)
	}
	images, hash, err := readRanking(r.From)
	if err != nil {
		return err
	}
	unlock, err := claim(r.Dir, struct {
		Kind      string `json:"kind"`
		From      string `json:"from"` // fingerprint of the ranking data
		Options   any    `json:"options"`
		PerPrompt int    `json:"per_prompt"`
		Seed      uint64 `json:"seed"`
		PartSize  int    `json:"part_size"`
	}{"relabelled", hash, r.Options, r.PerPrompt, r.Seed, r.PartSize})
	if err != nil {
		return err
	}
	defer unlock()
	wanted, err := r.wanted(images)
	if err != nil {
		return err
	}
	if err := r.look(ctx, images, wanted); err != nil {
		return err
	}
	var rows []Image
	for _, w := range wanted {
		rows = append(rows, w.rows...)
	}
	if len(rows) == 0 {
		return fmt.Errorf("curate: relabel: none of the %d images of %s fits a prompt that is not its own", len(images), r.From)
	}
	if err := rebuild(r.Dir, rows, r.PartSize); err != nil {
		return err
	}
	return r.card(rows, len(images))
}

// request is a prompt and what it has got.
type request struct {
	prompt geneval.Metadata
	scene  string
	rows   []Image
	left   [2]int // images of each label that it still wants: wrong ones, right ones
}

// wanted lists the prompts of the data in the order of their first appearance.
func (r Relabelled) wanted(images []Image) ([]*request, error) {
	all, err := groups(r.From, images)
	if err != nil {
		return nil, err
	}
	out := make([]*request, len(all))
	for i, g := range all {
		m, err := geneval.ParseMetadata([]byte(append(g.yes, g.no...)[0].Metadata))
		if err != nil {
			return nil, fmt.Errorf("curate: relabel: %q: %w", g.prompt, err)
		}
		out[i] = &request{prompt: m, scene: Scene(m), left: [2]int{r.PerPrompt, r.PerPrompt}}
	}
	return out, nil
}

// lookedAt is how many images are decoded together.
const lookedAt = 16

// look shows all images, in an order drawn by seed, to the prompts that want more.
func (r Relabelled) look(ctx context.Context, images []Image, wanted []*request) error {
	order := prng.New(prng.Derive(r.Seed, "relabel"), 0, prng.Curate).Perm(len(images))
	for at := 0; at < len(order); at += lookedAt {
		some := order[at:min(at+lookedAt, len(order))]
		paths := make([]*cot.Path, len(some))
		for i, k := range some {
			paths[i] = &cot.Path{Prompt: cot.Prompt{Text: images[k].Prompt}, Seed: images[k].Seed, Step: int(images[k].Steps), Sample: images[k].Final()}
		}
		pictures, err := r.Generator.Decode(ctx, paths)
		if err != nil {
			return err
		}
		for i, picture := range pictures {
			judge, err := r.Judge(ctx, picture)
			if err != nil {
				return err
			}
			if err := offer(images[some[i]], judge, wanted); err != nil {
				return err
			}
		}
		if r.Progress != nil {
			r.Progress(min(at+lookedAt, len(order)), len(order))
		}
	}
	return nil
}

// offer gives an image to every prompt of another scene that wants one of its label.
func offer(img Image, judge func(geneval.Metadata) (geneval.Result, error), wanted []*request) error {
	own := img.Scene()
	for _, w := range wanted {
		if w.scene == own || w.left[0]+w.left[1] == 0 {
			continue
		}
		result, err := judge(w.prompt)
		if err != nil {
			return fmt.Errorf("curate: relabel: an image of %q for %q: %w", img.Prompt, w.prompt.Prompt, err)
		}
		label := 0
		if result.Correct {
			label = 1
		}
		if w.left[label] == 0 || !result.Correct && !near(w.prompt, result) {
			continue
		}
		w.left[label]--
		row := img
		row.Task, row.Prompt, row.Metadata = w.prompt.Tag, w.prompt.Prompt, w.prompt.Dump()
		row.Correct, row.Reason, row.Details = result.Correct, strings.Join(result.Reasons, "\n"), geneval.Details(result.Kept)
		w.rows = append(w.rows, row)
	}
	return nil
}

// near says whether a wrong image shows all objects of a prompt that asks for a place, in colours of which it says nothing: with
// colours that the prompt does not name, as images of other prompts mostly have, being wrong is no lesson.
func near(m geneval.Metadata, r geneval.Result) bool {
	place := slices.ContainsFunc(m.Include, func(c geneval.Clause) bool { return c.Relation != "" })
	colour := slices.ContainsFunc(m.Include, func(c geneval.Clause) bool { return c.Color != "" })
	return place && !colour && !geneval.TooFew(r.Reasons)
}

func (r Relabelled) card(rows []Image, images int) error {
	var labels []labelled
	for _, row := range rows {
		labels = append(labels, labelled{row.Task, row.Prompt, row.Correct})
	}
	return card{
		title: "Relabelled ranking data",
		lines: []string{
			fmt.Sprintf("%d rows of %d images, at most %d of each label a prompt, seed %d; made as recipe.json says", len(rows), images, r.PerPrompt, r.Seed),
			"yes: an image that was drawn for another prompt shows what this one asks for; no: it shows all its objects, with a wrong colour or place",
			use(rows),
		},
		rows: balance(labels),
	}.write(r.Dir)
}
