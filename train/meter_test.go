package train

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// A run of 100 steps: the first takes 30 s (it compiles), the others 2 s.
func TestMeterEstimatesFromStepsAfterCompilation(t *testing.T) {
	var out bytes.Buffer
	clock := time.Unix(0, 0)
	m := NewMeter(&out, 100)
	m.last, m.now = clock, func() time.Time { return clock }
	_ = m.Scalars(1, map[string]float64{"loss": .5, "seconds_per_step": 9})
	for step := 1; step <= 100; step++ {
		clock = clock.Add(2 * time.Second)
		if step == 1 {
			clock = clock.Add(28 * time.Second)
		}
		m.Stepped(step)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if !strings.HasPrefix(lines[0], "about 3m14s for 97 steps of 2 s") {
		t.Errorf("estimate: %q", lines[0])
	}
	if want := "step 11/100, 2 s a step, 2m58s left loss 0.5"; lines[1] != want {
		t.Errorf("after 16 s: %q, want %q", lines[1], want)
	}
	if got := lines[len(lines)-1]; !strings.HasPrefix(got, "step 100/100, 2 s a step, 0s left") {
		t.Errorf("last line %q", got)
	}
	if len(lines) != 14 { // estimate, every eighth step from 11 to 99, the last
		t.Errorf("%d lines", len(lines))
	}
}

func TestMeterRedrawsOneLineOnATerminal(t *testing.T) {
	var out bytes.Buffer
	clock := time.Unix(0, 0)
	m := NewMeter(&out, 8)
	m.terminal, m.last, m.now = true, clock, func() time.Time { return clock }
	for step := 1; step <= 8; step++ {
		clock = clock.Add(time.Second)
		m.Stepped(step)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 { // the estimate, and the end
		t.Errorf("%d lines in %q", n, out.String())
	}
	if !strings.Contains(out.String(), "\r[==========          ] step 4/8") {
		t.Errorf("no bar in %q", out.String())
	}
}
