package experiment

import (
	"math"
	"testing"

	"imagecot/models/llavaov"
	"imagecot/models/showo"
)

// The floating-point operations of one PARM selection at full size, counted from the architectures: two for each
// multiplication of a matrix product, nothing else. `go test -v -run TestFLOP ./experiment` prints them.

const tera = 1e12

// blocks is Phi's layers on that many rows which look at that many keys.
func blocks(c showo.Config, rows, keys float64) float64 {
	d, f := float64(c.LLM.HiddenSize), float64(c.LLM.IntermediateSize)
	return float64(c.LLM.Layers) * (2*rows*(4*d*d+2*d*f) + 4*rows*keys*d)
}

// step is one decoding step of a path as models/showo does it: image rows only, guidance before a head of K columns.
func step(c showo.Config, prefix float64) float64 {
	n := float64(c.NumVQTokens)
	return 2*blocks(c, n+2, n+2+prefix) + 2*n*float64(c.LLM.HiddenSize)*float64(c.CodebookSize)
}

// plainStep is the same in the released code: all rows, padding included, and the whole vocabulary.
func plainStep(c showo.Config) float64 {
	rows := float64(c.MaxSeqLength + 1 + c.NumVQTokens + 2)
	return 2*blocks(c, rows, rows) + 2*2*rows*float64(c.LLM.HiddenSize)*float64(c.VocabSize)
}

// tower is SigLIP's layers in use on one tile, and the projector.
func tower(c llavaov.Config, layers float64) float64 {
	rows, h, f, d := float64(c.Vision.Grid()*c.Vision.Grid()), float64(c.Vision.HiddenSize), float64(c.Vision.IntermediateSize), float64(c.Text.HiddenSize)
	return layers*(2*rows*(4*h*h+2*h*f)+4*rows*rows*h) + 2*rows*(h*d+d*d)
}

// words is the decoder on that many rows after some past, without the head.
func words(c llavaov.Config, rows, past float64) float64 {
	t := c.Text
	d, f, kv := float64(t.HiddenSize), float64(t.IntermediateSize), float64(t.NumKeyValueHeads)/float64(t.NumAttentionHeads)
	return float64(t.NumHiddenLayers) * (2*rows*(2*d*d+2*d*d*kv+3*d*f) + 4*rows*(past+rows/2)*d)
}

// The prefix of a prompt of about a dozen words, image rows with the ids before them, and the ids of each question.
const (
	promptWidth                      = 32.
	before, rowsOfImage              = 14., 730.
	clarityIDs, potentialIDs, ormIDs = 102., 37., 35.
	magvitDecode                     = .30 * tera // models/magvit on 256 x 256
	steps, kept                      = 18., 1. / 3
	releasedClarity, releasedFollow  = 123., 48.
)

// ours is what a path costs that is asked for clarity asked times; a third of the paths has potential and is decoded to its
// end and judged by the ORM.
func ours(g showo.Config, j llavaov.Config, asked float64) float64 {
	see := magvitDecode + tower(j, float64(j.TowerLayers)) + words(j, before+rowsOfImage, 0)
	head := 2 * float64(j.Text.HiddenSize) * float64(j.Text.VocabSize)
	past := before + rowsOfImage
	done := asked + kept*(steps-asked)
	return done*step(g, promptWidth) + asked*(see+words(j, clarityIDs, past)+head) + words(j, potentialIDs, past+clarityIDs) + head +
		kept*(see+words(j, ormIDs, past)+head)
}

// released is the same in the released code: every path is decoded to its end, every step image is made, every question reads
// everything again and has a head on all rows.
func released(g showo.Config, j llavaov.Config, asked float64) float64 {
	ask := func(text float64) float64 {
		rows := before + rowsOfImage + text
		return tower(j, float64(j.TowerLayers)) + words(j, rows, 0) + 2*rows*float64(j.Text.HiddenSize)*float64(j.Text.VocabSize)
	}
	return steps*(plainStep(g)+magvitDecode) + asked*ask(releasedClarity) + ask(releasedClarity+releasedFollow) + kept*ask(ormIDs)
}

func TestFLOP(t *testing.T) {
	g, err := showo.LoadConfig([]byte(`{"codebook_size":8192,"llm_vocab_size":50295,"mask_token_id":58497,"num_vq_tokens":256,"vocab_size":58498}`))
	if err != nil {
		t.Fatal(err)
	}
	j, err := llavaov.LoadConfig([]byte(`{"model_type":"llava","hidden_size":3584,"intermediate_size":18944,"num_hidden_layers":28,"num_attention_heads":28,
		"num_key_value_heads":4,"vocab_size":152064,"tie_word_embeddings":false,"rms_norm_eps":1e-6,"rope_theta":1000000.0,"mm_projector_type":"mlp2x_gelu",
		"image_aspect_ratio":"pad"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		got, want float64
	}{ // by hand: 24 layers of 50.33 M multiplications a row; 26 of 15.2 M; 28 of 233 M
		{"a step: 2 x 258 rows", step(g, promptWidth), 1.29 * tera},
		{"a released step: 2 x 387 rows and 58,498 columns", plainStep(g), (1.87 + .06 + .185) * tera},
		{"SigLIP on a tile and the projector", tower(j, float64(j.TowerLayers)), .67 * tera},
		{"a position of the 7B decoder, no past", words(j, 1, 0), .01305 * tera},
	} {
		if math.Abs(c.got/c.want-1) > .03 {
			t.Errorf("%s: %.3g TFLOP, by hand %.3g", c.name, c.got/tera, c.want/tera)
		}
	}
	if r := step(g, promptWidth) / plainStep(g); r > .62 {
		t.Errorf("a step is %.2f of the released one's work", r)
	}
	for asked := 1.; asked <= 8; asked++ {
		mine, theirs := ours(g, j, asked), released(g, j, asked)
		t.Logf("asked for clarity %2.0f times: %5.1f TFLOP a path, released %5.1f, %.2f of it", asked, mine/tera, theirs/tera, mine/theirs)
		if mine > .72*theirs {
			t.Errorf("asked %v times: %.2f of the released work", asked, mine/theirs)
		}
	}
}
