package curate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"os"
	"path"
	"path/filepath"

	"github.com/parquet-go/parquet-go"

	"imagecot/cot"
	"imagecot/internal/atomicfile"
	"imagecot/verify/questions"
)

// Format is a form in which other software reads a data set.
type Format string

// The formats.
const (
	ParquetImages Format = "parquet-images" // Parquet whose pictures are Hugging Face's Image feature, tokens beside them
	JSONLines     Format = "jsonl"          // metadata.jsonl and a folder of pictures, as Hugging Face's imagefolder reads them
	LLaVA         Format = "llava"          // conversations.json and a folder of pictures, as LLaVA's loader reads them
)

// ErrNoConversation says that a data set asks nothing about its images.
var ErrNoConversation = errors.New("the data set has no questions about its images")

// Export decodes a data set's tokens and writes it in another format. A stopped export goes on where it stood.
type Export struct {
	Dir       string
	From      string // folder of a data set of this package
	Format    Format
	Questions questions.Set // words of the conversations (LLaVA)
	Tokenizer string        // which one decodes, for recipe.json
	PartSize  int           // images a part (ParquetImages)
	Generator cot.Generator // decodes the images
	Progress  Parts
}

// Run writes what is missing.
func (e Export) Run(ctx context.Context) error {
	rows, err := exportable(e.From)
	if err != nil {
		return err
	}
	hash, err := Fingerprint(e.From)
	if err != nil {
		return err
	}
	id := struct {
		Kind      string `json:"kind"`
		From      string `json:"from"` // fingerprint of the data set
		Tokenizer string `json:"tokenizer"`
		Questions string `json:"questions,omitempty"`
		PartSize  int    `json:"part_size,omitempty"`
	}{Kind: "export " + string(e.Format), From: hash, Tokenizer: e.Tokenizer}
	switch {
	case e.PartSize < 1:
		return fmt.Errorf("curate: export: %d images a part", e.PartSize)
	case e.Format == LLaVA:
		for _, r := range rows {
			if scene := rowScene(r.row.Prompt, r.row.Metadata); Test(scene) {
				return fmt.Errorf("curate: export: %s holds test prompts (%s), and conversations are to train with", e.From, scene)
			}
		}
		id.Questions = e.Questions.Name
		return e.llava(ctx, id, rows)
	case e.Format == ParquetImages:
		id.PartSize = e.PartSize
		parts := (len(rows) + e.PartSize - 1) / e.PartSize
		return e.parquet(ctx, id, rows, parts)
	case e.Format == JSONLines:
		return e.jsonl(ctx, id, rows)
	}
	return fmt.Errorf("curate: export: format %q, want %s, %s or %s", e.Format, ParquetImages, JSONLines, LLaVA)
}

// picture is Hugging Face's Image feature. It is only known as one if its columns may be null.
type picture struct {
	Bytes []byte `parquet:"bytes,optional"`
	Path  string `parquet:"path,optional"`
}

// pictureRow is a row of one image.
type pictureRow struct {
	Image    picture `parquet:"image,optional"`
	Tokens   []int32 `parquet:"tokens,list"`
	Task     string  `parquet:"task"`
	Prompt   string  `parquet:"prompt"`
	Metadata string  `parquet:"metadata"`
	Path     int32   `parquet:"path"`
	Step     int32   `parquet:"step"`
	Outcome  string  `parquet:"outcome"`   // yes, no or "": does the image follow the prompt (ranking, parm, reflection)
	Process  string  `parquet:"process"`   // is the step on the right way (steps)
	Clear    string  `parquet:"clarity"`   // (parm)
	Hope     string  `parquet:"potential"` // (parm)
	Reason   string  `parquet:"reason"`    // what is wrong, in words (reflection)
}

// coupleRow is a row of two images of one prompt.
type coupleRow struct {
	Good       picture `parquet:"good,optional"`
	Bad        picture `parquet:"bad,optional"`
	GoodTokens []int32 `parquet:"good_tokens,list"`
	BadTokens  []int32 `parquet:"bad_tokens,list"`
	Task       string  `parquet:"task"`
	Prompt     string  `parquet:"prompt"`
	Metadata   string  `parquet:"metadata"`
	Reason     string  `parquet:"reason"` // what is wrong with the bad image ("" for preference pairs)
}

// huggingFace is the description of a row's columns that `datasets` looks for in a Parquet file.
func huggingFace(pictures, grids, numbers, texts []string) parquet.WriterOption {
	value := func(dtype string) map[string]any { return map[string]any{"dtype": dtype, "_type": "Value"} }
	features := map[string]any{}
	for _, name := range pictures {
		features[name] = map[string]any{"_type": "Image"}
	}
	for _, name := range grids {
		features[name] = map[string]any{"feature": value("int32"), "_type": "Sequence"}
	}
	for _, name := range numbers {
		features[name] = value("int32")
	}
	for _, name := range texts {
		features[name] = value("string")
	}
	text, err := json.Marshal(map[string]any{"info": map[string]any{"features": features}})
	if err != nil {
		panic(err) // maps of strings
	}
	return parquet.KeyValueMetadata("huggingface", string(text))
}

// parquet writes parts of rows with one picture, or with two where the data set is one of couples.
func (e Export) parquet(ctx context.Context, id any, rows []exported, parts int) error {
	part := func(n int) []exported { return rows[n*e.PartSize : min((n+1)*e.PartSize, len(rows))] }
	if rows[0].good != nil {
		columns := huggingFace([]string{"good", "bad"}, []string{"good_tokens", "bad_tokens"}, nil, []string{"task", "prompt", "metadata", "reason"})
		return build(ctx, e.Dir, id, parts, e.Progress, func(ctx context.Context, n int) ([]coupleRow, error) {
			return e.couples(ctx, part(n), n)
		}, columns)
	}
	columns := huggingFace([]string{"image"}, []string{"tokens"}, []string{"path", "step"},
		[]string{"task", "prompt", "metadata", "outcome", "process", "clarity", "potential", "reason"})
	return build(ctx, e.Dir, id, parts, e.Progress, func(ctx context.Context, n int) ([]pictureRow, error) {
		files, err := e.pictures(ctx, part(n), func(x exported) []int32 { return x.tokens })
		if err != nil {
			return nil, err
		}
		out := make([]pictureRow, len(files))
		for i, x := range part(n) {
			out[i] = x.row
			out[i].Tokens = x.tokens
			out[i].Image = picture{files[i], pictureName(n*e.PartSize + i)}
		}
		return out, nil
	}, columns)
}

func (e Export) couples(ctx context.Context, rows []exported, part int) ([]coupleRow, error) {
	bad, err := e.pictures(ctx, rows, func(x exported) []int32 { return x.tokens })
	if err != nil {
		return nil, err
	}
	good, err := e.pictures(ctx, rows, func(x exported) []int32 { return x.good })
	if err != nil {
		return nil, err
	}
	out := make([]coupleRow, len(rows))
	for i, x := range rows {
		name := pictureName(part*e.PartSize + i)
		out[i] = coupleRow{
			Good: picture{good[i], "good-" + name}, Bad: picture{bad[i], "bad-" + name}, GoodTokens: x.good, BadTokens: x.tokens,
			Task: x.row.Task, Prompt: x.row.Prompt, Metadata: x.row.Metadata, Reason: x.row.Reason,
		}
	}
	return out, nil
}

func pictureName(i int) string { return fmt.Sprintf("%06d.png", i) }

// pictures decodes one image a row and returns PNG files.
func (e Export) pictures(ctx context.Context, rows []exported, tokens func(exported) []int32) ([][]byte, error) {
	paths := make([]*cot.Path, len(rows))
	for i, x := range rows {
		paths[i] = &cot.Path{Index: i, Prompt: cot.Prompt{Text: x.row.Prompt}, Tokens: tokens(x), Sample: tokens(x)}
	}
	images, err := e.Generator.Decode(ctx, paths)
	if err != nil {
		return nil, fmt.Errorf("curate: export: %w", err)
	}
	files := make([][]byte, len(images))
	for i, img := range images {
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			return nil, fmt.Errorf("curate: export: image %d: %w", i, err)
		}
		files[i] = b.Bytes()
	}
	return files, nil
}

// llavaRow is an entry of LLaVA's training file.
type llavaRow struct {
	ID            string      `json:"id"`
	Image         string      `json:"image"` // relative to the image folder
	Conversations []llavaTurn `json:"conversations"`
}

type llavaTurn struct {
	From  string `json:"from"` // human or gpt
	Value string `json:"value"`
}

// llavaTurns writes a conversation as LLaVA's loader reads it: the image's tag opens the first question.
func llavaTurns(talk []Turn) []llavaTurn {
	var out []llavaTurn
	for _, t := range talk {
		out = append(out, llavaTurn{"human", t.Text}, llavaTurn{"gpt", t.Answer})
	}
	out[0].Value = "<image> " + out[0].Value
	return out
}

const (
	llavaFile    = "conversations.json"
	imagesFolder = "images"
	exportChunk  = 64 // images decoded together
)

// llava writes the pictures first and the list of conversations last: a folder with the list is complete.
func (e Export) llava(ctx context.Context, id any, rows []exported) error {
	for _, x := range rows {
		if len(x.talks) == 0 {
			return fmt.Errorf("curate: export: %s: %w; %s takes any", e.From, ErrNoConversation, ParquetImages)
		}
	}
	folder, unlock, err := e.claimImages(id)
	if err != nil {
		return err
	}
	defer unlock()
	words := wording{e.Questions}
	var list []llavaRow
	for at := 0; at < len(rows); at += exportChunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		some := rows[at:min(at+exportChunk, len(rows))]
		if err := e.chunk(ctx, folder, "", at, some, drawn); err != nil {
			return err
		}
		for i, x := range some {
			for k, a := range x.talks {
				talk := llavaTurns(words.talk(x.row.Prompt, a))
				list = append(list, llavaRow{fmt.Sprintf("%06d-%d", at+i, k), path.Join(imagesFolder, pictureName(at+i)), talk})
			}
		}
		if e.Progress != nil {
			e.Progress(at+len(some), len(rows))
		}
	}
	text, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return fmt.Errorf("curate: export: %w", err)
	}
	if err := atomicfile.WriteFile(filepath.Join(e.Dir, llavaFile), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("curate: export: %w", err)
	}
	return nil
}

// claimImages locks the export's folder and makes the one for its pictures.
func (e Export) claimImages(id any) (folder string, unlock func(), err error) {
	if unlock, err = claim(e.Dir, id); err != nil {
		return "", nil, err
	}
	folder = filepath.Join(e.Dir, imagesFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		unlock()
		return "", nil, fmt.Errorf("curate: export: %w", err)
	}
	return folder, unlock, nil
}

// chunk writes some pictures unless the last of them is there.
func (e Export) chunk(ctx context.Context, folder, prefix string, at int, some []exported, tokens func(exported) []int32) error {
	if _, err := os.Stat(filepath.Join(folder, prefix+pictureName(at+len(some)-1))); err == nil {
		return nil
	}
	files, err := e.pictures(ctx, some, tokens)
	if err != nil {
		return err
	}
	for i, file := range files {
		if err := atomicfile.WriteFile(filepath.Join(folder, prefix+pictureName(at+i)), file, 0o644); err != nil {
			return fmt.Errorf("curate: export: %w", err)
		}
	}
	return nil
}
