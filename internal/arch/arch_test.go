package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// plan is the house. A line is a floor and the packages on it; "..." stands for everything below a folder that has no
// line of its own. A package imports its own floor and lower ones, nothing above. If a better plan shows itself, change it
// here and in docs/architecture.md together.
const plan = `
 0  cot                                     # the vocabulary
 0  internal/...                            # plumbing without opinions
 1  maskgit                                 # schedule, confidence, re-masking
 1  geneval world                           # the benchmark; the tiny world and its detector
 1  cot/cottest                             # fakes whose fate is in the seed
 2  verify verify/questions                 # what strategies share; the paper's questions
 2  verify/single verify/bestofn verify/orm verify/prm
 2  judge/...                               # judges without a graph
 3  verify/parm                             # stands on orm's last question
 4  verify/... curate curate/...            # what stands on PARM; training data
 5  backend ckpt ckpt/... bpe hub hub/... preset # engines, checkpoints, text tokens, where checkpoints come from
 5  internal/graphx internal/enginetest     # the border to graphs, engines for tests
 5  models/nn                               # layers
 6  models/magvit models/...                # image tokens; other small models
 7  models/showo models/llavaov             # generator, judge
 8  train train/... report/tensorboard       # the loop, what it learns, its event files
 9  align align/...                        # preferences and rewards move the generator
10  report recipes                         # what runs show; the recipe files
11  experiment experiment/... parity parity/... tiny   # recipes into pipelines, reference cases, shipped checkpoints
12  cli
13  cmd/...
`

// The graph engine is imported from this floor up. Below it, everything is plain Go.
const (
	engine      = "github.com/gomlx/"
	engineFloor = 5
)

// Ceilings, in lines; tests are exempt.
const (
	maxFile     = 600
	maxFunction = 80
	maxMain     = 20
)

// Names that say nothing about what a package is.
var emptyNames = []string{"utils", "util", "common", "pkg", "types", "core", "helpers", "misc"}

// floors is the plan as a map from package or "folder/..." to floor.
func floors(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for line := range strings.Lines(plan) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		floor, err := strconv.Atoi(fields[0])
		if err != nil {
			t.Fatalf("plan: %q starts with no floor", line)
		}
		for _, name := range fields[1:] {
			if _, ok := out[name]; ok {
				t.Fatalf("plan: %s has two floors", name)
			}
			out[name] = floor
		}
	}
	return out
}

// floorOf finds a package by its name, else by the nearest folder above it.
func floorOf(floors map[string]int, name string) (int, bool) {
	if floor, ok := floors[name]; ok {
		return floor, true
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if floor, ok := floors[dir+"/..."]; ok {
			return floor, true
		}
	}
	return 0, false
}

// check tells what is wrong with one file that is no test, in words.
func check(floors map[string]int, name, source string) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, name+": "+fmt.Sprintf(format, args...)) }
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, name, source, parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	dir := path.Dir(name)
	floor, ok := floorOf(floors, dir)
	if !ok {
		fault("package %s has no floor: enter it into the plan of internal/arch", dir)
		return faults
	}
	if slices.Contains(emptyNames, f.Name.Name) || slices.Contains(emptyNames, path.Base(dir)) {
		fault("the name %s says nothing about the package", f.Name.Name)
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			fault("import %s: %v", spec.Path.Value, err)
			continue
		}
		if strings.HasPrefix(imported, engine) && floor < engineFloor {
			fault("floor %d imports the graph engine (%s), which starts at floor %d", floor, imported, engineFloor)
		}
		if own, ok := strings.CutPrefix(imported, "imagecot/"); ok {
			if up, ok := floorOf(floors, own); ok && up > floor {
				fault("floor %d imports %s on floor %d", floor, own, up)
			}
		}
	}
	if lines := strings.Count(source, "\n"); lines > maxFile {
		fault("%d lines, at most %d", lines, maxFile)
	}
	for _, decl := range f.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		most := maxFunction
		if f.Name.Name == "main" && fn.Name.Name == "main" {
			most = maxMain
		}
		if lines := files.Position(fn.End()).Line - files.Position(fn.Pos()).Line + 1; lines > most {
			fault("function %s has %d lines, at most %d", fn.Name.Name, lines, most)
		}
	}
	return faults
}

// sources calls visit with every Go file of the module's packages, tests excepted, and the name relative to the root.
func sources(t *testing.T, visit func(name, source string)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			skip := []string{"out", "runs", "bench", "oracle", "docs", "shared"} // no packages of the house
			if name != "." && strings.HasPrefix(path.Base(name), ".") || path.Base(name) == "testdata" || slices.Contains(skip, name) {
				return filepath.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || !strings.Contains(name, "/") {
			return nil
		}
		source, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		visit(name, string(source))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheHouseFollowsItsPlan(t *testing.T) {
	floors, seen := floors(t), map[string]bool{}
	sources(t, func(name, source string) {
		seen[path.Dir(name)] = true
		for _, fault := range check(floors, name, source) {
			t.Error(fault)
		}
	})
	for _, must := range []string{"cot", "maskgit", "verify/parm"} {
		if !seen[must] {
			t.Errorf("package %s was not looked at: the test walks the wrong folder", must)
		}
	}
}

// The checker itself must be able to fail.
func TestCheckFindsFaults(t *testing.T) {
	floors := floors(t)
	long := strings.Repeat("\tprintln()\n", maxFunction)
	for name, c := range map[string]struct{ file, source, want string }{
		"upwards":        {"verify/orm/a.go", `package orm; import _ "imagecot/verify/parm"`, "floor 2 imports verify/parm on floor 3"},
		"folder upwards": {"cot/a.go", `package cot; import _ "imagecot/train/objective"`, "floor 0 imports train/objective on floor 8"},
		"engine":         {"verify/parm/a.go", `package parm; import _ "github.com/gomlx/gomlx/core/graph"`, "imports the graph engine"},
		"no floor":       {"magic/a.go", `package magic`, "package magic has no floor"},
		"empty name":     {"internal/utils/a.go", `package utils`, "says nothing"},
		"long file":      {"cot/a.go", "package cot" + strings.Repeat("\n", maxFile+1), "601 lines"},
		"long function":  {"cot/a.go", "package cot\nfunc f() {\n" + long + "}", "function f has 82 lines"},
		"long main":      {"cmd/x/a.go", "package main\nfunc main() {\n" + long + "}", "function main has 82 lines, at most 20"},
		"no Go":          {"cot/a.go", "packag cot", "expected 'package'"},
	} {
		faults := check(floors, c.file, c.source)
		if len(faults) != 1 || !strings.Contains(faults[0], c.want) {
			t.Errorf("%s: %q, want one that says %q", name, faults, c.want)
		}
	}
	for name, c := range map[string]struct{ file, source string }{
		"downwards":  {"verify/parm/a.go", `package parm; import _ "imagecot/verify/orm"`},
		"same floor": {"world/a.go", `package world; import _ "imagecot/geneval"`},
		"engine":     {"models/nn/a.go", `package nn; import _ "github.com/gomlx/gomlx/core/graph"`},
	} {
		if faults := check(floors, c.file, c.source); len(faults) != 0 {
			t.Errorf("%s: %q", name, faults)
		}
	}
}
