package train

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"golang.org/x/term"
)

// Meter tells a person how a run gets on: after two timed steps what the whole will take, then a line that is redrawn
// on a terminal, or a plain line every 15 seconds elsewhere.
type Meter struct {
	show     io.Writer
	terminal bool
	total    int
	seconds  float64 // moving average of a step
	steps    int     // seen so far
	last     time.Time
	spoke    time.Time
	figures  string
	now      func() time.Time
}

// How often a plain line is written, how often the terminal's line is redrawn, and how many steps are timed before the
// run is estimated; the step before those compiles.
const (
	plainEvery  = 15 * time.Second
	redrawEvery = 200 * time.Millisecond
	warmUpSteps = 2
)

// NewMeter writes to show about a run of total steps.
func NewMeter(show io.Writer, total int) *Meter {
	f, ok := show.(*os.File)
	ok = ok && term.IsTerminal(int(f.Fd())) && os.Getenv("CI") == "" && os.Getenv("TERM") != "dumb"
	return &Meter{show: show, terminal: ok, total: total, now: time.Now, last: time.Now()}
}

// Begin says what is going to be trained.
func (m *Meter) Begin(l *Loop) {
	weights, bytes := l.Size()
	fmt.Fprintf(m.show, "%s: steps %d to %d, %d weights, %s with the optimiser's state (twice that at the peak); compiling\n",
		l.Recipe.Name, l.Step()+1, m.total, weights, mebibytes(bytes))
}

// Scalars implements Scalars: the figures are shown with the next line.
func (m *Meter) Scalars(_ int, values map[string]float64) error {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if k != "seconds_per_step" {
			fmt.Fprintf(&b, " %s %.4g", k, values[k])
		}
	}
	m.figures = b.String()
	return nil
}

// Stepped is called when a step is done.
func (m *Meter) Stepped(step int) {
	now := m.now()
	took := now.Sub(m.last).Seconds()
	m.last = now
	m.steps++
	switch {
	case m.steps == 1: // compilation
		return
	case m.steps == 2:
		m.seconds = took
	default:
		m.seconds += (took - m.seconds) * max(.02, 1/float64(m.steps-1))
	}
	if m.steps == warmUpSteps+1 {
		fmt.Fprintf(m.show, "about %s for %d steps of %.3g s; the process holds %s\n", m.left(step), m.total-step, m.seconds, mebibytes(resident()))
		m.spoke = now
		return
	}
	pause := plainEvery
	if m.terminal {
		pause = redrawEvery
	}
	if m.steps <= warmUpSteps || (step < m.total && now.Sub(m.spoke) < pause) {
		return
	}
	m.spoke = now
	m.line(step)
}

func (m *Meter) line(step int) {
	text := fmt.Sprintf("step %d/%d, %.3g s a step, %s left%s", step, m.total, m.seconds, m.left(step), m.figures)
	if !m.terminal {
		fmt.Fprintln(m.show, text)
		return
	}
	const width = 20
	done := width * step / m.total
	fmt.Fprintf(m.show, "\r[%s%s] %s\x1b[K", strings.Repeat("=", done), strings.Repeat(" ", width-done), text)
	if step == m.total {
		fmt.Fprintln(m.show)
	}
}

func (m *Meter) left(step int) time.Duration {
	return time.Duration(float64(m.total-step) * m.seconds * float64(time.Second)).Round(time.Second)
}

// Size is the number of weights, and the bytes of weights and optimiser state.
func (l *Loop) Size() (weights int, bytes uint64) {
	for _, t := range l.params {
		weights += t.Shape().Size()
		bytes += uint64(t.Shape().ByteSize())
	}
	for _, t := range l.state {
		bytes += uint64(t.Shape().ByteSize())
	}
	return weights, bytes
}

// resident is the memory of this process, 0 if the system does not tell.
func resident() uint64 {
	p, err := process.NewProcess(int32(os.Getpid()))
	if err != nil {
		return 0
	}
	info, err := p.MemoryInfo()
	if err != nil {
		return 0
	}
	return info.RSS
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
