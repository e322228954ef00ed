// Package recipes holds the recipes of every training run and of every row of the paper's tables, so that the program
// has them wherever it runs.
package recipes

import "embed"

// Files is the folder recipes: tiny/NAME.yaml and full/NAME.yaml for trainings, tiny/tables/TABLE/ROW.yaml for rows, and a
// scale.yaml for each scale, in tiny/tables and in full.
//
//go:embed tiny full
var Files embed.FS
