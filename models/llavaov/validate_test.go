package llavaov

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
)

// A file may hold more tower layers than are used; a model saved from it holds the used ones alone.
func TestConfigOfACutTowerFitsTheWeightsThatAreSaved(t *testing.T) {
	c, err := LoadConfig([]byte(hfConfig))
	if err != nil {
		t.Fatal(err)
	}
	if c.TowerLayers == c.Vision.NumHiddenLayers {
		t.Fatal("the tower of the configuration is not cut")
	}
	text, err := c.JSON()
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	if got.TowerLayers != c.TowerLayers || !reflect.DeepEqual(Shapes(got), Shapes(c)) {
		t.Errorf("%d layers of %d came back as %d of %d", c.TowerLayers, c.Vision.NumHiddenLayers, got.TowerLayers, got.Vision.NumHiddenLayers)
	}
	w := Init(c, rand.New(rand.NewPCG(1, 1)))
	if _, err := LoadWeights(got, file(t, w, func(n string) string { return n })); err != nil {
		t.Errorf("the saved model does not open: %v", err)
	}
}

func TestUnusedTowerLayersAreLeftOut(t *testing.T) {
	c, err := LoadConfig([]byte(hfConfig))
	if err != nil {
		t.Fatal(err)
	}
	w := Init(c, rand.New(rand.NewPCG(1, 1)))
	n := len(w)
	for _, name := range []string{"encoder.layers.1.mlp.fc1.bias", "head.probe", "embeddings.position_ids"} {
		w[towerPrefix+name] = tensors.FromFlatDataAndDimensions([]float32{1, 2}, 2)
	}
	got, err := LoadWeights(c, file(t, w, func(n string) string { return n }))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Names()) != n {
		t.Errorf("%d weights are kept, want %d", len(got.Names()), n)
	}
}

func FuzzLoadConfig(f *testing.F) {
	f.Add([]byte(hfConfig))
	f.Add([]byte(`{"vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_grid_pinpoints": "(1x1),...,(2x2)"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := LoadConfig(text)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("a configuration without error is not valid: %v", err)
		}
		again, err := c.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(again); err != nil {
			t.Errorf("the configuration does not come back from %s: %v", again, err)
		}
	})
}
