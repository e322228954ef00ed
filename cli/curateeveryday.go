package cli

import (
	"imagecot/curate/everyday"
	"imagecot/geneval"
)

// drawEveryday draws training prompts at full scale.
func drawEveryday(n int, seed uint64) ([]geneval.Metadata, error) {
	list, err := everyday.Prompts(n, seed)
	if err != nil {
		return nil, usage("", "%w", err)
	}
	return list, nil
}

const curatePromptsLong = `Draws training prompts that share no scene with the test prompts: of the tiny world's shapes, or with
--scale full of 200 everyday objects, with GenEval's templates and metadata (the paper's Sec. 2.2).

The tasks come in turn while their pools last. single_object has none on either scale: all its scenes
are test prompts.`
