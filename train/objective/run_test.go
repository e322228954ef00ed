package objective

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagecot/ckpt"
	"imagecot/internal/enginetest"
	"imagecot/train"

	"github.com/gomlx/gomlx/core/tensors"
)

// small is a tokenizer recipe of a network that the pure-Go engine trains in a second.
func small(t *testing.T, more string) train.Recipe {
	t.Helper()
	r, err := train.ParseRecipe([]byte(`
kind: tokenizer
name: small
seed: 1
max_steps: 4
batch_size: 2
learning_rate: 0.01
ema: 0.5
save_steps: 2
logging_steps: 1
model:
  codebook_dim: 6
  norm_group_size: 8
  encoder: {ch: 8, ch_mult: [1, 1, 1, 1], num_res_blocks: [0, 0, 0, 1], in_ch: 3, out_ch: 3, resolution: 64, z_channels: 6, mid_attn: false, bottleneck_kernel: 1}
  decoder: {ch: 8, ch_mult: [1, 1, 1, 1], num_res_blocks: [0, 0, 0, 0], in_ch: 3, out_ch: 3, resolution: 64, z_channels: 6, mid_attn: false}
` + more))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// stopAfter ends a run once the log mentions a text.
type stopAfter struct {
	bytes.Buffer
	text string
	stop func()
}

func (s *stopAfter) Write(b []byte) (int, error) {
	if strings.Contains(string(b), s.text) {
		s.stop()
	}
	return s.Buffer.Write(b)
}

func TestRunResumesAfterAnInterruptAndWritesAModel(t *testing.T) {
	be := enginetest.Go(t)
	whole, parts := t.TempDir(), t.TempDir()
	if err := Run(context.Background(), be, small(t, ""), whole, io.Discard, New); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	// The estimate appears in step 3: the run ends there, between two regular checkpoints.
	err := Run(ctx, be, small(t, ""), parts, &stopAfter{text: "about ", stop: stop}, New)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted run: %v", err)
	}
	if _, err := os.Stat(filepath.Join(parts, "checkpoints", "step-00000003", "state.json")); err != nil {
		t.Fatalf("no checkpoint at the interrupt: %v", err)
	}
	if err := Run(context.Background(), be, small(t, ""), parts, io.Discard, New); err != nil {
		t.Fatal(err)
	}
	a, b := read(t, filepath.Join(whole, "final", ckpt.ModelFile)), read(t, filepath.Join(parts, "final", ckpt.ModelFile))
	if !bytes.Equal(a, b) {
		t.Error("an interrupted run ends with other weights")
	}
	m, err := ckpt.ReadManifest(filepath.Join(parts, "final"))
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != "tokenizer" || m.Name != "small" || m.Steps != 4 || len(m.Parents) != 0 || !bytes.Contains(m.Recipe, []byte(`"max_steps"`)) {
		t.Errorf("manifest %+v", m)
	}
	if events, _ := filepath.Glob(filepath.Join(parts, "events.out.tfevents.*")); len(events) != 2 {
		t.Errorf("event files %v, want one a run", events)
	}
}

// What is written is what was trained, rounded to 11 bits: an alignment changes less than bfloat16's 8 bits tell apart.
func TestTheModelIsWrittenInHalfPrecision(t *testing.T) {
	dir := t.TempDir()
	r := small(t, "")
	r.EMA = 0
	if err := Run(context.Background(), enginetest.Go(t), r, dir, io.Discard, New); err != nil {
		t.Fatal(err)
	}
	trained, err := ckpt.OpenModel(filepath.Join(dir, "checkpoints", "step-00000004"))
	if err != nil {
		t.Fatal(err)
	}
	defer trained.Close()
	written, err := ckpt.OpenModel(filepath.Join(dir, "final"))
	if err != nil {
		t.Fatal(err)
	}
	defer written.Close()
	for _, name := range written.Names() {
		if info, _ := written.Info(name); info.DType != ckpt.F16 {
			t.Errorf("%s is %s", name, info.DType)
		}
		was, err := trained.Float32(name)
		is, err2 := written.Float32(name)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		for i := range was {
			if d := math.Abs(float64(was[i] - is[i])); d > math.Abs(float64(was[i]))*0x1p-11+0x1p-25 {
				t.Fatalf("%s: %v was written as %v", name, was[i], is[i])
			}
		}
	}
}

func TestStartFromACheckpoint(t *testing.T) {
	be, dir := enginetest.Go(t), t.TempDir()
	if err := Run(context.Background(), be, small(t, ""), dir, io.Discard, New); err != nil {
		t.Fatal(err)
	}
	final := filepath.Join(dir, "final")
	o, err := NewTokenizer(small(t, "init_from: "+final))
	if err != nil {
		t.Fatal(err)
	}
	w, err := o.Init()
	if err != nil {
		t.Fatal(err)
	}
	f, err := ckpt.OpenModel(final)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range f.Names() {
		want, err := f.Float32(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := tensors.MustCopyFlatData[float32](w[name]); !slices.Equal(got, want) {
			t.Errorf("%s does not start from the checkpoint", name)
		}
	}
	from, _ := o.Origin()
	sum, err := ckpt.HashFile(filepath.Join(final, ckpt.ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	if len(from) != 1 || from[0] != (ckpt.Parent{Role: "init", Name: "small", SHA256: sum}) {
		t.Errorf("parents %+v", from)
	}

	wider := small(t, "init_from: "+final)
	wider.Model["codebook_dim"] = 7
	for _, side := range []string{"encoder", "decoder"} {
		wider.Model[side].(map[string]any)["z_channels"] = 7
	}
	if o, err = NewTokenizer(wider); err != nil {
		t.Fatal(err)
	}
	if _, err = o.Init(); err == nil || !strings.Contains(err.Error(), "no place") {
		t.Errorf("weights of another shape: %v", err)
	}
	if _, err = NewTokenizer(small(t, "init_from: nowhere")); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("missing checkpoint: %v", err)
	}
}

func TestEntropyWeightFallsUntilHalfTime(t *testing.T) {
	r := small(t, "")
	r.MaxSteps, r.Batch = 100, 1
	o, err := NewTokenizer(r)
	if err != nil {
		t.Fatal(err)
	}
	for step, want := range map[int]float64{0: .02, 25: .011, 50: .002, 99: .002} {
		in, err := o.Batch(step)
		if err != nil {
			t.Fatal(err)
		}
		if got := float64(tensors.ToScalar[float32](in[1])); math.Abs(got-want) > 1e-6 {
			t.Errorf("step %d: entropy weight %v, want %v", step, got, want)
		}
	}
}

func TestUnknownKindsAndDataKeysAreRefused(t *testing.T) {
	r := small(t, "")
	r.Kind = "painter"
	if _, err := New(enginetest.Go(t), r, t.TempDir()); err == nil || !strings.Contains(err.Error(), "painter") {
		t.Errorf("unknown kind: %v", err)
	}
	if _, err := NewTokenizer(small(t, "data: {entropy_strat: 1}")); err == nil || !strings.Contains(err.Error(), "entropy_strat") {
		t.Errorf("unknown data key: %v", err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCommittedRecipesAreValid(t *testing.T) {
	files, err := filepath.Glob("../../recipes/tiny/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recipes: %v", err)
	}
	for _, file := range files {
		r, err := train.ReadRecipe(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if command := "imagecot train " + r.Kind + " -f recipes/tiny/" + filepath.Base(file); !bytes.Contains(read(t, file), []byte(command)) {
			t.Errorf("%s does not open with its command, %q", file, command)
		}
		switch {
		case r.Kind == "tokenizer":
			_, err = NewTokenizer(r)
		case r.Kind == "generator":
			err = DecodeStrict(r.Data, new(GeneratorData))
		case r.Data["reward"] != nil:
			err = DecodeStrict(r.Data, new(RewardData))
		case r.Kind == "judge":
			r.InitFrom = "" // made by another recipe, and not here
			_, err = NewJudge(r)
		default: // kinds of package align are tested there
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
