package policy_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagecot/align/policy"
	"imagecot/align/policy/policytest"
	"imagecot/geneval"
	"imagecot/internal/enginetest"
	"imagecot/internal/graphx"
	"imagecot/maskgit"
	"imagecot/models/showo"
	"imagecot/train/objective"
	"imagecot/world"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

func open(t *testing.T, change func(map[string]*tensors.Tensor)) *policy.Policy {
	t.Helper()
	p, err := policy.Open(policytest.Folders, policytest.Folder(t, change))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// shifted adds different numbers to the head's bias: other predictions at every position.
func shifted(w map[string]*tensors.Tensor) {
	bias := tensors.MustCopyFlatData[float32](w["showo.lm_head.bias"])
	for i := range bias {
		bias[i] += .3 * float32(i%5)
	}
	w["showo.lm_head.bias"] = graphx.Tensor(bias, len(bias))
}

// logits of the rows [R, L, V], by the plain forward.
func logits(t *testing.T, be compute.Backend, p *policy.Policy, ids, pads *tensors.Tensor) []float32 {
	t.Helper()
	w, err := p.Weights()
	if err != nil {
		t.Fatal(err)
	}
	labels := graphx.Tensor(make([]int32, ids.Shape().Size()), ids.Shape().Dimensions...)
	program, err := graphx.NewProgram(be, "test", graphx.NewWeights(w), graphx.PolicyFor(be), func(s graphx.Scope, in []*graph.Node) []*graph.Node {
		logProbs, _ := showo.T2IPredictions(s, p.Config, in[0], in[1], in[2])
		return []*graph.Node{logProbs}
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := program.Run(ids, labels, pads)
	if err != nil {
		t.Fatal(err)
	}
	return graphx.Floats(out[0])
}

func TestDivergenceAgreesWithPlainGo(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, be compute.Backend) {
		a, b := open(t, nil), open(t, shifted)
		d, err := a.Divergence(be)
		if err != nil {
			t.Fatal(err)
		}
		add := func(r *policy.Rows, i int) {
			a.Add(r, a.Text.Encode("a photo of a disc"), []int32{0, 1, int32(i % policytest.Codes), 3}, policy.Masking{}, uint64(i), 0, 0)
		}
		const n = 35 // a whole tile and a part of one
		if kl, err := d.Mean(t.Context(), n, add); err != nil || math.Abs(kl) > 1e-5 {
			t.Errorf("the divergence from oneself is %v (%v)", kl, err)
		}
		moved, err := b.Weights()
		if err != nil {
			t.Fatal(err)
		}
		for name, w := range moved {
			d.Set(name, w)
		}
		got, err := d.Mean(t.Context(), n, add)
		if err != nil {
			t.Fatal(err)
		}
		var rows policy.Rows
		for i := range n {
			add(&rows, i)
		}
		in := rows.Tensors()
		labels := tensors.MustCopyFlatData[int32](in[1])
		pi, ref := logits(t, be, b, in[0], in[2]), logits(t, be, a, in[0], in[2])
		l, v, image := len(labels)/n, a.Config.VocabSize, policytest.Tokens+2
		want := 0.0
		for r := range n {
			for k := range image {
				if labels[r*l+l-image+k] < 0 {
					continue
				}
				for c := range v {
					x, y := float64(pi[(r*image+k)*v+c]), float64(ref[(r*image+k)*v+c])
					want += math.Exp(x) * (x - y) / n
				}
			}
		}
		if want < .05 || math.Abs(got-want) > 1e-4*want {
			t.Errorf("divergence %v, want %v", got, want)
		}
	})
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	if _, err := policy.Open(policytest.Folders, ""); err == nil || !strings.Contains(err.Error(), "init_from is missing") {
		t.Errorf("error %v", err)
	}
	if _, err := policy.Open(policytest.Folders, t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want ErrNotExist", err)
	}
	dir := policytest.Folder(t, func(w map[string]*tensors.Tensor) { delete(w, "showo.lm_head.bias") })
	if _, err := policy.Open(policytest.Folders, dir); err == nil || !strings.Contains(err.Error(), `"showo.lm_head.bias" is missing`) {
		t.Errorf("error %v", err)
	}
}

// The text tokenizer of a folder is kept as it is; without one the tiny world's is taken only where it fits.
func TestTextTokenizers(t *testing.T) {
	dir := policytest.Folder(t, nil)
	words, err := objective.Vocabulary()
	if err != nil {
		t.Fatal(err)
	}
	if p, err := policy.Open(policytest.Folders, dir); err != nil || p.TextTokenizer() != nil {
		t.Errorf("error %v, or files of its own where there are none", err)
	}
	words = append(words, '\n') // the same tokenizer, but not the same file
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), words, 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := policy.Open(policytest.Folders, dir); err != nil || !bytes.Equal(p.TextTokenizer()["tokenizer.json"], words) {
		t.Errorf("the folder's own tokenizer is not kept (%v)", err)
	}
	for _, more := range []int{-1, 1} {
		cfg := policytest.Tiny(t)
		cfg.LLMVocabSize, cfg.VocabSize, cfg.MaskTokenID = cfg.LLMVocabSize+more, cfg.VocabSize+more, cfg.MaskTokenID+int32(more)
		dir := policytest.Write(t, cfg, nil)
		if err := os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte("{}"), 0o600); err != nil { // no words
			t.Fatal(err)
		}
		if _, err := policy.Open(policytest.Folders, dir); err == nil || !strings.Contains(err.Error(), "text tokenizer") {
			t.Errorf("%d text ids more: error %v", more, err)
		}
	}
}

func TestWeightsAreCopies(t *testing.T) {
	p := open(t, nil)
	a, err := p.Weights()
	if err != nil {
		t.Fatal(err)
	}
	graphx.Free(a["showo.lm_head.bias"])
	b, err := p.Weights()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(tensors.MustCopyFlatData[float32](b["showo.lm_head.bias"])); n != p.Config.VocabSize {
		t.Errorf("%d biases, want %d", n, p.Config.VocabSize)
	}
}

func TestPromptsKeepOffTheTest(t *testing.T) {
	d := policy.DefaultDrawing()
	d.Count = 60
	a, err := d.List(1)
	b, err2 := d.List(2)
	if err != nil || err2 != nil || len(a) != 60 || a[0].Prompt == b[0].Prompt && a[1].Prompt == b[1].Prompt && a[2].Prompt == b[2].Prompt {
		t.Errorf("%d prompts, %v, %v", len(a), err, err2)
	}
	write := func(list ...geneval.Metadata) string {
		text := ""
		for _, m := range list {
			text += m.Dump() + "\n"
		}
		path := filepath.Join(t.TempDir(), "prompts.jsonl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	d.Prompts = write(a[:5]...)
	if list, err := d.List(9); err != nil || len(list) != 5 || list[3].Prompt != a[3].Prompt {
		t.Errorf("%v, %v", list, err)
	}
	for _, held := range []geneval.Metadata{world.TestPrompts()[100], geneval.Official()[7]} {
		d.Prompts = write(a[0], held)
		if _, err := d.List(9); err == nil || !strings.Contains(err.Error(), held.Prompt) {
			t.Errorf("%q passed: %v", held.Prompt, err)
		}
	}
	d.Prompts = write()
	if _, err := d.List(9); err == nil || !strings.Contains(err.Error(), "holds no prompt") {
		t.Errorf("error %v", err)
	}
}

// The temperature of re-masking falls as a recipe says, and else as in the tiny world.
func TestDrawingDecodes(t *testing.T) {
	d := policy.DefaultDrawing()
	if got := d.Options(); got.Rule != maskgit.Anneal || got.Temperature != 5 || got.Steps != 18 {
		t.Errorf("%+v", got)
	}
	d.Rule = maskgit.Compound
	if got := d.Options(); got.Rule != maskgit.Compound {
		t.Errorf("%+v", got)
	}
	d.Rule = "cold"
	if err := d.Validate(); err == nil {
		t.Error("an unknown rule passes")
	}
}
