package mask2former

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Frame says what mask logits cover, in pixels {height, width}: they cover the padded input, of which the picture after
// resizing is the upper left part; masks are wanted at the picture's original size.
type Frame struct{ Padded, Resized, Original [2]int }

// Instance is one detected object.
type Instance struct {
	Query, Label int
	Prob         float32    // of the class
	Score        float32    // Prob times the mean probability of the mask's pixels
	Box          [4]float32 // x1, y1, x2, y2, the last two exclusive; zeros for an empty mask
	Mask         []bool     // original height x width, row by row
}

// Logits are the model's answer for one picture.
type Logits struct {
	Queries, Classes int
	Class            []float32 // [queries, classes + 1], the last class is "no object"
	Mask             []float32 // [queries, Height, Width]
	Height, Width    int
}

// Instances are the most probable pairs of query and class, at most limit of them, those with a probability above floor
// only, best first (mmdetection's instance post-processing). A query may come under several classes. Since a score is at
// most its probability, nothing with a score above floor is lost.
func (l Logits) Instances(f Frame, limit int, floor float32) ([]Instance, error) {
	if len(l.Class) != l.Queries*(l.Classes+1) || len(l.Mask) != l.Queries*l.Height*l.Width {
		return nil, fmt.Errorf("mask2former: %d class and %d mask logits for %d queries, %d classes, %d x %d", len(l.Class), len(l.Mask), l.Queries, l.Classes, l.Height, l.Width)
	}
	var all []Instance
	for q := range l.Queries {
		for label, p := range softmax(l.Class[q*(l.Classes+1):][:l.Classes+1])[:l.Classes] {
			if p > floor {
				all = append(all, Instance{Query: q, Label: label, Prob: p})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Instance) int { return cmp.Compare(b.Prob, a.Prob) })
	all = all[:min(len(all), limit)]
	masks := map[int][]float32{}
	for i := range all {
		q := all[i].Query
		if masks[q] == nil {
			masks[q] = l.OriginalMask(q, f)
		}
		all[i].outline(masks[q], f.Original[1])
	}
	return all, nil
}

// OriginalMask is a query's mask logits at the picture's original size: resized to the padded size, cut, resized again.
func (l Logits) OriginalMask(query int, f Frame) []float32 {
	n := l.Height * l.Width
	padded := Bilinear(l.Mask[query*n:][:n], l.Height, l.Width, f.Padded[0], f.Padded[1])
	h, w := f.Resized[0], f.Resized[1]
	var cut []float32
	for y := range h {
		cut = append(cut, padded[y*f.Padded[1]:][:w]...)
	}
	return Bilinear(cut, h, w, f.Original[0], f.Original[1])
}

// outline fills in mask, box and score.
func (in *Instance) outline(logits []float32, width int) {
	in.Mask = make([]bool, len(logits))
	left, top, right, bottom := math.MaxInt, math.MaxInt, 0, 0
	sum, area := 0., 0.
	for i, v := range logits {
		if !(v > 0) {
			continue
		}
		in.Mask[i] = true
		x, y := i%width, i/width
		left, top, right, bottom = min(left, x), min(top, y), max(right, x+1), max(bottom, y+1)
		sum += 1 / (1 + math.Exp(-float64(v)))
		area++
	}
	in.Score = in.Prob * float32(sum/(area+1e-6))
	if area > 0 {
		in.Box = [4]float32{float32(left), float32(top), float32(right), float32(bottom)}
	}
}

func softmax(logits []float32) []float32 {
	top := slices.Max(logits)
	out := make([]float32, len(logits))
	sum := 0.
	for _, v := range logits {
		sum += math.Exp(float64(v - top))
	}
	for i, v := range logits {
		out[i] = float32(math.Exp(float64(v-top)) / sum)
	}
	return out
}
