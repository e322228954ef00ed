// Command imagecot generates images with chain of thought: it verifies and chooses decoding paths step by step.
package main

import (
	"os"

	"imagecot/cli"
)

func main() { os.Exit(cli.Main()) }
