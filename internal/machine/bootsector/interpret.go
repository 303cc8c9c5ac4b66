package bootsector

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// Tick is the clock of a Run: the guest counts every second one.
const Tick = 55 * time.Millisecond

// upAfter is the count from which on a Run's SSH server answers.
const upAfter = 6

// Run is the guest of ISO as its effects show it to whoever plays the computer
// in a test. It is kept across saving as JSON.
type Run struct {
	Says  string `json:"says"`
	Obeys bool   `json:"obeys"`
	Count int    `json:"count"`
	Spoke bool   `json:"spoke"`
}

// Load switches on a guest from an image that begins as ISO's do.
func Load(image io.ReaderAt) (Run, error) {
	data := make([]byte, loaded*512)
	if _, err := image.ReadAt(data, program*sector); err != nil && !errors.Is(err, io.EOF) {
		return Run{}, fmt.Errorf("booting: %w", err)
	}
	text, _, _ := bytes.Cut(data[textAt:], []byte{0})
	return Run{Says: string(text), Obeys: data[flagAt] != 0}, nil
}

// Tick returns what the guest writes to its serial port in one Tick.
func (r *Run) Tick() []string {
	var out []string
	if !r.Spoke {
		r.Spoke = true
		out = append(out, r.Says)
	}
	if r.Count++; r.Count%2 == 0 {
		out = append(out, fmt.Sprintf("#%04x\r\n", r.Count))
	}
	return out
}

// Up reports whether its SSH server answers by now.
func (r *Run) Up() bool { return r.Count > upAfter }
