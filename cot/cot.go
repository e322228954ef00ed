// Package cot is the vocabulary of image generation with chain-of-thought reasoning (Guo et al., arXiv 2501.13926):
// a Generator decodes paths step by step, a Judge answers yes/no questions about step images, and a Strategy
// chooses one path. The package holds types and small interfaces only; it knows no tensors, no models and no files.
package cot

import (
	"context"
	"image"
	"math"
)

// Prompt is the text that an image shall follow. ID names it in traces and file names; it may be empty.
type Prompt struct {
	ID   string `json:"id,omitempty"`
	Text string `json:"text"`
}

// Masked marks an image token that is not settled yet.
const Masked int32 = -1

// Path is one decoding path: a candidate image in the making. It depends on (run seed, prompt, Index) alone.
type Path struct {
	Index  int    // position among the N candidates, from 0
	Seed   uint64 // everything random about the path follows from it
	Prompt Prompt
	Step   int     // decoding steps done, 0..Steps()
	Tokens []int32 // settled image tokens, Masked elsewhere; all settled after the last step
	Sample []int32 // the complete grid sampled at the latest step: what the step image shows
	// LogConf is the sum over the grid of log p of the sampled tokens at the latest step (0 for settled ones).
	LogConf float64
}

// QuestionKind says which of the paper's questions is asked (Appendix B).
type QuestionKind string

// The questions of the paper.
const (
	Outcome    QuestionKind = "outcome"    // ORM: does the final image follow the prompt?
	Process    QuestionKind = "process"    // PRM: is this step on the right way?
	Clarity    QuestionKind = "clarity"    // PARM, first task: is the step image clear enough to be judged?
	Potential  QuestionKind = "potential"  // PARM, second task: can a good final image come out of this step?
	Reflection QuestionKind = "reflection" // PARM++: does the final image follow the prompt?
	Reason     QuestionKind = "reason"     // PARM++, after a reflection's "no": what is wrong? Answered in words
)

// Turn is an earlier question in the same conversation together with the answer that was taken for granted.
type Turn struct {
	Text   string `json:"text"`
	Answer string `json:"answer"`
}

// Question is one yes/no question about one step image.
type Question struct {
	Kind   QuestionKind
	Prompt Prompt
	Text   string      // the words asked, without the image tag
	After  []Turn      // earlier turns about the same image, oldest first (PARM: clarity "yes", then potential)
	Image  image.Image // the step image
	Tokens []int32     // the image's tokens, for judges that read them instead of pixels (self-verification)
	Path   int         // Path.Index, for traces
	Step   int         // Path.Step, for traces
}

// Verdict is a judge's answer: natural logarithms of P(yes) and P(no) at the first answer token, each summed over
// spellings. The two probabilities need not add up to 1.
type Verdict struct {
	LogPYes float64 `json:"log_p_yes"`
	LogPNo  float64 `json:"log_p_no"`
}

// Yes reports whether yes is the likelier answer. A tie counts as no.
func (v Verdict) Yes() bool { return v.LogPYes > v.LogPNo }

// PYes is P(yes) in 0..1, for display only: compare LogPYes, which does not round to ties.
func (v Verdict) PYes() float64 { return math.Exp(v.LogPYes) }

// Valid reports whether both logarithms are numbers (NaN never wins and never counts as yes).
func (v Verdict) Valid() bool { return !math.IsNaN(v.LogPYes) && !math.IsNaN(v.LogPNo) }

// Generator decodes paths step by step. Every method takes a batch, so that truncation shrinks the next one.
type Generator interface {
	// Steps is the number of decoding steps of a whole path.
	Steps() int
	// Start makes one path a seed, at step 0 with all tokens masked. Index counts from 0 in the order of seeds.
	Start(ctx context.Context, p Prompt, seeds []uint64) ([]*Path, error)
	// Advance does one decoding step of each path, in place. The paths may stand at different steps.
	Advance(ctx context.Context, paths []*Path) error
	// Fork is a copy of the path that draws other noise from here on.
	Fork(path *Path, seed uint64) *Path
	// Decode turns the Sample of each path into its step image.
	Decode(ctx context.Context, paths []*Path) ([]image.Image, error)
}

// Judge answers yes/no questions, in the order asked.
type Judge interface {
	Ask(ctx context.Context, qs []Question) ([]Verdict, error)
}

// Strategy chooses one of the paths that the seeds start.
type Strategy interface {
	Select(ctx context.Context, g Generator, p Prompt, seeds []uint64) (Selection, error)
}

// Explainer answers a question in words: why an image does not follow its prompt (PARM++).
type Explainer interface {
	Explain(ctx context.Context, q Question) (reason string, err error)
}

// Corrector generates again from prompt, unsatisfactory image and reason (PARM++). The new path is finished; its noise
// follows from the seed.
type Corrector interface {
	Correct(ctx context.Context, p Prompt, bad *Path, reason string, seed uint64) (*Path, error)
}

// Cost is what a selection spent.
type Cost struct {
	DecodingSteps int     `json:"decoding_steps"` // path steps, one for each path and step
	JudgeCalls    int     `json:"judge_calls"`    // questions asked, reasons included
	ImagesDecoded int     `json:"images_decoded"` // step images decoded
	Seconds       float64 `json:"seconds"`
}

// Add returns the sum of two costs.
func (c Cost) Add(d Cost) Cost {
	return Cost{c.DecodingSteps + d.DecodingSteps, c.JudgeCalls + d.JudgeCalls, c.ImagesDecoded + d.ImagesDecoded, c.Seconds + d.Seconds}
}

// Asked is one question and its verdict in a trace.
type Asked struct {
	Step    int          `json:"step"`
	Kind    QuestionKind `json:"kind"`
	Text    string       `json:"text"`
	Verdict Verdict      `json:"verdict"`
}

// ReflectionTrace is one look of PARM++ at a final image, and what came of it.
type ReflectionTrace struct {
	Path      int     `json:"path"` // index of the path that was looked at
	Question  string  `json:"question"`
	Verdict   Verdict `json:"verdict"`
	Why       string  `json:"why,omitempty"`    // the question that was answered by the reason
	Reason    string  `json:"reason,omitempty"` // what is wrong, in the judge's words
	Corrected int     `json:"corrected"`        // index of the path that was made from it, -1 for none
}

// PathTrace is the story of one path.
type PathTrace struct {
	Index       int     `json:"index"`
	Seed        uint64  `json:"seed"`
	Parent      int     `json:"parent"`             // index of the path it was forked from or corrects, -1 for none
	Corrects    bool    `json:"corrects,omitempty"` // the path is no fork: it was made anew, in view of its parent
	Steps       int     `json:"steps"`              // decoding steps taken
	Asked       []Asked `json:"asked,omitempty"`
	TruncatedAt int     `json:"truncated_at,omitempty"` // step at which the path was given up, 0 if it was not
	Reason      string  `json:"reason,omitempty"`       // why it was truncated, or why it won
}

// Selection is what a strategy chose and the whole reasoning behind it.
type Selection struct {
	Prompt   Prompt      `json:"prompt"`
	Strategy string      `json:"strategy"`
	Winner   *Path       `json:"-"`
	WinnerAt int         `json:"winner"` // index into Traces
	NPrime   int         `json:"n_prime"`
	Traces   []PathTrace `json:"paths"`
	Cost     Cost        `json:"cost"`

	Reflections []ReflectionTrace `json:"reflections,omitempty"` // PARM++: in the order of its rounds
}

// Observer is shown every step image that a judge is asked about, while a strategy runs; reports implement it.
type Observer interface {
	Judged(path *Path, img image.Image)
}
