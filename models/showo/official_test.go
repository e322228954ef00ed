package showo

import (
	"path/filepath"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/ckpt/ckpttest"
)

// Files of the official names, shapes and size (their zeros take no room on the disk) are what this package expects.
func TestOfficialFile(t *testing.T) {
	cfg, err := LoadConfig([]byte(published))
	if err != nil {
		t.Fatal(err)
	}
	open := func(t *testing.T, shapes map[string][]int) error {
		t.Helper()
		dir := t.TempDir()
		if err := ckpttest.Sparse(filepath.Join(dir, ckpt.PublishedFile), shapes, ckpt.F32); err != nil {
			t.Skipf("no room for a sparse file: %v", err)
		}
		f, err := ckpt.OpenModel(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return CheckFile(cfg, f)
	}
	shapes := Shapes(cfg)
	total := 0
	for _, s := range shapes {
		total += ckpt.Info{Shape: s}.Size()
	}
	if len(shapes) != 437 || total != 1_448_176_770 {
		t.Errorf("%d tensors of %d parameters, the published file has 437 of 1448176770", len(shapes), total)
	}
	if err := open(t, shapes); err != nil {
		t.Errorf("the official shapes: %v", err)
	}
	for name, c := range map[string]struct {
		change func(shapes map[string][]int)
		want   string
	}{
		"w-clip-vit": {func(s map[string][]int) {
			s["mm_projector.0.weight"], s["mm_projector.2.weight"] = []int{2048, 1024}, []int{2048, 2048}
			s["mm_projector.0.bias"], s["mm_projector.2.bias"] = []int{2048}, []int{2048}
		}, "w-clip-vit"},
		"wrapped": {func(s map[string][]int) {
			for n, shape := range Shapes(cfg) {
				delete(s, n)
				s["module."+n] = shape
			}
		}, "module."},
		"phi alone": {func(s map[string][]int) {
			for n, shape := range Shapes(cfg) {
				delete(s, n)
				s[strings.TrimPrefix(n, "showo.")] = shape
			}
		}, "a language model alone"},
		"vocabulary": {func(s map[string][]int) {
			s["showo.model.embed_tokens.weight"], s["showo.lm_head.weight"], s["showo.lm_head.bias"] = []int{51200, 2048}, []int{51200, 2048}, []int{51200}
		}, "a vocabulary of 51200 where config.json says 58498"},
		"adapter":   {func(s map[string][]int) { clear(s); s["base_model.model.showo.q.lora_A.weight"] = []int{1, 1} }, "a LoRA adapter"},
		"tokenizer": {func(s map[string][]int) { clear(s); s["encoder.conv_in.weight"] = []int{128, 3, 3, 3} }, "image tokenizer"},
	} {
		t.Run(name, func(t *testing.T) {
			shapes := Shapes(cfg)
			c.change(shapes)
			if err := open(t, shapes); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want a guess of %q", err, c.want)
			}
		})
	}
}
