package geneval

import (
	"bytes"
	_ "embed"
	"strings"
	"sync"
)

// The benchmark's own data, unchanged: copyright 2023 Dhruba Ghosh, MIT licence (prompts/LICENSE.geneval).
var (
	//go:embed prompts/evaluation_metadata.jsonl
	promptFile []byte
	//go:embed prompts/object_names.txt
	classFile string
)

// Official are the benchmark's 553 prompts, in order: 80 single_object, 99 two_object, 80 counting, 94 colors,
// 100 position, 100 color_attr. The slice is the caller's.
func Official() []Metadata {
	list, err := ReadPrompts(bytes.NewReader(promptFile))
	if err != nil {
		panic(err) // the file is part of the program and tested
	}
	return list
}

// Classes are the benchmark's 80 class names in the order of COCO: the object list of the official detector.
func Classes() []string { return strings.Split(strings.TrimSpace(classFile), "\n") }

// InTest reports whether a key (see Key) is among the 552 keys of the official prompts.
func InTest(key string) bool { return officialKeys()[key] }

var officialKeys = sync.OnceValue(func() map[string]bool {
	keys := map[string]bool{}
	for _, m := range Official() {
		key, err := Key(m)
		if err != nil {
			panic(err)
		}
		keys[key] = true
	}
	return keys
})
