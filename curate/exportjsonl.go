package curate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"

	"imagecot/internal/atomicfile"
)

// jsonlRow is a line of metadata.jsonl: what a Parquet row holds, with files in the place of pictures. The names of the files
// are what Hugging Face's imagefolder looks for.
type jsonlRow struct {
	File       string  `json:"file_name,omitempty"`
	Good       string  `json:"good_file_name,omitempty"`
	Bad        string  `json:"bad_file_name,omitempty"`
	Task       string  `json:"task"`
	Prompt     string  `json:"prompt"`
	Metadata   string  `json:"metadata"`
	Path       int32   `json:"path,omitempty"`
	Step       int32   `json:"step,omitempty"`
	Outcome    string  `json:"outcome,omitempty"`
	Process    string  `json:"process,omitempty"`
	Clear      string  `json:"clarity,omitempty"`
	Hope       string  `json:"potential,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	Tokens     []int32 `json:"tokens,omitempty"`
	GoodTokens []int32 `json:"good_tokens,omitempty"`
	BadTokens  []int32 `json:"bad_tokens,omitempty"`
}

// jsonlFile is complete where it is there: it is written last.
const jsonlFile = "metadata.jsonl"

// jsonl writes the pictures and then a line a row.
func (e Export) jsonl(ctx context.Context, id any, rows []exported) error {
	folder, unlock, err := e.claimImages(id)
	if err != nil {
		return err
	}
	defer unlock()
	var b bytes.Buffer
	lines := json.NewEncoder(&b)
	lines.SetEscapeHTML(false)
	for at := 0; at < len(rows); at += exportChunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		some := rows[at:min(at+exportChunk, len(rows))]
		couples := some[0].good != nil
		if couples {
			err = e.chunk(ctx, folder, "good-", at, some, func(x exported) []int32 { return x.good })
			if err == nil {
				err = e.chunk(ctx, folder, "bad-", at, some, drawn)
			}
		} else {
			err = e.chunk(ctx, folder, "", at, some, drawn)
		}
		if err != nil {
			return err
		}
		for i, x := range some {
			name := func(prefix string) string { return path.Join(imagesFolder, prefix+pictureName(at+i)) }
			r := jsonlRow{
				Task: x.row.Task, Prompt: x.row.Prompt, Metadata: x.row.Metadata, Path: x.row.Path, Step: x.row.Step,
				Outcome: x.row.Outcome, Process: x.row.Process, Clear: x.row.Clear, Hope: x.row.Hope, Reason: x.row.Reason,
			}
			if couples {
				r.Good, r.Bad, r.GoodTokens, r.BadTokens = name("good-"), name("bad-"), x.good, x.tokens
			} else {
				r.File, r.Tokens = name(""), x.tokens
			}
			if err := lines.Encode(r); err != nil {
				return fmt.Errorf("curate: export: %w", err)
			}
		}
		if e.Progress != nil {
			e.Progress(at+len(some), len(rows))
		}
	}
	if err := atomicfile.WriteFile(filepath.Join(e.Dir, jsonlFile), b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("curate: export: %w", err)
	}
	return nil
}

// drawn are the tokens of a row's picture, or of the bad one of two.
func drawn(x exported) []int32 { return x.tokens }
