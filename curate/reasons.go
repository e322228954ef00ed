package curate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"imagecot/cot"
	"imagecot/geneval"
	"imagecot/internal/atomicfile"
	"imagecot/verify/questions"
)

// Annotate says in words why a final image does not follow its prompt. An error that wraps ErrNoReason sets the image
// aside; any other ends the build.
type Annotate func(ctx context.Context, img image.Image, m geneval.Metadata) (string, error)

// ErrNoReason says that an annotator gave no reason although it was asked as often as is sensible.
var ErrNoReason = errors.New("no reason was given")

// Words says in words why a verdict is no (geneval.Reason); "" for a yes.
type Words func(geneval.Metadata, geneval.Result) (string, error)

// OrAside sets an image aside for which there are no words, or of which the evaluator now says yes: a score at a threshold may
// come out otherwise on a second look, where the engine's sums do.
func OrAside(words Words) Words {
	return func(m geneval.Metadata, r geneval.Result) (string, error) {
		reason, err := words(m, r)
		if err == nil && reason == "" {
			err = errors.New("the evaluator finds nothing wrong on a second look")
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrNoReason, err)
		}
		return reason, nil
	}
}

// ByEvaluator annotates with the evaluator's own verdict, put into words.
func ByEvaluator(evaluate Evaluate, words Words) Annotate {
	return func(ctx context.Context, img image.Image, m geneval.Metadata) (string, error) {
		r, err := evaluate(ctx, img, m)
		if err != nil {
			return "", err
		}
		return words(m, r)
	}
}

// ByExplainer annotates by asking a model, in the paper GPT-4o, after a reflection's "no". An error that is temporary sets
// the image aside.
func ByExplainer(e cot.Explainer, set questions.Set, temporary func(error) bool) Annotate {
	return func(ctx context.Context, img image.Image, m geneval.Metadata) (string, error) {
		q := set.Ask(cot.Reason, &cot.Path{Prompt: cot.Prompt{Text: m.Prompt}})
		q.Image = img
		reason, err := e.Explain(ctx, q)
		if err != nil && ctx.Err() == nil && temporary(err) {
			return "", fmt.Errorf("%w: %w", ErrNoReason, err)
		}
		return reason, err
	}
}

// Reasons annotates wrong images. Every reason is kept in reasons.jsonl of the data set's folder as soon as it is given, so
// that a stopped build asks nothing twice; images that got none are listed in aside.jsonl and asked about again by the
// next build.
type Reasons struct {
	Generator cot.Generator // decodes the images
	Annotate  Annotate
	Name      string // of the annotator, for recipe.json and the card
	Workers   int    // images under way at the same time; 0 means 1
	Known     string // folder of reflection data whose reasons are taken over; "" for none
}

// hopeless is how many images may be set aside before the first reason: the annotator does not work then.
const hopeless = 8

const (
	reasonsFile = "reasons.jsonl"
	asideFile   = "aside.jsonl"
	annotated   = 16 // images between two writes of reasons.jsonl
)

// given is a line of reasons.jsonl; an image is named by its path's seed and prompt.
type given struct {
	Prompt string `json:"prompt"`
	Seed   uint64 `json:"seed"`
	Reason string `json:"reason"`
}

// setAside is a line of aside.jsonl.
type setAside struct {
	Prompt string `json:"prompt"`
	Seed   uint64 `json:"seed"`
	Path   int32  `json:"path"`
	Error  string `json:"error"`
}

type imageName struct {
	prompt string
	seed   uint64
}

func nameOf(i Image) imageName { return imageName{i.Prompt, i.Seed} }

// of returns the reasons of wrong images by name; what is missing was set aside.
func (r Reasons) of(ctx context.Context, dir string, images []Image, progress Parts) (map[imageName]string, error) {
	known, err := r.known(dir)
	if err != nil {
		return nil, err
	}
	journal, err := os.OpenFile(filepath.Join(dir, reasonsFile), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("curate: reasons: %w", err)
	}
	defer journal.Close()
	var aside []setAside
	var open []Image
	for _, img := range images {
		if known[nameOf(img)] == "" {
			open = append(open, img)
		}
	}
	for at := 0; at < len(open); at += annotated {
		some := open[at:min(at+annotated, len(open))]
		reasons, without, err := r.ask(ctx, some)
		var b bytes.Buffer
		for i, reason := range reasons {
			if reason != "" {
				known[nameOf(some[i])] = reason
				if err := writeLine(&b, given{some[i].Prompt, some[i].Seed, reason}); err != nil {
					return nil, err
				}
			}
		}
		if _, werr := journal.Write(b.Bytes()); werr != nil {
			return nil, fmt.Errorf("curate: reasons: %w", werr)
		}
		if err != nil {
			return nil, err
		}
		if aside = append(aside, without...); len(known) == 0 && len(aside) >= hopeless {
			return nil, fmt.Errorf("curate: reasons: %s annotated none of the first %d images: %s", r.Name, len(aside), aside[0].Error)
		}
		if progress != nil {
			progress(len(images)-len(open)+at+len(some), len(images))
		}
	}
	return known, writeAside(dir, aside)
}

// ask annotates some images; a reason is "" where there is none. Reasons are returned beside an error too.
func (r Reasons) ask(ctx context.Context, some []Image) (reasons []string, aside []setAside, err error) {
	paths := make([]*cot.Path, len(some))
	for i, img := range some {
		paths[i] = &cot.Path{Index: int(img.Path), Seed: img.Seed, Prompt: cot.Prompt{Text: img.Prompt}, Step: int(img.Steps), Tokens: img.Final(), Sample: img.Final()}
	}
	pictures, err := r.Generator.Decode(ctx, paths)
	if err != nil {
		return nil, nil, fmt.Errorf("curate: reasons: %w", err)
	}
	reasons = make([]string, len(some))
	failures := make([]error, len(some))
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(max(r.Workers, 1))
	for i, img := range some {
		work.Go(func() error {
			m, err := geneval.ParseMetadata([]byte(img.Metadata))
			if err != nil {
				return err
			}
			reason, err := r.Annotate(ctx, pictures[i], m)
			switch {
			case errors.Is(err, ErrNoReason):
				failures[i] = err
				return nil
			case err == nil && reason == "":
				err = fmt.Errorf("path %d is labelled no, but the annotator finds nothing wrong (was it decoded with the tokenizer it was made with?)", img.Path)
			}
			if err != nil {
				return fmt.Errorf("curate: reasons: prompt %q: %w", img.Prompt, err)
			}
			reasons[i] = reason
			return nil
		})
	}
	err = work.Wait()
	for i, failure := range failures {
		if failure != nil {
			aside = append(aside, setAside{some[i].Prompt, some[i].Seed, some[i].Path, failure.Error()})
		}
	}
	return reasons, aside, err
}

// known reads the reasons there are. A line that was cut by a crash is taken off the journal.
func (r Reasons) known(dir string) (map[imageName]string, error) {
	out := map[imageName]string{}
	if r.Known != "" {
		rows, err := Read[Reflected](r.Known)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if !row.Correct {
				out[imageName{row.Prompt, row.Seed}] = row.Reason
			}
		}
	}
	name := filepath.Join(dir, reasonsFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("curate: reasons: %w", err)
	}
	if end := bytes.LastIndexByte(text, '\n') + 1; end < len(text) {
		if err := os.Truncate(name, int64(end)); err != nil {
			return nil, fmt.Errorf("curate: reasons: %w", err)
		}
		text = text[:end]
	}
	for i, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		var g given
		if err := json.Unmarshal(line, &g); err != nil {
			return nil, fmt.Errorf("curate: reasons: %s, line %d: %w", name, i+1, err)
		}
		out[imageName{g.Prompt, g.Seed}] = g.Reason
	}
	return out, nil
}

func writeLine(b *bytes.Buffer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("curate: reasons: %w", err)
	}
	b.Write(append(line, '\n'))
	return nil
}

// writeAside lists the images without a reason; no list if there are none.
func writeAside(dir string, aside []setAside) error {
	name := filepath.Join(dir, asideFile)
	if len(aside) == 0 {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("curate: reasons: %w", err)
		}
		return nil
	}
	var b bytes.Buffer
	for _, a := range aside {
		if err := writeLine(&b, a); err != nil {
			return err
		}
	}
	if err := atomicfile.WriteFile(name, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("curate: reasons: %w", err)
	}
	return nil
}

// rebuild writes all parts of rows whose number follows from the reasons there are, and takes away what an earlier build
// had more.
func rebuild[Row any](dir string, rows []Row, partSize int) error {
	parts := (len(rows) + partSize - 1) / partSize
	for part := range parts {
		if err := writePart(dir, part, rows[part*partSize:min((part+1)*partSize, len(rows))]); err != nil {
			return err
		}
	}
	for part := parts; ; part++ {
		err := os.Remove(filepath.Join(dir, partName(part)))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("curate: %w", err)
		}
	}
}
