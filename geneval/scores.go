package geneval

import (
	"errors"
	"fmt"
	"strings"

	"imagecot/internal/stats"
)

// Replicates is the number of bootstrap replicates behind every interval.
const Replicates = 2000

// bootstrapSeed is fixed: the same results file has the same intervals.
const bootstrapSeed = 2310_11513

// Scores are the benchmark's numbers with 95 % intervals. The images of one prompt are correlated, so the bootstrap
// resamples prompts, within each task. A task whose prompts all came out alike (8 of 8) has no spread to resample; its
// interval is Jeffreys', with as many trials as prompts, and goes into the overall one.
type Scores struct {
	Images     int            `json:"images"`
	Prompts    int            `json:"prompts"`
	ImageRate  float64        `json:"image_rate"`  // share of correct images
	PromptRate float64        `json:"prompt_rate"` // share of prompts with at least one correct image
	Tasks      []TaskScore    `json:"tasks"`       // in order of first appearance
	Overall    float64        `json:"overall"`     // plain mean of the task scores
	CI95       stats.Interval `json:"ci95"`
}

// TaskScore is one task's share of correct images.
type TaskScore struct {
	Tag     string         `json:"tag"`
	Correct int            `json:"correct"`
	N       int            `json:"n"` // images
	Prompts int            `json:"prompts"`
	Score   float64        `json:"score"`
	CI95    stats.Interval `json:"ci95"`
}

// Task is the score of one task, and whether the results hold any of it.
func (s Scores) Task(tag string) (TaskScore, bool) {
	for _, t := range s.Tasks {
		if t.Tag == tag {
			return t, true
		}
	}
	return TaskScore{}, false
}

// tally counts one prompt's images.
type tally struct{ correct, n int }

// task gathers the prompts of one tag, in order of first appearance.
type task struct {
	tag     string
	keys    []string // metadata strings
	tallies []tally  // parallel to keys
	index   map[string]int
}

func gather(rows []Row) []*task {
	var tasks []*task
	byTag := map[string]*task{}
	for _, r := range rows {
		t := byTag[r.Tag]
		if t == nil {
			t = &task{tag: r.Tag, index: map[string]int{}}
			byTag[r.Tag] = t
			tasks = append(tasks, t)
		}
		i, ok := t.index[r.Metadata]
		if !ok {
			i = len(t.keys)
			t.index[r.Metadata] = i
			t.keys = append(t.keys, r.Metadata)
			t.tallies = append(t.tallies, tally{})
		}
		t.tallies[i].n++
		if r.Correct {
			t.tallies[i].correct++
		}
	}
	return tasks
}

// Score adds up a results file. No rows is an error.
func Score(rows []Row) (Scores, error) {
	if len(rows) == 0 {
		return Scores{}, errors.New("geneval: score: no images")
	}
	tasks := gather(rows)
	s := Scores{Images: len(rows)}
	var correct, solved int
	sizes := make([]int, len(tasks))
	for i, t := range tasks {
		ts := TaskScore{Tag: t.tag, Prompts: len(t.keys)}
		for _, p := range t.tallies {
			ts.Correct += p.correct
			ts.N += p.n
			if p.correct > 0 {
				solved++
			}
		}
		ts.Score = float64(ts.Correct) / float64(ts.N)
		correct += ts.Correct
		s.Prompts += len(t.keys)
		s.Overall += ts.Score
		s.Tasks = append(s.Tasks, ts)
		sizes[i] = len(t.keys)
	}
	s.Overall /= float64(len(tasks))
	s.ImageRate = float64(correct) / float64(len(rows))
	s.PromptRate = float64(solved) / float64(s.Prompts)
	values := stats.Bootstrap(sizes, Replicates, len(tasks)+1, bootstrapSeed, func(pick [][]int, out []float64) {
		out[len(tasks)] = 0
		for i, t := range tasks {
			out[i] = rate(t.tallies, pick[i])
			out[len(tasks)] += out[i] / float64(len(tasks))
		}
	})
	for i, t := range tasks {
		if constant(len(t.tallies), func(p int) float64 { return rate(t.tallies, []int{p}) }) {
			spread(values, i, stats.ConstantRate(s.Tasks[i].Score, len(t.tallies), Replicates, bootstrapSeed+uint64(i)))
		}
		s.Tasks[i].CI95 = stats.Percentile(values[i], .95).Around(s.Tasks[i].Score)
	}
	s.CI95 = stats.Percentile(values[len(tasks)], .95).Around(s.Overall)
	return s, nil
}

// constant reports whether all n prompts have one value.
func constant(n int, value func(prompt int) float64) bool {
	first := value(0)
	for p := 1; p < n; p++ {
		if value(p) != first {
			return false
		}
	}
	return true
}

// spread puts draws in the place of a task's replicates, and their share into the mean over tasks, which comes last.
func spread(values [][]float64, task int, draws []float64) {
	tasks := len(values) - 1
	for r, v := range draws {
		values[tasks][r] += (v - values[task][r]) / float64(tasks)
		values[task][r] = v
	}
}

// rate is the share of correct images of the picked prompts.
func rate(tallies []tally, pick []int) float64 {
	var sum tally
	for _, i := range pick {
		sum.correct += tallies[i].correct
		sum.n += tallies[i].n
	}
	return float64(sum.correct) / float64(sum.n)
}

// Summary is the original's print-out, byte for byte.
func (s Scores) Summary() string {
	var b strings.Builder
	b.WriteString("Summary\n=======\n")
	fmt.Fprintf(&b, "Total images: %d\n", s.Images)
	fmt.Fprintf(&b, "Total prompts: %d\n", s.Prompts)
	fmt.Fprintf(&b, "%% correct images: %.2f%%\n", 100*s.ImageRate)
	fmt.Fprintf(&b, "%% correct prompts: %.2f%%\n\n", 100*s.PromptRate)
	b.WriteString("Task breakdown\n==============\n")
	for _, t := range s.Tasks {
		fmt.Fprintf(&b, "%-16s = %.2f%% (%d / %d)\n", t.Tag, 100*t.Score, t.Correct, t.N)
	}
	fmt.Fprintf(&b, "\nOverall score (avg. over tasks): %.5f\n", s.Overall)
	return b.String()
}

// Difference is the paired comparison of two runs, B minus A, over the prompts that both hold.
type Difference struct {
	Tasks   []TaskDifference `json:"tasks"` // in A's order
	OnlyA   int              `json:"only_a"`
	OnlyB   int              `json:"only_b"` // prompts left out because the other run lacks them
	Overall Delta            `json:"overall"`
}

// TaskDifference is the comparison of one task.
type TaskDifference struct {
	Tag     string `json:"tag"`
	Prompts int    `json:"prompts"`
	Delta
}

// Delta is one number of two runs: both values, their difference, its 95 % bootstrap interval over prompts, and the
// two-sided bootstrap p-value against no difference.
type Delta struct {
	A    float64        `json:"a"`
	B    float64        `json:"b"`
	Diff float64        `json:"diff"`
	CI95 stats.Interval `json:"ci95"`
	P    float64        `json:"p"`
}

// Compare pairs two runs prompt by prompt (equal metadata strings) and bootstraps the difference of the scores by
// resampling shared prompts within tasks. No shared prompt is an error.
func Compare(a, b []Row) (Difference, error) {
	inB := map[string]*task{}
	for _, t := range gather(b) {
		inB[t.tag] = t
	}
	var d Difference
	var pairs [][2][]tally // a task: tallies of A and of B, parallel
	shared := 0
	for _, ta := range gather(a) {
		tb := inB[ta.tag]
		var pair [2][]tally
		for i, key := range ta.keys {
			j, ok := 0, false
			if tb != nil {
				j, ok = tb.index[key]
			}
			if !ok {
				d.OnlyA++
				continue
			}
			pair[0] = append(pair[0], ta.tallies[i])
			pair[1] = append(pair[1], tb.tallies[j])
		}
		if n := len(pair[0]); n > 0 {
			shared += n
			pairs = append(pairs, pair)
			d.Tasks = append(d.Tasks, TaskDifference{Tag: ta.tag, Prompts: n})
		}
	}
	if shared == 0 {
		return Difference{}, errors.New("geneval: compare: the two runs share no prompt")
	}
	for _, tb := range inB {
		d.OnlyB += len(tb.keys)
	}
	d.OnlyB -= shared
	d.bootstrap(pairs)
	return d, nil
}

// bootstrap fills in the numbers of each task and overall.
func (d *Difference) bootstrap(pairs [][2][]tally) {
	sizes := make([]int, len(pairs))
	whole := make([][]int, len(pairs))
	for i, pair := range pairs {
		sizes[i] = len(pair[0])
		for p := range pair[0] {
			whole[i] = append(whole[i], p)
		}
	}
	values := stats.Bootstrap(sizes, Replicates, len(pairs)+1, bootstrapSeed, func(pick [][]int, out []float64) {
		out[len(pairs)] = 0
		for i, pair := range pairs {
			out[i] = rate(pair[1], pick[i]) - rate(pair[0], pick[i])
			out[len(pairs)] += out[i] / float64(len(pairs))
		}
	})
	overall := stats.TwoSided(values[len(pairs)])
	for i, pair := range pairs {
		p := stats.TwoSided(values[i])
		if n := len(pair[0]); constant(n, func(p int) float64 { return rate(pair[1], []int{p}) - rate(pair[0], []int{p}) }) {
			spread(values, i, stats.ConstantDifference(values[i][0], n, Replicates, bootstrapSeed+uint64(i)))
		}
		delta := newDelta(rate(pair[0], whole[i]), rate(pair[1], whole[i]), values[i], p)
		d.Tasks[i].Delta = delta
		d.Overall.A += delta.A / float64(len(pairs))
		d.Overall.B += delta.B / float64(len(pairs))
	}
	d.Overall = newDelta(d.Overall.A, d.Overall.B, values[len(pairs)], overall)
}

// newDelta takes the larger of the p-values before and after constant tasks were spread.
func newDelta(a, b float64, values []float64, p float64) Delta {
	return Delta{A: a, B: b, Diff: b - a, CI95: stats.Percentile(values, .95).Around(b - a), P: max(p, stats.TwoSided(values))}
}
