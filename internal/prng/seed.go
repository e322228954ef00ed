package prng

import (
	"crypto/sha256"
	"encoding/binary"
)

// PathSeed is the seed of path i of a prompt: it depends on the run's seed, the prompt's text and i alone, so a path
// is the same for every N, order of prompts and number of workers.
func PathSeed(runSeed uint64, prompt string, i int) uint64 {
	return Derive(runSeed, "path\x00"+prompt, uint64(i))
}

// Derive makes a new seed from a seed, a label and numbers: the first eight bytes of their SHA-256. Different
// arguments give unrelated seeds.
func Derive(seed uint64, label string, numbers ...uint64) uint64 {
	b := make([]byte, 0, 16+len(label)+8*len(numbers))
	b = binary.LittleEndian.AppendUint64(b, seed)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(label)))
	b = append(b, label...)
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:8])
}
