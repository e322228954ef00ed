package objective

import (
	"math"
	"slices"
	"strings"
	"testing"

	"imagecot/internal/enginetest"
	"imagecot/internal/prng"
	"imagecot/train"
	"imagecot/world"
)

// The recipe's share of visits goes to scenes of two shapes, with captions that tell how they lie or which is which.
func TestRelationsShareOfVisits(t *testing.T) {
	const visits = 4000
	for _, share := range []float64{0, .3, 1} {
		g, err := randomTokens(train.Recipe{})
		if err != nil {
			t.Fatal(err)
		}
		g.data.Relations = share
		for i, s := range g.scenes {
			if s.TwoShapes() {
				g.related = append(g.related, i)
			}
		}
		order, captions := prng.New(3, 0, prng.Order), prng.New(3, 0, prng.Caption).Rand()
		web := 0.0 // how often web-like captions tell the same
		told := 0.0
		for range visits {
			scene, caption := g.visit(order, captions)
			m, err := world.ParsePrompt(caption)
			if err == nil && (m.Tag == "position" || m.Tag == "color_attr") && slices.Contains(g.related, scene) && g.scenes[scene].Satisfies(m) {
				told++
			}
			if k := order.Intn(len(g.scenes)); slices.Contains(g.related, k) {
				if m, err := world.ParsePrompt(world.Caption(captions, g.scenes[k])); err == nil && (m.Tag == "position" || m.Tag == "color_attr") && g.scenes[k].Satisfies(m) {
					web++
				}
			}
		}
		want := share + (1-share)*web/visits
		if math.Abs(told/visits-want) > .04 {
			t.Errorf("share %v: %.3f of the visits tell, want %.3f", share, told/visits, want)
		}
	}
}

func TestGeneratorRefusesImpossibleShares(t *testing.T) {
	for _, text := range []string{"relations: -0.1", "relations: 1.5", "relations: 1, scenes: 0", "scenes: 0"} {
		r, err := train.ParseRecipe([]byte("kind: generator\nmax_steps: 1\nbatch_size: 1\nlearning_rate: 1\ndata: {tokenizer: none, " + text + "}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewGenerator(enginetest.Go(t), r, t.TempDir()); err == nil || !(strings.Contains(err.Error(), "relations is") || strings.Contains(err.Error(), "scenes is")) {
			t.Errorf("%s: error %v", text, err)
		}
	}
}
