package world

import "strings"

// Mirror flips an image [Side, Side, 3], row by row, from left to right in place. Every shape is its own mirror image, so
// that the result is a picture of the world again, and MirrorText of a true prompt is true of it.
func Mirror[P any](pixels []P) {
	for y := range Side {
		row := pixels[y*Side*3 : (y+1)*Side*3]
		for x := range Side / 2 {
			for c := range 3 {
				i, j := 3*x+c, 3*(Side-1-x)+c
				row[i], row[j] = row[j], row[i]
			}
		}
	}
}

// MirrorText exchanges the words left and right.
func MirrorText(text string) string {
	words := strings.Split(text, " ")
	for i, w := range words {
		switch w {
		case "left":
			words[i] = "right"
		case "right":
			words[i] = "left"
		}
	}
	return strings.Join(words, " ")
}
