package experiment

import (
	"errors"

	"imagecot/cot"
)

func (p *Pipeline) openGenerator() error { return errors.New("wait") }
func (p *Pipeline) openJudge(name string) (cot.Judge, string, string, error) {
	return nil, "", "", errors.New("wait")
}
