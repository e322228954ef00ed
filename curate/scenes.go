package curate

import (
	"fmt"
	"math"

	"imagecot/geneval"
	"imagecot/internal/prng"
	"imagecot/world"
)

// Scene names what a prompt asks for, however it is put (geneval.Key): to leave out "a left of b" and to train on "b right
// of a" would leave out nothing. A prompt of no known form is its own scene.
func Scene(m geneval.Metadata) string {
	key, err := geneval.Key(m)
	if err != nil {
		return m.Prompt
	}
	return key
}

// rowScene is the Scene of a row of curated data.
func rowScene(prompt, metadata string) string {
	m, err := geneval.ParseMetadata([]byte(metadata))
	if err != nil {
		return prompt
	}
	return Scene(m)
}

// Scene is what the row's prompt asks for; the other rows have it too.
func (a asked) Scene() string      { return rowScene(a.Prompt, a.Metadata) }
func (i Image) Scene() string      { return rowScene(i.Prompt, i.Metadata) }
func (s Step) Scene() string       { return rowScene(s.Prompt, s.Metadata) }
func (r Parm) Scene() string       { return rowScene(r.Prompt, r.Metadata) }
func (r Reflected) Scene() string  { return rowScene(r.Prompt, r.Metadata) }
func (r Correction) Scene() string { return rowScene(r.Prompt, r.Metadata) }
func (r Pair) Scene() string       { return rowScene(r.Prompt, r.Metadata) }

// Test says whether a scene is a test prompt's: of the tiny world, or of GenEval.
func Test(scene string) bool { return world.HeldOut(scene) || geneval.InTest(scene) }

// Validation says whether a scene is kept for choosing among trained models: the given share of scenes, the same for every
// kind of data. Test prompts play no part in it.
func Validation(scene string, share float64) bool {
	return float64(prng.Derive(0, "validation\x00"+scene))/math.MaxUint64 < share
}

// LeftOut says whether a training with this share of validation scenes leaves a scene out.
func LeftOut(scene string, share float64) bool { return Test(scene) || Validation(scene, share) }

// ReadTraining is Read for training. A row of a test prompt's scene is an error: such data are made to measure with.
func ReadTraining[Row interface{ Scene() string }](from string) ([]Row, error) {
	var all []Row
	err := eachTraining(from, func(r Row, _ string) { all = append(all, r) })
	return all, err
}

// eachTraining is ReadTraining part by part, as eachRow.
func eachTraining[Row interface{ Scene() string }](from string, each func(r Row, scene string)) error {
	return eachRow(from, func(r Row) error {
		scene := r.Scene()
		if Test(scene) {
			return fmt.Errorf("curate: %s holds test prompts (%s): measure with it, and train on data that were made without --test", from, scene)
		}
		each(r, scene)
		return nil
	})
}
