package maskgit

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/internal/goldens"
)

// Every decision of the reference decodings is taken again: which tokens are sampled where the logits are recorded, how many
// positions are masked again, which ones, and at what temperature.
func TestDecodingParity(t *testing.T) {
	for _, dir := range goldens.Cases(t, "showo-generate-?") {
		t.Run(filepath.Base(dir), func(t *testing.T) { replay(t, dir) })
	}
}

func readJSON(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func replay(t *testing.T, dir string) {
	var c struct {
		Params struct {
			Timesteps, Batch int
			MaxSeqLength     int `json:"max_seq_length"`
			Temperature      float64
			Rule             TemperatureRule `json:"temperature_rule"`
			Sampler          string
			Schedule         Schedule
		}
	}
	readJSON(t, filepath.Join(dir, "case.json"), &c)
	var config struct {
		LLMVocabSize int32 `json:"llm_vocab_size"`
		VocabSize    int32 `json:"vocab_size"`
		CodebookSize int   `json:"codebook_size"`
		Tokens       int   `json:"num_vq_tokens"`
	}
	readJSON(t, filepath.Join(dir, "config.json"), &config)
	io, err := ckpt.Open(filepath.Join(dir, "io.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer io.Close()
	floats := func(name string) []float32 {
		v, err := io.Float32(name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	ints := func(name string) []int32 {
		v, err := io.Int32(name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	masking, err := io.U8("out.masking")
	if err != nil {
		t.Fatal(err)
	}
	n, k, batch := config.Tokens, config.CodebookSize, c.Params.Batch
	o := Options{Steps: c.Params.Timesteps, Schedule: c.Params.Schedule, Temperature: c.Params.Temperature, Rule: c.Params.Rule}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	ids, counts := ints("in.input_ids"), ints("out.mask_len")
	sampled, prob, gumbel, confidence := ints("out.sampled_ids"), floats("mid.selected_prob"), floats("in.confidence_gumbel"), floats("mid.confidence")
	temperatures := floats("in.temperature")
	for row := range batch {
		first := row*len(ids)/batch + c.Params.MaxSeqLength + 2
		state := slices.Clone(ids[first : first+n])
		for i, id := range state {
			if state[i] = id - config.LLMVocabSize - 10; id == config.VocabSize-1 {
				state[i] = cot.Masked
			}
		}
		for s := range o.Steps {
			at := (s*batch + row) * n
			row := fmt.Sprintf("row %d, step %d", row, s)
			if got := o.Tau(s); math.Abs(float64(got-temperatures[s])) > 1e-6 {
				t.Errorf("%s: temperature %v, want %v", row, got, temperatures[s])
			}
			unknown := count(state)
			if got := o.Schedule.MaskCount(n, o.Steps, s, unknown); got != int(counts[at/n]) {
				t.Errorf("%s: %d masked, want %d", row, got, counts[at/n])
			}
			if c.Params.Sampler == "inverse_cdf" && (s == 0 || s == o.Steps/2) {
				logits := floats(fmt.Sprintf("mid.logits_step%d", s))[at%(batch*n)*k:][:n*k]
				noise := Noise{floats("in.sample_uniform")[at : at+n], gumbel[at : at+n]}
				r, err := o.StepFromLogits(s, state, logits, k, noise)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(r.Sampled, sampled[at:at+n]) {
					t.Errorf("%s: sampled %v, want %v", row, r.Sampled, sampled[at:at+n])
				}
			}
			r, err := o.Step(s, state, sampled[at:at+n], prob[at:at+n], gumbel[at:at+n])
			if err != nil {
				t.Fatal(err)
			}
			next := Remask(state, sampled[at:at+n], prob[at:at+n], gumbel[at:at+n], o.Tau(s), int(counts[at/n]))
			for i := range n {
				if state[i] == cot.Masked {
					got := Confidence(prob[at+i], gumbel[at+i], o.Tau(s))
					if math.Abs(float64(got-confidence[at+i])) > 3e-4 {
						t.Errorf("%s: confidence %v at %d, want %v", row, got, i, confidence[at+i])
					}
				}
				if want := masking[at+i] != 0; (next[i] == cot.Masked) != want || s < o.Steps-1 && (r.Next[i] == cot.Masked) != want {
					t.Errorf("%s: position %d masked again: %v, want %v", row, i, !want, want)
				}
			}
			state = r.Next
		}
		if want := ints("out.tokens")[row*n : (row+1)*n]; !slices.Equal(state, want) {
			t.Errorf("row %d: result %v, want %v", row, state, want)
		}
	}
}
