// Package prng makes every random number of the project: counter-based (Philox4x32-10 of Salmon et al., "Parallel
// Random Numbers: As Easy as 1, 2, 3", SC 2011), so that a number depends on what it is for and never on when, in
// which batch or by which worker it is drawn.
//
// A stream is named by (seed, step, purpose, stream): the seed is Philox's key, the other three are words of its
// counter, and the remaining word counts blocks of four 32-bit numbers. Path i of a prompt has the seed
// PathSeed(run seed, prompt, i); a decoding step of that path draws from New(seed, step, Tokens) and
// New(seed, step, Remask). The package knows nothing of paths beyond that.
package prng

import "math/bits"

// Constants of Philox4x32 (Salmon et al., Table 2): two multipliers and two Weyl increments of the key.
const (
	mul0, mul1   = 0xD2511F53, 0xCD9E8D57
	weyl0, weyl1 = 0x9E3779B9, 0xBB67AE85
	rounds       = 10
)

// Philox is the bijection of Philox4x32-10: 128 bits of counter to 128 random bits under a 64-bit key.
func Philox(counter [4]uint32, key [2]uint32) [4]uint32 {
	for range rounds {
		hi0, lo0 := bits.Mul32(mul0, counter[0])
		hi1, lo1 := bits.Mul32(mul1, counter[2])
		counter = [4]uint32{hi1 ^ counter[1] ^ key[0], lo1, hi0 ^ counter[3] ^ key[1], lo0}
		key[0] += weyl0
		key[1] += weyl1
	}
	return counter
}
