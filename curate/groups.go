package curate

import "fmt"

// group is the images of one prompt by their label.
type group struct {
	prompt  string
	no, yes []Image
}

// readRanking reads ranking data, from which other data are made, and their fingerprint.
func readRanking(from string) ([]Image, string, error) {
	images, err := Read[Image](from)
	if err != nil {
		return nil, "", err
	}
	hash, err := Fingerprint(from)
	return images, hash, err
}

// groups puts ranking data together by prompt, in the order of their first appearance, and refuses images whose grids
// differ in size.
func groups(from string, images []Image) ([]group, error) {
	var all []group
	at := map[string]int{}
	for _, img := range images {
		if img.Steps < 1 || len(img.Final()) == 0 || len(img.Final()) != len(images[0].Final()) {
			return nil, fmt.Errorf("curate: %s: path %d of %q has %d steps and %d tokens, not what the first path has",
				from, img.Path, img.Prompt, img.Steps, len(img.Samples))
		}
		i, ok := at[img.Prompt]
		if !ok {
			i = len(all)
			at[img.Prompt] = i
			all = append(all, group{prompt: img.Prompt})
		}
		if img.Correct {
			all[i].yes = append(all[i].yes, img)
		} else {
			all[i].no = append(all[i].no, img)
		}
	}
	return all, nil
}
