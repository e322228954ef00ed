package magvit

import (
	"path/filepath"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/ckpt/ckpttest"
)

// A file of the official names and shapes is what this package expects; the guesses name what was given instead.
func TestOfficialFile(t *testing.T) {
	cfg, err := LoadConfig([]byte(`{"_class_name":"MAGVITv2","_diffusers_version":"0.30.1"}`))
	if err != nil {
		t.Fatal(err)
	}
	shapes := func() map[string][]int {
		s := Shapes(cfg)
		s[embeddingName], s[powersName] = []int{8192, 13}, []int{13}
		return s
	}
	total := 0
	for _, s := range shapes() {
		total += ckpt.Info{Shape: s}.Size()
	}
	if len(shapes()) != 382 || total != 95_493_513 {
		t.Errorf("%d tensors of %d elements, the published file has 382 of 95493513", len(shapes()), total)
	}
	for name, c := range map[string]struct {
		change func(shapes map[string][]int)
		want   string
	}{
		"official":      {func(map[string][]int) {}, ""},
		"generator":     {func(s map[string][]int) { clear(s); s["showo.lm_head.bias"] = []int{58498} }, "the weights of the generator"},
		"VQGAN":         {func(s map[string][]int) { s["quantize.embedding.weight"] = []int{1024, 256} }, "a VQGAN"},
		"discriminator": {func(s map[string][]int) { s["loss.discriminator.main.0.weight"] = []int{64, 3, 4, 4} }, "discriminator"},
		"other widths":  {func(s map[string][]int) { s["encoder.conv_in.weight"] = []int{64, 3, 3, 3} }, "does config.json belong"},
		"codebook":      {func(s map[string][]int) { s[embeddingName] = []int{16384, 14} }, "[16384 14], want [8192 13]"},
	} {
		t.Run(name, func(t *testing.T) {
			s := shapes()
			c.change(s)
			dir := t.TempDir()
			if err := ckpttest.Sparse(filepath.Join(dir, ckpt.PublishedFile), s, ckpt.F32); err != nil {
				t.Skipf("no room for a sparse file: %v", err)
			}
			f, err := ckpt.OpenModel(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := CheckFile(cfg, f); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}
