package showo

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/cot"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/internal/prng"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph code reads as formulas
)

// published is config.json of showlab/show-o with a field that nobody knows.
const published = `{"_class_name": "Showo", "_diffusers_version": "0.30.1", "codebook_size": 8192, "llm_model_path": "microsoft/phi-1_5",
 "llm_vocab_size": 50295, "mask_token_id": 58497, "num_vq_tokens": 256, "vocab_size": 58498, "w_clip_vit": false, "extra": {"a": 1}}`

func TestPublishedConfig(t *testing.T) {
	c, err := LoadConfig([]byte(published))
	if err != nil {
		t.Fatal(err)
	}
	got := []int32{c.EOT(), c.Pad(), c.SOI(), c.EOI(), c.T2I(), c.MMU(), c.ImageOffset(), c.MaskTokenID}
	if want := []int32{50256, 50295, 50296, 50297, 50300, 50301, 50305, 58497}; !slices.Equal(got, want) {
		t.Errorf("ids %v, want %v", got, want)
	}
	if c.MaxSeqLength != 128 || !c.LLM.QKLayerNorm || c.rotary() != 32 {
		t.Errorf("S %d, qk_layernorm %v, rotary width %d; want 128, true, 32", c.MaxSeqLength, c.LLM.QKLayerNorm, c.rotary())
	}
	shapes, parameters := Shapes(c), 0
	for _, dims := range shapes {
		n := 1
		for _, d := range dims {
			n *= d
		}
		parameters += n
	}
	if len(shapes) != 437 || parameters != 1448176770 {
		t.Errorf("%d tensors of %d parameters, want 437 of 1448176770", len(shapes), parameters)
	}
}

func TestConfigRefusals(t *testing.T) {
	for _, c := range []struct{ from, to, says string }{
		{`"vocab_size": 58498`, `"vocab_size": 58499`, "vocab_size is 58499"},
		{`"mask_token_id": 58497`, `"mask_token_id": 7`, "mask_token_id is 7"},
		{`"codebook_size": 8192`, `"codebook_size": -1`, "codebook_size is -1"},
		{`"num_vq_tokens": 256`, `"num_vq_tokens": "many"`, "config.json"},
		{`"extra": {"a": 1}`, `"llm_config": {"num_attention_heads": 30}`, "not divisible by 30 heads"},
		{`"extra": {"a": 1}`, `"llm_config": {"partial_rotary_factor": 0.05}`, "turns 3 of 64"},
		{`"extra": {"a": 1}`, `"llm_config": {"hidden_act": "relu"}`, "hidden_act"},
		{`"extra": {"a": 1}`, `"llm_config": {"eos_token_id": 50295}`, "eos_token_id is 50295"},
	} {
		text := strings.Replace(published, c.from, c.to, 1)
		if _, err := LoadConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one that says %q", c.to, err, c.says)
		}
	}
}

func TestCheckNamesWhatDiffers(t *testing.T) {
	cfg := small()
	w, err := Init(cfg, prng.New(1, 0, prng.Init).Rand(), InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	delete(w, "showo.lm_head.bias")
	w["showo.model.final_layernorm.weight"] = graphx.Tensor(make([]float32, 3), 3)
	w["stranger"] = graphx.Tensor(make([]float32, 1), 1)
	err = Check(cfg, graphx.NewWeights(w))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, says := range []string{`"showo.lm_head.bias" is missing`, "has shape [3], want [32]", `"stranger" is not used`} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}

func TestOpen(t *testing.T) {
	cfg := small()
	dir := t.TempDir()
	text := `{"codebook_size": 32, "llm_vocab_size": 50, "mask_token_id": 92, "num_vq_tokens": 16, "vocab_size": 93, "max_seq_length": 10,
	 "llm_config": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
	 "num_key_value_heads": 2, "eos_token_id": 7, "image_position_embeddings": true}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(dir); err == nil {
		t.Error("opened a folder without weights")
	}
	w := lively(cfg)
	var all []ckpt.Tensor
	for _, name := range w.Names() {
		c, err := ckpt.FromTensor(name, w.Get(name), ckpt.F32)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if err := ckpt.Write(filepath.Join(dir, ckpt.PublishedFile), all, nil); err != nil {
		t.Fatal(err)
	}
	got, weights, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.VocabSize != cfg.VocabSize || len(weights.Names()) != len(w.Names()) {
		t.Errorf("opened %d ids and %d tensors, want %d and %d", got.VocabSize, len(weights.Names()), cfg.VocabSize, len(w.Names()))
	}
}

func TestStructuredInit(t *testing.T) {
	cfg := Tiny(100, 0)
	draw := func() map[string][]float32 {
		w, err := Init(cfg, prng.New(4, 0, prng.Init).Rand(), InitOptions{Structured: true})
		if err != nil {
			t.Fatal(err)
		}
		out := map[string][]float32{}
		for name, x := range w {
			out[name] = graphx.Floats(x)
		}
		return out
	}
	w, again := draw(), draw()
	for name := range w {
		if !slices.Equal(w[name], again[name]) {
			t.Errorf("%s differs between two draws of one seed", name)
		}
	}
	d, table := cfg.LLM.HiddenSize, w["showo.model.embed_tokens.weight"]
	code := func(c int) []float32 { return table[(int(cfg.ImageOffset())+c)*d:][:d] }
	distance := func(a, b []float32) float64 {
		sum := 0.0
		for i := range a {
			sum += float64(a[i]-b[i]) * float64(a[i]-b[i])
		}
		return sum / float64(len(a))
	}
	// A bit moves a row by 2*.02 a channel, on top of two noises of .02: 2*.02^2 + bits*4*.02^2.
	var near, far float64
	for c := range 64 {
		near += distance(code(c), code(c^1)) / 64
		far += distance(code(c), code(c^1023)) / 64
	}
	if math.Abs(near-6*4e-4) > 1e-3 || math.Abs(far-42*4e-4) > 4e-3 {
		t.Errorf("mean square distance %v of codes one bit apart and %v of codes ten bits apart, want about .0024 and .0168", near, far)
	}
	if _, err := Init(small(), prng.New(4, 0, prng.Init).Rand(), InitOptions{Structured: true}); err != nil {
		t.Error(err)
	}
	odd := small()
	odd.NumVQTokens = 15
	if _, err := Init(odd, prng.New(4, 0, prng.Init).Rand(), InitOptions{Structured: true}); err == nil {
		t.Error("a grid of 15 tokens was accepted")
	}
}

// TestLossesAgree holds the training form (mask from the pads) to the general one (mask given) and to the sums of
// log-probabilities that preference training uses.
func TestLossesAgree(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		cfg := small()
		rng := prng.New(3, 0, prng.Masking)
		p := NewPrompting(cfg)
		const rows = 3
		var ids, labels, pads []int32
		var allow []uint8
		for i := range rows {
			tokens := make([]int32, cfg.NumVQTokens)
			for j := range tokens {
				tokens[j] = int32(rng.Intn(cfg.CodebookSize))
			}
			m := DrawMask(cfg.ImageIDs(tokens), cfg.MaskTokenID, 0, rng)
			row := p.T2I(letters{}.Encode("abcdefg"[:2*i]), m.IDs, m.Labels, i == 2)
			ids, labels, pads = append(ids, row.IDs...), append(labels, row.Labels...), append(pads, int32(row.Pads))
			allow = append(allow, row.Allow()...)
		}
		program, err := graphx.NewProgram(be, "losses", lively(cfg), graphx.PolicyFor(be), func(s graphx.Scope, in []*Node) []*Node {
			general := Loss(s, cfg, Batch{IDs: in[0], Labels: in[1], Allow: in[3], T2I: rows, CoefT2I: 1, MaxSeqLength: cfg.MaxSeqLength})
			sum, n := T2ILogProbs(s, cfg, in[0], in[1], in[2])
			return []*Node{T2ILoss(s, cfg, in[0], in[1], in[2]), general.Total, Div(Neg(ReduceAllSum(sum)), ReduceAllSum(n))}
		})
		if err != nil {
			t.Fatal(err)
		}
		l := len(ids) / rows
		out, err := program.Run(graphx.Tensor(ids, rows, l), graphx.Tensor(labels, rows, l), graphx.Tensor(pads, rows), graphx.Tensor(allow, rows, l, l))
		if err != nil {
			t.Fatal(err)
		}
		loss, general, sums := graphx.Floats(out[0])[0], graphx.Floats(out[1])[0], graphx.Floats(out[2])[0]
		if math.Abs(float64(loss-general)) > 1e-5 || math.Abs(float64(loss-sums)) > 1e-5 || loss < 1 {
			t.Errorf("loss %v from pads, %v from masks, %v from sums", loss, general, sums)
		}
	})
}

func TestDrawMaskHidesAboutTwoThirds(t *testing.T) {
	ids := make([]int32, 64)
	for i := range ids {
		ids[i] = int32(1000 + i)
	}
	rng, hidden := prng.New(8, 0, prng.Masking), 0
	perPosition := make([]int, len(ids))
	const draws = 4000
	for range draws {
		m := DrawMask(ids, 7, 0, rng)
		n := 0
		for j := range ids {
			if m.IDs[j] == 7 {
				n++
				perPosition[j]++
				if m.Labels[j] != ids[j] {
					t.Fatalf("label %d of hidden token %d", m.Labels[j], ids[j])
				}
			} else if m.IDs[j] != ids[j] || m.Labels[j] != Ignore {
				t.Fatalf("token %d became %d with label %d", ids[j], m.IDs[j], m.Labels[j])
			}
		}
		if n != m.Count || n < 1 {
			t.Fatalf("%d tokens hidden, count %d", n, m.Count)
		}
		hidden += n
	}
	if share := float64(hidden) / draws / 64; math.Abs(share-2/math.Pi) > .02 {
		t.Errorf("%v of the tokens were hidden, want about %v", share, 2/math.Pi)
	}
	for j, n := range perPosition {
		if share := float64(n) / draws; math.Abs(share-2/math.Pi) > .05 {
			t.Errorf("position %d was hidden in %v of the draws", j, share)
		}
	}
}

func TestVerdictOf(t *testing.T) {
	logits := []float32{1, 2, 3, 900}
	v := VerdictOf(logits, []int32{3}, []int32{0, 1, 77, -1})
	if v.LogPYes != 0 || math.Abs(v.LogPNo-(2+math.Log1p(math.Exp(-1))-900)) > 1e-6 || !v.Yes() {
		t.Errorf("%+v", v)
	}
	if v := VerdictOf(logits, nil, nil); v != (cot.Verdict{LogPYes: math.Inf(-1), LogPNo: math.Inf(-1)}) || v.Yes() {
		t.Errorf("no ids: %+v", v)
	}
}

func TestUnderstanderRefusals(t *testing.T) {
	cfg := small()
	u, err := NewUnderstander(enginetest.Go(t), cfg, lively(cfg))
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]int32, cfg.NumVQTokens)
	seen, err := u.See(t.Context(), tokens)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.See(t.Context(), tokens[1:]); err == nil {
		t.Error("saw an image that lacks a token")
	}
	tokens[0] = cot.Masked
	if _, err := u.See(t.Context(), tokens); err == nil {
		t.Error("saw a masked token")
	}
	if _, err := u.Next(t.Context(), seen, nil); err == nil {
		t.Error("continued an empty text")
	}
	if _, err := u.Next(t.Context(), seen, []int32{int32(cfg.VocabSize)}); err == nil {
		t.Error("read an id that does not exist")
	}
	// A length beyond one unit of padding does not change what came before it.
	short, err := u.Next(t.Context(), seen, []int32{7, 11, 12})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := u.Answer(t.Context(), seen, []int32{11, 12}, 30, nil)
	if err != nil {
		t.Fatal(err)
	}
	if best := int32(slices.Index(short, slices.Max(short))); answer[0] != best {
		t.Errorf("answer begins with %d, want %d", answer[0], best)
	}
}

// trainingBatch draws rows of random texts and images.
func trainingBatch(cfg Config, rows int) (ids, labels, pads []int32) {
	rng := prng.New(3, 0, prng.Masking)
	p := NewPrompting(cfg)
	for range rows {
		text := make([]int32, 3+rng.Intn(10))
		for i := range text {
			text[i] = 1 + int32(rng.Intn(cfg.LLMVocabSize-1))
		}
		tokens := make([]int32, cfg.NumVQTokens)
		for i := range tokens {
			tokens[i] = int32(rng.Intn(cfg.CodebookSize))
		}
		m := DrawMask(cfg.ImageIDs(tokens), cfg.MaskTokenID, 0, rng)
		row := p.T2I(text, m.IDs, m.Labels, false)
		ids, labels, pads = append(ids, row.IDs...), append(labels, row.Labels...), append(pads, int32(row.Pads))
	}
	return ids, labels, pads
}
