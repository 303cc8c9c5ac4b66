//go:build ignore

// tinyiso writes the image of a guest that does next to nothing, for machines
// whose boot is not what is measured: go run bench/tinyiso.go > tiny.iso
package main

import (
	"os"

	"github.com/micavm/mica/internal/machine/bootsector"
)

func main() {
	if _, err := os.Stdout.Write(bootsector.ISO(bootsector.Guest{Says: "tiny\r\n"})); err != nil {
		os.Exit(1)
	}
}
