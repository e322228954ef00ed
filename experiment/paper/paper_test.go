package paper

import (
	"math"
	"strings"
	"testing"

	"imagecot/internal/stats"
)

// The paper's overall scores are the means of its six tasks, but for a hundredth or two: a number copied into the wrong
// column would show.
func TestNumbersAddUp(t *testing.T) {
	n := 0
	for name, s := range numbers() {
		var sum float64
		for _, v := range s.Tasks {
			if v == nil {
				sum = math.NaN()
				break
			}
			sum += *v / 6
		}
		if n++; !math.IsNaN(sum) && math.Abs(sum-s.Overall) > .021 {
			t.Errorf("%s: mean of tasks %.3f, overall %.2f", name, sum, s.Overall)
		}
	}
	if n != 43 {
		t.Errorf("%d rows, want 43", n)
	}
	if s, ok := Number("table1/orm"); !ok || s.Overall != .63 || *s.Tasks[1] != .72 {
		t.Errorf("the fine-tuned ORM: %+v", s)
	}
}

// Every comparison has one condition, and the paper's own numbers agree with the paper's claims, but where they are
// known not to.
func TestClaimsAreWellFormed(t *testing.T) {
	for _, c := range Claims() {
		if c.Claim == "" || c.Source == "" || (c.Untested == "") == (len(c.All)+len(c.Any) == 0) {
			t.Errorf("%+v", c)
		}
		for _, x := range append(c.All, c.Any...) {
			conditions := 0
			for _, set := range []bool{x.MoreThan != nil, x.AtLeast != nil, x.Equal != nil, x.Reaches} {
				if set {
					conditions++
				}
			}
			if conditions != 1 {
				t.Errorf("%s: %s and %s have %d conditions", c.Claim, x.A, x.B, conditions)
			}
			if d, ok := x.Paper(); ok && x.Judge(stats.Interval{d, d}, 0) != Holds {
				t.Errorf("%s: the paper's own difference of %s and %s is %.2f", c.Claim, x.A, x.B, d)
			}
		}
	}
}

func TestJudge(t *testing.T) {
	half := .5
	zero, five := 0.0, .05
	for _, c := range []struct {
		c     Comparison
		ci    stats.Interval
		steps float64
		want  Verdict
	}{
		{Comparison{MoreThan: &zero}, stats.Interval{.01, .2}, 1, Holds},
		{Comparison{MoreThan: &zero}, stats.Interval{0, .2}, 1, CannotTell},
		{Comparison{MoreThan: &zero}, stats.Interval{-.1, 0}, 1, DoesNot},
		{Comparison{AtLeast: &five}, stats.Interval{.05, .2}, 1, Holds},
		{Comparison{AtLeast: &five}, stats.Interval{.02, .2}, 1, CannotTell},
		{Comparison{AtLeast: &five}, stats.Interval{-.02, .04}, 1, DoesNot},
		{Comparison{Equal: &five}, stats.Interval{-.02, .04}, 1, Holds},
		{Comparison{Equal: &five}, stats.Interval{-.02, .07}, 1, CannotTell},
		{Comparison{Equal: &five}, stats.Interval{.06, .07}, 1, DoesNot},
		{Comparison{Reaches: true}, stats.Interval{-.3, .01}, 1, Holds},
		{Comparison{Reaches: true}, stats.Interval{-.3, -.01}, 1, DoesNot},
		{Comparison{Reaches: true, Steps: &half}, stats.Interval{-.1, .1}, .4, Holds},
		{Comparison{Reaches: true, Steps: &half}, stats.Interval{-.1, .1}, .6, DoesNot},
		{Comparison{MoreThan: &zero}, stats.Interval{math.NaN(), math.NaN()}, 1, CannotTell},
	} {
		if got := c.c.Judge(c.ci, c.steps); got != c.want {
			t.Errorf("%s, %v, steps %v: %s, want %s", c.c.Condition(), c.ci, c.steps, got, c.want)
		}
	}
}

func TestTogether(t *testing.T) {
	h, d, q := Holds, DoesNot, CannotTell
	for _, c := range []struct {
		all, any []Verdict
		want     Verdict
	}{
		{[]Verdict{h, h}, nil, h},
		{[]Verdict{h, q}, nil, q},
		{[]Verdict{q, d}, nil, d},
		{nil, []Verdict{d, h}, h},
		{nil, []Verdict{d, q}, q},
		{nil, []Verdict{d, d}, d},
	} {
		if got := (Claim{}).Together(c.all, c.any); got != c.want {
			t.Errorf("all %v, any %v: %s, want %s", c.all, c.any, got, c.want)
		}
	}
	if got := (Claim{Untested: "x"}).Together(nil, nil); got != q {
		t.Errorf("untested: %s", got)
	}
}

func TestInconsistencies(t *testing.T) {
	for table, want := range map[string]string{"table3": "guided-parm (0.69, mean 0.703), parm-on-iterdpo (0.74, mean 0.750).", "table4": "llamagen-parm (0.46, mean 0.447)."} {
		if list := Inconsistencies(table); !strings.HasSuffix(list[len(list)-1].Text, want) {
			t.Errorf("%s: %+v, want %q", table, list, want)
		}
	}
	if all, some := Inconsistencies(), Inconsistencies("table3"); len(some) != 3 || len(all) <= len(some) {
		t.Errorf("%d, %d of table 3", len(all), len(some))
	}
}
