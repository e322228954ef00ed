package curate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"imagecot/geneval"
	"imagecot/internal/prng"
)

// Pair is one row of preference data: two images of one prompt, as tokens, of which the evaluator finds one right.
type Pair struct {
	Task         string  `parquet:"task,dict"`
	Prompt       string  `parquet:"prompt,dict"`
	Metadata     string  `parquet:"metadata,dict"`
	Seed         uint64  `parquet:"seed"` // of the pair: its masks are drawn from it
	ChosenSeed   uint64  `parquet:"chosen_seed"`
	RejectedSeed uint64  `parquet:"rejected_seed"`
	Chosen       []int32 `parquet:"chosen"`   // tokens of the final image labelled yes
	Rejected     []int32 `parquet:"rejected"` // and of the one labelled no
}

// PairData builds preference data from ranking data (Sec. 2.3: yes/no pairs, 10K a round). Prompts whose images all share
// a label have no pair, and neither have two images of equal tokens; both are counted on the card.
type PairData struct {
	Dir       string
	From      string // folder of ranking data
	PerPrompt int    // most pairs of a prompt
	Nearest   bool   // images that resemble each other are paired first: an extension
	// Present rejects only images that show all objects, where the prompt asks for colours or places too: an extension. What
	// is there is easily learned, and takes up pairs that could teach which object has which colour and place.
	Present bool
	// Balance gives prompts of a task with fewer prompts more pairs than PerPrompt, until the tasks have equally many or an
	// image is in usesBalanced pairs.
	Balance  bool
	Seed     uint64
	PartSize int // pairs a part
	Progress Parts
}

// usesBalanced is how many pairs an image may be in for the sake of balance: more would be learnt by heart.
const usesBalanced = 4

// pairing is what became of the ranking data.
type pairing struct {
	pairs                      []Pair
	prompts, allYes, allNo     int // prompts: all; those with one label only
	absent                     int // prompts with both labels whose wrong images all lack an object
	equal                      int // combinations refused because the images are equal
	images, imagesYes, chosens int // chosens: different images among the chosen ones
}

// Run builds what is missing and writes the card. Data without a single pair are an error.
func (p PairData) Run(ctx context.Context) error {
	if p.PerPrompt < 1 || p.PartSize < 1 {
		return fmt.Errorf("curate: pairs: %d pairs a prompt, %d pairs a part, want at least 1", p.PerPrompt, p.PartSize)
	}
	images, hash, err := readRanking(p.From)
	if err != nil {
		return err
	}
	made, err := p.pair(images)
	if err != nil {
		return err
	}
	id := struct {
		Kind      string `json:"kind"`
		From      string `json:"from"` // fingerprint of the ranking data
		PerPrompt int    `json:"per_prompt"`
		Nearest   bool   `json:"nearest,omitempty"`
		Balance   bool   `json:"balance,omitempty"`
		Present   bool   `json:"present,omitempty"`
		Seed      uint64 `json:"seed"`
		PartSize  int    `json:"part_size"`
	}{"pairs", hash, p.PerPrompt, p.Nearest, p.Balance, p.Present, p.Seed, p.PartSize}
	parts := (len(made.pairs) + p.PartSize - 1) / p.PartSize
	err = build(ctx, p.Dir, id, parts, p.Progress, func(_ context.Context, part int) ([]Pair, error) {
		return made.pairs[part*p.PartSize : min((part+1)*p.PartSize, len(made.pairs))], nil
	})
	if err != nil {
		return err
	}
	return p.card(made)
}

// pair groups the images by prompt and combines both labels.
func (p PairData) pair(images []Image) (pairing, error) {
	made := pairing{images: len(images)}
	all, err := groups(p.From, images)
	if err != nil {
		return made, err
	}
	made.prompts = len(all)
	var both []group
	for _, g := range all {
		made.imagesYes += len(g.yes)
		if len(g.no) == 0 {
			made.allYes++
			continue
		}
		if len(g.yes) == 0 {
			made.allNo++
			continue
		}
		if p.Present {
			if g.no, err = present(g.no); err != nil {
				return made, err
			}
			if len(g.no) == 0 {
				made.absent++
				continue
			}
		}
		both = append(both, g)
	}
	most := p.mostPairs(both)
	for _, g := range both {
		p.combine(&made, g.yes, g.no, most(g))
	}
	if len(made.pairs) == 0 {
		return made, fmt.Errorf("curate: pairs: %s gives none: of %d prompts (%d images, %d yes) %d have only yes, %d only no, %d none that shows all objects and is wrong, and %d combinations are of equal images",
			p.From, made.prompts, made.images, made.imagesYes, made.allYes, made.allNo, made.absent, made.equal)
	}
	return made, nil
}

// present leaves out the images that lack an object, if their prompt asks for colours or places as well.
func present(wrong []Image) (out []Image, err error) {
	for _, img := range wrong {
		m, err := geneval.ParseMetadata([]byte(img.Metadata))
		if err != nil {
			return nil, fmt.Errorf("curate: %q: %w", img.Prompt, err)
		}
		more := slices.ContainsFunc(m.Include, func(c geneval.Clause) bool { return c.Color != "" || c.Relation != "" })
		if !more || !geneval.TooFew(strings.Split(img.Reason, "\n")) {
			out = append(out, img)
		}
	}
	return out, nil
}

// mostPairs returns how many pairs a prompt may have, among prompts with both labels.
func (p PairData) mostPairs(all []group) func(group) int {
	prompts := map[string]int{} // by task
	for _, g := range all {
		prompts[g.yes[0].Task]++
	}
	largest := 0
	for _, n := range prompts {
		largest = max(largest, n)
	}
	return func(g group) int {
		if !p.Balance {
			return p.PerPrompt
		}
		share := (p.PerPrompt*largest + prompts[g.yes[0].Task] - 1) / prompts[g.yes[0].Task]
		return max(p.PerPrompt, min(share, usesBalanced*min(len(g.yes), len(g.no))))
	}
}

// combine adds up to most pairs of one prompt, in the order that evenly or nearest gives.
func (p PairData) combine(made *pairing, yes, no []Image, most int) {
	prompt := yes[0].Prompt
	rng := prng.New(prng.Derive(p.Seed, "pairs\x00"+prompt), 0, prng.Curate).Rand()
	rng.Shuffle(len(yes), func(i, j int) { yes[i], yes[j] = yes[j], yes[i] })
	rng.Shuffle(len(no), func(i, j int) { no[i], no[j] = no[j], no[i] })
	order := evenly(len(yes), len(no))
	if p.Nearest {
		order = nearest(yes, no, most)
	}
	used := map[uint64]bool{}
	n := 0
	for _, at := range order {
		c, r := yes[at[0]], no[at[1]]
		if n == most {
			break
		}
		if slices.Equal(c.Final(), r.Final()) {
			made.equal++
			continue
		}
		made.pairs = append(made.pairs, Pair{
			Task: c.Task, Prompt: prompt, Metadata: c.Metadata, Seed: prng.Derive(p.Seed, "pair\x00"+prompt, uint64(n)),
			ChosenSeed: c.Seed, RejectedSeed: r.Seed, Chosen: c.Final(), Rejected: r.Final(),
		})
		used[c.Seed] = true
		n++
	}
	made.chosens += len(used)
}

// evenly walks both sides in step, the one shifted whenever both are back at their starts together: every image is used as
// evenly as it can be, and no combination twice.
func evenly(yes, no int) (order [][2]int) {
	period := yes * no / gcd(yes, no)
	for k := range yes * no {
		order = append(order, [2]int{k % yes, (k + k/period) % no})
	}
	return order
}

// nearest takes combinations by the number of tokens in which they differ, fewest first: what such two images share cancels
// out of the margin, and what makes the one right stays. No image is used more often than an even use of all would need, or twice.
func nearest(yes, no []Image, pairs int) (order [][2]int) {
	type combination struct {
		at     [2]int
		differ int
	}
	var all []combination
	for i, y := range yes {
		for j, n := range no {
			c := combination{at: [2]int{i, j}}
			for k, t := range y.Final() {
				if t != n.Final()[k] {
					c.differ++
				}
			}
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b combination) int { return cmp.Compare(a.differ, b.differ) })
	fewer := min(len(yes), len(no))
	most := max((pairs+fewer-1)/fewer, 2)
	usedYes, usedNo := make([]int, len(yes)), make([]int, len(no))
	for _, c := range all {
		if usedYes[c.at[0]] < most && usedNo[c.at[1]] < most {
			usedYes[c.at[0]]++
			usedNo[c.at[1]]++
			order = append(order, c.at)
		}
	}
	return order
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// card counts pairs by task; its last column is of no use here but for the number of prompts.
func (p PairData) card(made pairing) error {
	rows := balance{}
	for _, pair := range made.pairs {
		rows.add(pair.Task, pair.Prompt, true)
		rows.add(pair.Task, pair.Prompt, false)
	}
	more, wrong := "", "where it does not"
	if p.Present {
		wrong = fmt.Sprintf("where it does not, though all objects are there if the prompt asks for colours or places (%d prompts have none such)", made.absent)
	}
	if p.Balance {
		more = fmt.Sprintf(" (more where a task has fewer prompts, as long as no image is in more than %d)", usesBalanced)
	}
	return card{
		title: "Preference pairs",
		lines: []string{
			fmt.Sprintf("%d pairs, at most %d a prompt%s, seed %d; made as recipe.json says", len(made.pairs), p.PerPrompt, more, p.Seed),
			fmt.Sprintf("from %d images of %d prompts, %d images yes; %d different images are chosen ones", made.images, made.prompts, made.imagesYes, made.chosens),
			fmt.Sprintf("left out: %d prompts whose images are all yes, %d whose images are all no, %d combinations of equal images", made.allYes, made.allNo, made.equal),
			"chosen: the evaluator finds everything that the prompt asks for; rejected: another image of the prompt, " + wrong,
			use(made.pairs),
			"a row below counts two images a pair",
		},
		rows: rows.table(),
	}.write(p.Dir)
}
