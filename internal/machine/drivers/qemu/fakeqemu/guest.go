package fakeqemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// tick is the guest's clock: it counts every second one.
const tick = 55 * time.Millisecond

// upAfter is when its SSH server answers.
const upAfter = 6

// guest is the program of drivertest.BootISO, by its effects.
type guest struct {
	Says  string `json:"says"`
	Obeys bool   `json:"obeys"`
	Count int    `json:"count"`
	Spoke bool   `json:"spoke"`
}

// readGuest finds the program on the image: at sector 20, its options at byte
// 0xff, its text at 0x100.
func readGuest(image io.ReaderAt) (guest, error) {
	data := make([]byte, 16*512)
	if _, err := image.ReadAt(data, 20*2048); err != nil && !errors.Is(err, io.EOF) {
		return guest{}, fmt.Errorf("booting: %w", err)
	}
	text, _, _ := bytes.Cut(data[0x100:], []byte{0})
	return guest{Says: string(text), Obeys: data[0xff] != 0}, nil
}

// tick returns what the guest writes in one tick of its clock.
func (g *guest) tick() []string {
	var out []string
	if !g.Spoke {
		g.Spoke = true
		out = append(out, g.Says)
	}
	if g.Count++; g.Count%2 == 0 {
		out = append(out, fmt.Sprintf("#%04x\r\n", g.Count))
	}
	return out
}

func (g *guest) up() bool { return g.Count > upAfter }
