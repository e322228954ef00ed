package curate

import (
	"fmt"
	"math/rand/v2"

	"imagecot/geneval"
)

// Prompts draws n different training prompts, the tasks in turn, from pools of candidates by task (for the tiny world:
// world.TrainPrompts; at full scale: everyday.Pools). A task whose pool is used up leaves its turns to the others. Prompts
// whose key is a test prompt's are refused with an error: a pool must not hold any.
func Prompts(n int, seed uint64, pools map[string][]geneval.Metadata, test []geneval.Metadata) ([]geneval.Metadata, error) {
	held := map[string]bool{}
	for _, m := range test {
		key, err := geneval.Key(m)
		if err != nil {
			return nil, fmt.Errorf("curate: test prompt %q: %w", m.Prompt, err)
		}
		held[key] = true
	}
	total := 0
	shuffled := map[string][]geneval.Metadata{}
	for t, task := range geneval.Tasks() {
		pool := append([]geneval.Metadata(nil), pools[task]...)
		for _, m := range pool {
			key, err := geneval.Key(m)
			if err != nil {
				return nil, fmt.Errorf("curate: prompt %q: %w", m.Prompt, err)
			}
			if held[key] {
				return nil, fmt.Errorf("curate: prompt %q asks for the scene of a test prompt", m.Prompt)
			}
		}
		rng := rand.New(rand.NewPCG(seed, uint64(t)))
		rng.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
		shuffled[task] = pool
		total += len(pool)
	}
	if n < 1 || n > total {
		return nil, fmt.Errorf("curate: %d prompts asked for, 1 to %d can be had", n, total)
	}
	out := make([]geneval.Metadata, 0, n)
	for i := 0; len(out) < n; i++ {
		for _, task := range geneval.Tasks() {
			if i < len(shuffled[task]) && len(out) < n {
				out = append(out, shuffled[task][i])
			}
		}
	}
	return out, nil
}
