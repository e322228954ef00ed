package sft

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"imagecot/align/policy"
	"imagecot/bpe"
	"imagecot/ckpt"
	"imagecot/models/llavaov"
	"imagecot/train"

	"github.com/gomlx/gomlx/core/tensors"
)

// checkpoint is the judge that a training starts from, in the layout that it has: what is trained is written in the same one.
type checkpoint struct {
	name   string
	dir    fs.FS
	config llavaov.Config
	json   []byte // config.json
	text   *bpe.Tokenizer
	words  map[string][]byte          // files of text tokenizer and processor; nil where the tokenizer is the tiny world's
	stored map[string]string          // the file's names of weights, by canonical name
	unread map[string]*tensors.Tensor // weights that nobody reads (the tower's last norm, for one), by the file's name
	parent ckpt.Parent                // role "init"
}

// processor are the files of a folder that say how other software asks the model.
var processor = []string{
	"generation_config.json", "preprocessor_config.json", "processor_config.json", "chat_template.json", "chat_template.jinja",
	"special_tokens_map.json",
}

// headName is the canonical name of an output layer of its own.
const (
	headName  = "lm_head.weight"
	embedName = "model.embed_tokens.weight"
)

// openCheckpoint reads all but the weights of a judge's folder by name.
func openCheckpoint(open policy.Folders, name string) (*checkpoint, error) {
	if name == "" {
		return nil, train.RecipeError(errors.New("sft: init_from is missing: a reward model starts from a judge, llava-onevision-7b for instance"))
	}
	dir, err := open(name, "judge")
	if err != nil {
		return nil, fmt.Errorf("sft: init_from: %w", err)
	}
	c := &checkpoint{name: name, dir: dir, stored: map[string]string{}}
	if err := c.read(); err != nil {
		return nil, fmt.Errorf("sft: %s: %w", name, err)
	}
	c.parent, err = policy.Parent(dir, "init", name)
	return c, err
}

func (c *checkpoint) read() error {
	var err error
	if c.json, err = fs.ReadFile(c.dir, "config.json"); err != nil {
		return err
	}
	if c.config, err = llavaov.LoadConfig(c.json); err != nil {
		return err
	}
	if err := c.readWords(); err != nil {
		return err
	}
	f, err := ckpt.OpenModelFS(c.dir, ".")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := llavaov.CheckFile(c.config, f); err != nil {
		return err
	}
	needed := llavaov.Shapes(c.config)
	var unread []string
	for _, name := range f.Names() {
		canonical := llavaov.Canonical(name)
		if info, _ := f.Info(name); needed[canonical] == nil && canonical != headName && info.DType.IsFloat() {
			unread = append(unread, name)
		}
		c.stored[canonical] = name
	}
	if len(unread) > 0 {
		c.unread, err = f.TensorsFor(ckpt.Place{}, unread...)
	}
	return err
}

// readWords loads the text tokenizer.
func (c *checkpoint) readWords() error {
	var err error
	if c.text, err = policy.Words(c.dir); err != nil {
		return err
	}
	if c.words, err = policy.WordFiles(c.dir); err != nil {
		return err
	}
	vocabulary := c.config.Text.VocabSize
	switch n := c.text.VocabSize(); {
	case n > vocabulary:
		return fmt.Errorf("its text tokenizer has %d tokens, its language model %d", n, vocabulary)
	case c.words == nil && llavaov.Tiny(n).Text.VocabSize != vocabulary:
		return fmt.Errorf("it has no text tokenizer, and the tiny world's (%d tokens, not %d) is not its own: put its tokenizer.json into a folder with the weights", n, vocabulary)
	case c.words == nil:
		return nil
	}
	for _, name := range processor {
		text, err := fs.ReadFile(c.dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		c.words[name] = text
	}
	return nil
}

// rows is the number of the image's rows among the positions: one tile and a newline.
func (c *checkpoint) rows() int { return c.config.Vision.Grid()*c.config.Vision.Grid() + 1 }

// weights reads the weights under canonical names, float32. A head that config.json calls tied to the word table, and that is
// stored as a copy of it, is left out: two copies would part while they are trained.
func (c *checkpoint) weights() (map[string]*tensors.Tensor, error) {
	f, err := ckpt.OpenModelFS(c.dir, ".")
	if err != nil {
		return nil, fmt.Errorf("sft: %s: %w", c.name, err)
	}
	defer f.Close()
	w, err := llavaov.LoadWeights(c.config, f)
	if err != nil {
		return nil, fmt.Errorf("sft: %s: %w", c.name, err)
	}
	out := map[string]*tensors.Tensor{}
	for _, name := range w.Names() {
		out[name] = w.Get(name)
	}
	if tied := c.config.Tied; tied != nil && *tied && out[headName] != nil {
		head, table := tensors.MustCopyFlatData[float32](out[headName]), tensors.MustCopyFlatData[float32](out[embedName])
		if slices.Equal(head, table) {
			delete(out, headName)
		}
	}
	return out, nil
}

// named gives weights the names of the file that they came from, and adds what nobody reads.
func (c *checkpoint) named(w map[string]*tensors.Tensor) map[string]*tensors.Tensor {
	out := map[string]*tensors.Tensor{}
	for name, t := range w {
		out[c.stored[name]] = t
	}
	for name, t := range c.unread {
		out[name] = t
	}
	return out
}
