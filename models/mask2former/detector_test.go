package mask2former

import (
	"fmt"
	"image"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"imagecot/geneval"
	"imagecot/internal/enginetest"

	"github.com/gomlx/compute"
)

func TestFitSize(t *testing.T) {
	for _, c := range [][4]int{{256, 256, 800, 800}, {512, 512, 800, 800}, {1024, 512, 1333, 667}, {640, 427, 1199, 800}, {100, 1000, 133, 1333}, {1, 9999, 1, 1333}} {
		if w, h := FitSize(c[0], c[1], longSide, shortSide); w != c[2] || h != c[3] {
			t.Errorf("%d x %d becomes %d x %d, want %d x %d", c[0], c[1], w, h, c[2], c[3])
		}
	}
}

// randomLogits of 6 queries, 5 classes, masks of 5 x 4.
func randomLogits(seed uint64) Logits {
	rng := rand.New(rand.NewPCG(seed, 0))
	l := Logits{Queries: 6, Classes: 5, Height: 5, Width: 4, Class: make([]float32, 6*6), Mask: make([]float32, 6*20)}
	for i := range l.Class {
		l.Class[i] = float32(3 * rng.NormFloat64())
	}
	for i := range l.Mask {
		l.Mask[i] = float32(2*rng.NormFloat64()) - 1
	}
	return l
}

func TestFloorLosesNothingAbove(t *testing.T) {
	f := Frame{Padded: [2]int{20, 16}, Resized: [2]int{17, 15}, Original: [2]int{23, 9}}
	for seed := range uint64(50) {
		l := randomLogits(seed)
		all, err := l.Instances(f, 100, 0)
		if err != nil {
			t.Fatal(err)
		}
		some, err := l.Instances(f, 100, .3)
		if err != nil {
			t.Fatal(err)
		}
		low := func(in Instance) bool { return in.Score <= .3 }
		all, some = slices.DeleteFunc(all, low), slices.DeleteFunc(some, low)
		if len(all) == 0 && seed == 0 {
			t.Error("no instance is above the floor: the test sees nothing")
		}
		if fmt.Sprint(all) != fmt.Sprint(some) {
			t.Errorf("seed %d: %d instances above the floor without it, %d with it", seed, len(all), len(some))
		}
	}
}

func TestInstancesHoldTheirMasks(t *testing.T) {
	f := Frame{Padded: [2]int{20, 16}, Resized: [2]int{20, 16}, Original: [2]int{31, 40}}
	found, err := randomLogits(7).Instances(f, 3, 0)
	if err != nil || len(found) != 3 {
		t.Fatalf("%d instances, %v", len(found), err)
	}
	for i, in := range found {
		if i > 0 && in.Prob > found[i-1].Prob {
			t.Errorf("instance %d is more probable than the one before", i)
		}
		if in.Score > in.Prob || len(in.Mask) != 31*40 {
			t.Errorf("instance %d: score %g of %g, mask of %d", i, in.Score, in.Prob, len(in.Mask))
		}
		for at, covered := range in.Mask {
			x, y := float32(at%40), float32(at/40)
			if covered && (x < in.Box[0] || y < in.Box[1] || x >= in.Box[2] || y >= in.Box[3]) {
				t.Fatalf("instance %d covers %g, %g outside of %v", i, x, y, in.Box)
			}
		}
	}
	if _, err := (Logits{Queries: 1, Classes: 1}).Instances(f, 1, 0); err == nil {
		t.Error("logits of the wrong size are no error")
	}
}

func TestDetectorOfAFolder(t *testing.T) {
	var labels []string
	for i, name := range geneval.Classes() {
		labels = append(labels, fmt.Sprintf(`"%d":"%s"`, i, name))
	}
	ours, _ := write(t, random(small()))
	theirs, _ := write(t, mmdetection(random(small()), small()))
	for _, dir := range []string{ours, theirs} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), fmt.Appendf(nil, smallConfig, strings.Join(labels, ",")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	img := image.NewRGBA(image.Rect(0, 0, 45, 31))
	for i := range img.Pix {
		img.Pix[i] = uint8(i * i / 7)
	}
	o := Options{Classes: geneval.Classes(), Short: 40, Long: 64}
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		a, err := OpenDetector(be, ours, o)
		if err != nil {
			t.Fatal(err)
		}
		b, err := OpenDetector(be, theirs, o)
		if err != nil {
			t.Fatal(err)
		}
		first, err := a.Detect(t.Context(), img, geneval.Classes())
		if err != nil {
			t.Fatal(err)
		}
		second, err := b.Detect(t.Context(), img, geneval.Classes())
		if err != nil {
			t.Fatal(err)
		}
		if len(first) != limit || !reflect.DeepEqual(first, second) {
			t.Errorf("%d and %d objects of equal weights", len(first), len(second))
		}
		for _, d := range first {
			if d.Mask.Rect != img.Rect || !slices.Contains(geneval.Classes(), d.Class) {
				t.Fatalf("%s with a mask of %v", d.Class, d.Mask.Rect)
			}
		}
		only, err := a.Detect(t.Context(), img, []string{first[0].Class})
		if err != nil || len(only) == 0 || slices.ContainsFunc(only, func(d geneval.Detection) bool { return d.Class != first[0].Class }) {
			t.Errorf("asked for one class: %d objects, %v", len(only), err)
		}
	})
	be := enginetest.Go(t)
	if _, err := OpenDetector(be, t.TempDir(), o); err == nil {
		t.Error("an empty folder is no error")
	}
	o.Classes = o.Classes[1:]
	if _, err := OpenDetector(be, ours, o); err == nil {
		t.Error("79 names for 80 classes are no error")
	}
}
