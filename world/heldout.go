package world

import (
	"bytes"
	_ "embed"
	"math/rand/v2"
	"slices"
	"sync"

	"imagecot/geneval"
)

// The held-out prompts are a file, so that a change of the rule that chose them cannot move the test set unnoticed.
//
//go:embed prompts/test.jsonl
var testFile []byte

// TestPrompts are the 304 held-out prompts: 8 single_object (all there are), 40 two_object, 12 counting, 24 colors, 110
// position, 110 color_attr. The slice is the caller's.
func TestPrompts() []geneval.Metadata {
	list, err := geneval.ReadPrompts(bytes.NewReader(testFile))
	if err != nil {
		panic(err) // the file is part of the program and tested
	}
	return list
}

// TrainPrompts are the prompts of a task whose key (geneval.Key) is not in the test set, in the order of AllPrompts.
// There are none for single_object: all eight are test prompts. Scenes are not held out, only prompts; what the generator
// reads are captions of random scenes.
func TrainPrompts(task string) []geneval.Metadata {
	held := heldKeys()
	return slices.DeleteFunc(AllPrompts(task), func(m geneval.Metadata) bool { return held[key(m)] })
}

// HeldOut reports whether a scene, named by geneval.Key, is a test prompt's.
func HeldOut(scene string) bool { return heldKeys()[scene] }

var heldKeys = sync.OnceValue(func() map[string]bool {
	held := map[string]bool{}
	for _, m := range TestPrompts() {
		held[key(m)] = true
	}
	return held
})

// key is geneval.Key of a prompt made from a template, which always has one.
func key(m geneval.Metadata) string {
	k, err := geneval.Key(m)
	if err != nil {
		panic(err)
	}
	return k
}

// heldOutSeed was the first one, from 1 on, that leaves every shape and every colour among the training prompts of every
// task but single_object.
const heldOutSeed = 5

// chooseTestPrompts draws the test set: so many keys of each task in a shuffled order, and of each key so many of its
// prompts ("a circle and a star" has its twin "a star and a circle").
func chooseTestPrompts(seed uint64) []geneval.Metadata {
	rng := rand.New(rand.NewPCG(seed, 0x7465737420736574))
	quota := map[string]struct{ keys, each int }{
		geneval.SingleObject: {8, 1}, geneval.TwoObject: {20, 2}, geneval.Counting: {12, 1},
		geneval.Colors: {24, 1}, geneval.Position: {55, 2}, geneval.ColorAttr: {110, 1},
	}
	var list []geneval.Metadata
	for _, task := range geneval.Tasks() {
		prompts := AllPrompts(task)
		rng.Shuffle(len(prompts), func(i, j int) { prompts[i], prompts[j] = prompts[j], prompts[i] })
		taken := map[string]int{}
		for _, m := range prompts {
			k := key(m)
			n, known := taken[k]
			if n < quota[task].each && (known || len(taken) < quota[task].keys) {
				taken[k] = n + 1
				list = append(list, m)
			}
		}
	}
	return list
}
