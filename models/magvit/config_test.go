package magvit

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func marshal(t *testing.T, c Config) []byte {
	t.Helper()
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestPublishedConfigIsOfficial(t *testing.T) {
	c, err := LoadConfig([]byte(`{"_class_name": "MAGVITv2", "_diffusers_version": "0.30.1"}`))
	if err != nil {
		t.Fatal(err)
	}
	tensors, elements, encoder := 0, 0, 0
	for name, dims := range Shapes(c) {
		n := 1
		for _, d := range dims {
			n *= d
		}
		tensors++
		elements += n
		if strings.HasPrefix(name, "encoder.") {
			encoder += n
		}
	}
	// The published file holds two tensors more, of 8192 * 13 and 13 elements: the codebook.
	if tensors != 382-2 || elements != 95_493_513-8192*13-13 || encoder != 55_439_171 {
		t.Errorf("%d tensors, %d elements, %d of the encoder", tensors, elements, encoder)
	}
	if c.Factor() != 16 || c.Grid() != 16 || c.Codes() != 8192 {
		t.Errorf("factor %d, grid %d, codes %d", c.Factor(), c.Grid(), c.Codes())
	}
}

func TestConfigSurvivesJSON(t *testing.T) {
	for _, c := range []Config{Official(), Tiny()} {
		got, err := LoadConfig(marshal(t, c))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, c) {
			t.Errorf("read %+v, wrote %+v", got, c)
		}
	}
}

func TestConfigReportsWhatItCannotBe(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                                                "unexpected end",
		`{"codebook_dim": 31}`:                             "codebook_dim",
		`{"encoder": {"z_channels": 7}}`:                   "z_channels is 7",
		`{"encoder": {"ch": 100}}`:                         "multiple of 32",
		`{"norm_group_size": 48}`:                          "norm_group_size",
		`{"encoder": {"ch_mult": [1, 2]}}`:                 "num_res_blocks has 5 levels",
		`{"encoder": {"bottleneck_kernel": 5}}`:            "bottleneck_kernel",
		`{"decoder": {"bottleneck_kernel": 1}}`:            "encoder",
		`{"encoder": {"attn_resolutions": [64]}}`:          "attention at level 2",
		`{"encoder": {"resolution": 100}}`:                 "divisible",
		`{"encoder": {"double_z": true}}`:                  "double_z",
		`{"encoder": {"num_res_blocks": [4, 0, 4, 3, 4]}}`: "level 1 has no blocks",
		`{"encoder": {"in_ch": 1}}`:                        "in_ch",
	} {
		if _, err := LoadConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}
