package curate

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"imagecot/geneval"
	"imagecot/internal/atomicfile"
)

// card is a data card in words and numbers: README.md of the data set.
type card struct {
	title string
	lines []string
	rows  [][4]string // task, rows, yes, prompts with both labels of all
}

func (c card) write(dir string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", c.title)
	for _, l := range c.lines {
		fmt.Fprintf(&b, "- %s\n", l)
	}
	b.WriteString("\n| task | rows | yes | prompts with both labels |\n|---|---|---|---|\n")
	for _, r := range c.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r[0], r[1], r[2], r[3])
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, "README.md"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("curate: card: %w", err)
	}
	return nil
}

// asked are the columns that every kind of data set has. A card that counts reads them and its labels, not the tokens.
type asked struct {
	Task     string `parquet:"task"`
	Prompt   string `parquet:"prompt"`
	Metadata string `parquet:"metadata"`
}

// balance counts labels by task and over "all".
type balance map[string]*tally

type tally struct {
	rows, yes int
	seen      map[string][2]bool // by prompt: is there a no, and a yes
}

func (b balance) add(task, prompt string, yes bool) {
	for _, name := range []string{task, "all"} {
		t := b[name]
		if t == nil {
			t = &tally{seen: map[string][2]bool{}}
			b[name] = t
		}
		t.rows++
		s := t.seen[prompt]
		if yes {
			t.yes++
			s[1] = true
		} else {
			s[0] = true
		}
		t.seen[prompt] = s
	}
}

// table is a card's: tasks in the order of the benchmark, with a last line for all.
func (b balance) table() [][4]string {
	var out [][4]string
	for _, task := range append(geneval.Tasks(), "all") {
		t := b[task]
		if t == nil {
			continue
		}
		both := 0
		for _, s := range t.seen {
			if s[0] && s[1] {
				both++
			}
		}
		out = append(out, [4]string{
			task, fmt.Sprint(t.rows), fmt.Sprintf("%d (%.1f %%)", t.yes, 100*float64(t.yes)/float64(t.rows)), fmt.Sprintf("%d of %d", both, len(t.seen)),
		})
	}
	return out
}

// countRows goes through the rows of a data set part by part, and returns the line of its card that use makes.
func countRows[Row interface{ Scene() string }](dir string, count func(Row)) (string, error) {
	test := false
	err := eachRow(dir, func(r Row) error {
		test = test || Test(r.Scene())
		count(r)
		return nil
	})
	return useOf(test), err
}

// use is the line of a card that says what the rows may be used for.
func use[Row interface{ Scene() string }](rows []Row) string {
	return useOf(slices.ContainsFunc(rows, func(r Row) bool { return Test(r.Scene()) }))
}

func useOf(test bool) string {
	if test {
		return "there are test prompts: to measure with; training refuses these data"
	}
	return "no prompt asks for the scene of a test prompt (compared by geneval.Key)"
}
