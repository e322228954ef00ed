package parity

import (
	"encoding/json"
	"fmt"
	"math"
	"path"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/gomlx/gomlx/core/tensors"
)

// tolerance of one output: |got - want| <= atol + rtol |want|. Both are 0 for "exact". Up to the share loose of the
// values may instead differ by at most step, or up to perMask values of each mask (the last two axes) by anything.
type tolerance struct {
	Atol float64 `json:"atol"`
	Rtol float64 `json:"rtol"`

	step, loose float64
	perMask     int
}

func (t tolerance) String() string {
	switch {
	case t.perMask > 0:
		return fmt.Sprintf("%d pixels a mask", t.perMask)
	case t.loose > 0 && math.IsInf(t.step, 1):
		return fmt.Sprintf("%g %% of the values", 100*t.loose)
	case t.loose > 0:
		return fmt.Sprintf("%g for %g %% of the values", t.step, 100*t.loose)
	case t.Atol == 0 && t.Rtol == 0:
		return "exact"
	case t.Rtol == 0:
		return fmt.Sprintf("%g", t.Atol)
	}
	return fmt.Sprintf("%g + %g rel", t.Atol, t.Rtol)
}

// tolerances by output name or pattern (path.Match); "*" holds the one that is given for the whole case.
type tolerances map[string]tolerance

func parseTolerances(raw json.RawMessage) (tolerances, error) {
	out := tolerances{}
	if len(raw) == 0 {
		return out, nil
	}
	entries := map[string]json.RawMessage{"*": raw}
	if raw[0] == '{' {
		entries = nil
		if err := json.Unmarshal(raw, &entries); err != nil {
			return nil, fmt.Errorf("tolerance: %w", err)
		}
	}
	for name, text := range entries {
		t, err := parseTolerance(text)
		if err != nil {
			return nil, fmt.Errorf("tolerance of %q: %w", name, err)
		}
		out[name] = t
	}
	return out, nil
}

// The ways in which a tolerance is given in words.
var (
	looseWords = regexp.MustCompile(`difference of ([0-9.]+) in at most ([0-9.]+) % of the values`)
	shareWords = regexp.MustCompile(`at most ([0-9.]+) % of the (?:pixels|values) may differ`)
	maskWords  = regexp.MustCompile(`at most ([0-9]+) pixels? a mask may differ`)
)

func parseTolerance(raw json.RawMessage) (t tolerance, err error) {
	var words string
	if json.Unmarshal(raw, &words) != nil {
		if err = json.Unmarshal(raw, &t); err == nil && !(t.Atol >= 0 && t.Rtol >= 0) {
			err = fmt.Errorf("%s is negative", raw)
		}
		return t, err
	}
	if m := looseWords.FindStringSubmatch(words); m != nil {
		if t.step, err = strconv.ParseFloat(m[1], 64); err != nil {
			return t, err
		}
		t.loose, err = strconv.ParseFloat(m[2], 64)
		t.loose /= 100
		return t, err
	}
	if m := shareWords.FindStringSubmatch(words); m != nil {
		t.step = math.Inf(1)
		t.loose, err = strconv.ParseFloat(m[1], 64)
		t.loose /= 100
		return t, err
	}
	if m := maskWords.FindStringSubmatch(words); m != nil {
		t.perMask, err = strconv.Atoi(m[1])
		return t, err
	}
	if words != "exact" {
		err = fmt.Errorf("%q is neither exact nor a number", words)
	}
	return t, err
}

// of an output: its full name, its name without "out.", then the patterns in ascending order, then exact.
func (all tolerances) of(name string) tolerance {
	short := strings.TrimPrefix(name, "out.")
	for _, key := range []string{name, short} {
		if t, ok := all[key]; ok {
			return t
		}
	}
	patterns := make([]string, 0, len(all))
	for pattern := range all {
		if strings.Contains(pattern, "*") {
			patterns = append(patterns, pattern)
		}
	}
	sort.Strings(patterns)
	for _, pattern := range patterns {
		for _, key := range []string{name, short} {
			if ok, err := path.Match(pattern, key); err == nil && ok {
				return all[pattern]
			}
		}
	}
	return tolerance{}
}

// hasTolerance reports whether the case says how close an intermediate result should come.
func (c *Case) hasTolerance(name string) bool { return c.tolerance.of(name) != tolerance{} }

// Compare compares a computed output with the tensor of that full name (out.x or mid.x) in io.safetensors. got is a
// number, a flat row-major slice of numbers or bools, or an engine tensor. It returns whether this comparison is within
// the tolerance; the case remembers it.
func (c *Case) Compare(name string, got any) bool {
	want, err := c.want(name)
	if err != nil {
		return c.fail(name, err.Error())
	}
	return c.CompareWith(name, got, want)
}

// CompareWith is Compare for an expected value that lies elsewhere, for example in params or cases.jsonl. Several
// comparisons under one name make one output of the report.
func (c *Case) CompareWith(name string, got, want any) bool {
	g, err := numbers(got)
	if err != nil {
		return c.fail(name, "got: "+err.Error())
	}
	w, err := numbers(want)
	if err != nil {
		return c.fail(name, "want: "+err.Error())
	}
	if len(g) != len(w) {
		return c.fail(name, fmt.Sprintf("%d values, want %d", len(g), len(w)))
	}
	return c.compare(name, g, w)
}

// CompareExact compares anything by reflect.DeepEqual: texts, id lists, whole structures. label says which item this is.
func (c *Case) CompareExact(name, label string, got, want any) bool {
	o := c.result(name)
	o.Values++
	if reflect.DeepEqual(got, want) {
		return true
	}
	return o.differs(1, fmt.Sprintf("%s: %s, want %s", label, shorten(got), shorten(want)))
}

// Check records one condition that was tested elsewhere, with what to say if it does not hold.
func (c *Case) Check(name string, ok bool, format string, args ...any) bool {
	o := c.result(name)
	o.Values++
	if ok {
		return true
	}
	return o.differs(1, fmt.Sprintf(format, args...))
}

func shorten(v any) string {
	s := fmt.Sprintf("%#v", v)
	if len(s) > 160 {
		s = s[:160] + ".."
	}
	return s
}

func (c *Case) compare(name string, got, want []float64) bool {
	t := c.tolerance.of(name)
	o := c.result(name)
	o.Values += len(want)
	first, outside, beyondStep := -1, 0, 0
	perMask := map[int]int{}
	mask := c.maskSize(name)
	for i, w := range want {
		g := got[i]
		if g == w || math.IsNaN(g) && math.IsNaN(w) {
			continue
		}
		d := math.Abs(g - w)
		if math.IsNaN(d) || math.IsInf(d, 0) {
			d = math.MaxFloat64
		}
		o.MaxAbs = max(o.MaxAbs, d)
		if rel := d / math.Abs(w); w != 0 && !math.IsInf(rel, 0) && !math.IsNaN(rel) {
			o.MaxRel = max(o.MaxRel, rel)
		}
		if d <= t.Atol+t.Rtol*math.Abs(w) && !math.IsInf(w, 0) {
			continue
		}
		outside++
		perMask[i/mask]++
		if d > t.step {
			beyondStep++
		}
		if first < 0 {
			first = i
		}
	}
	worst := 0
	for _, n := range perMask {
		worst = max(worst, n)
	}
	if worst <= t.perMask || t.loose > 0 && beyondStep == 0 && float64(outside) <= t.loose*float64(len(want)) {
		return true
	}
	return o.differs(outside, fmt.Sprintf("%d of %d values, first at %d: %v, want %v", outside, len(want), first, got[first], want[first]))
}

// maskSize is the number of values of the last two axes of an expected output.
func (c *Case) maskSize(name string) int {
	n, shape := 1, c.Shape(name)
	for _, d := range shape[max(0, len(shape)-2):] {
		n *= max(d, 1)
	}
	return n
}

// fail records that an output could not be compared.
func (c *Case) fail(name, detail string) bool { return c.result(name).differs(0, detail) }

func (o *Output) differs(n int, detail string) bool {
	o.Differing += n
	if o.OK {
		o.OK, o.Detail = false, detail
	}
	return false
}

func (c *Case) result(name string) *Output {
	o := c.results[name]
	if o == nil {
		o = &Output{Name: name, Tolerance: c.tolerance.of(name).String(), OK: true}
		c.results[name] = o
	}
	return o
}

// outputs lists what was compared, and as failures the expected outputs that no runner compared.
func (c *Case) outputs() []Output {
	for _, name := range c.Names("out.") {
		if c.results[name] == nil {
			c.fail(name, "expected, but not compared")
		}
	}
	all := make([]Output, 0, len(c.results))
	for _, o := range c.results {
		all = append(all, *o)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

func (c *Case) want(name string) (any, error) {
	info, ok := c.IO.Info(name)
	switch {
	case !ok:
		return nil, fmt.Errorf("io.safetensors holds no %s", name)
	case info.DType.IsFloat():
		return c.IO.Float64(name)
	case info.DType == "U8" || info.DType == "BOOL":
		return c.IO.U8(name)
	}
	return c.IO.Int64(name)
}

// numbers flattens a number, a slice of numbers or bools, or an engine tensor.
func numbers(v any) ([]float64, error) {
	switch v := v.(type) {
	case []float64:
		return append([]float64(nil), v...), nil
	case *tensors.Tensor:
		var out []float64
		var inner error
		err := v.ConstFlatData(func(flat any) { out, inner = numbers(flat) })
		if err == nil {
			err = inner
		}
		return out, err
	}
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Slice {
		x, err := number(r)
		return []float64{x}, err
	}
	out := make([]float64, r.Len())
	for i := range out {
		var err error
		if out[i], err = number(r.Index(i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func number(r reflect.Value) (float64, error) {
	switch {
	case r.IsValid() && r.CanFloat():
		return r.Float(), nil
	case r.IsValid() && r.CanInt():
		return float64(r.Int()), nil
	case r.IsValid() && r.CanUint():
		return float64(r.Uint()), nil
	case r.IsValid() && r.Kind() == reflect.Bool:
		if r.Bool() {
			return 1, nil
		}
		return 0, nil
	}
	return 0, fmt.Errorf("%v is no number", r)
}
