// Package untrained writes checkpoints of the tiny sizes with random weights, so that tests run the whole way from files
// to report without trained models. What such models draw and answer means nothing.
package untrained

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gomlx/gomlx/core/tensors"

	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/internal/prng"
	"imagecot/models/llavaov"
	"imagecot/models/magvit"
	"imagecot/models/showo"
	"imagecot/tiny"
)

// Write makes DIR/generator, with its image tokenizer in DIR/generator/tokenizer, and DIR/judge. The same seed gives the
// same bytes.
func Write(dir string, seed uint64) error {
	text, err := tiny.TextTokenizer()
	if err != nil {
		return err
	}
	tok, err := bpe.Load(text)
	if err != nil {
		return err
	}
	eos, ok := tok.TokenID("<|endoftext|>")
	if !ok {
		return errors.New("untrained: the text tokenizer has no <|endoftext|>")
	}
	rng := prng.New(seed, 0, prng.Init).Rand()
	generator, judge, tokenizer := showo.Tiny(tok.VocabSize(), eos), llavaov.Tiny(tok.VocabSize()), magvit.Tiny()
	weights, err := showo.Init(generator, rng, showo.InitOptions{})
	if err != nil {
		return err
	}
	generatorConfig, err := json.Marshal(generator)
	if err != nil {
		return fmt.Errorf("untrained: %w", err)
	}
	tokenizerConfig, err := json.Marshal(tokenizer)
	if err != nil {
		return fmt.Errorf("untrained: %w", err)
	}
	judgeConfig, err := judge.JSON()
	if err != nil {
		return err
	}
	return errors.Join(
		save(filepath.Join(dir, "generator"), generatorConfig, weights),
		save(filepath.Join(dir, "generator", "tokenizer"), tokenizerConfig, magvit.Init(tokenizer, rng)),
		save(filepath.Join(dir, "judge"), judgeConfig, llavaov.Init(judge, rng)),
	)
}

func save(dir string, config []byte, weights map[string]*tensors.Tensor) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("untrained: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, tiny.ConfigFile), config, 0o644); err != nil {
		return fmt.Errorf("untrained: %w", err)
	}
	var all []ckpt.Tensor
	for name, w := range weights {
		t, err := ckpt.FromTensor(name, w, ckpt.BF16)
		if err != nil {
			return fmt.Errorf("untrained: %w", err)
		}
		all = append(all, t)
	}
	return ckpt.Write(filepath.Join(dir, ckpt.ModelFile), all, nil)
}
