package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// screenArgs give the machine a screen. QEMU finds a free port by itself.
// Whoever can open ports of this computer can see the screen: as with
// VirtualBox's remote display under CernVM-Launch, there is no password.
func screenArgs(h hardware, s machine.Spec) []string {
	if s.Display != machine.DisplayVNC {
		return nil
	}
	if h.isARM() { // no VGA, and no keyboard
		return []string{
			"-device", "virtio-gpu-pci,id=screen", "-vnc", "127.0.0.1:0,to=9999",
			"-device", "qemu-xhci,id=usb", "-device", "usb-kbd,bus=usb.0", "-device", "usb-tablet,bus=usb.0",
		}
	}
	return []string{"-device", "VGA,id=screen", "-vnc", "127.0.0.1:0,to=9999"}
}

// noScreen is the error for a machine without one.
func noScreen(i machine.Instance) error {
	return fail.New(fail.Usage, "%q was made without a screen", i.Spec.Name).
		Hint("'mica console %s' shows its serial console", i.Spec.Name).
		Hint("machines made with --display vnc have one")
}

// View implements machine.Viewer.
func (d *Driver) View(ctx context.Context, i machine.Instance) (string, error) {
	if i.Spec.Display != machine.DisplayVNC {
		return "", noScreen(i)
	}
	m, err := connect(ctx, i.Spec.Dir, controlSocket)
	if err != nil {
		return "", err
	}
	defer m.close()
	var vnc struct {
		Enabled       bool
		Host, Service string
	}
	if err := m.call(ctx, "query-vnc", nil, &vnc); err != nil {
		return "", err
	}
	if !vnc.Enabled {
		return "", fail.New(fail.Failed, "qemu shows the screen of %q nowhere", i.Spec.Name)
	}
	return "vnc://" + vnc.Host + ":" + vnc.Service, nil
}

// Screenshot implements machine.Screener. QEMU writes a portable pixmap, which
// every build can, into a file of the machine's folder.
func (d *Driver) Screenshot(ctx context.Context, i machine.Instance, w io.Writer) error {
	if i.Spec.Display == "" {
		return noScreen(i)
	}
	dir, err := os.MkdirTemp(i.Spec.Dir, "screen-")
	if err != nil {
		return fmt.Errorf("taking a screenshot: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a file of a moment
	path := filepath.Join(dir, "screen.ppm")
	m, err := connect(ctx, i.Spec.Dir, controlSocket)
	if err != nil {
		return err
	}
	defer m.close()
	if err := m.call(ctx, "screendump", map[string]string{"filename": path}, nil); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("taking a screenshot: %w", err)
	}
	defer f.Close()
	picture, err := readPPM(f)
	if err != nil {
		return fmt.Errorf("reading qemu's screenshot: %w", err)
	}
	return png.Encode(w, picture)
}

// maxSide bounds what a picture may claim to be.
const maxSide = 16384

// readPPM reads a binary portable pixmap as QEMU writes it: P6, with 255 as the
// brightest (netpbm's ppm(5)).
func readPPM(r io.Reader) (image.Image, error) {
	in := bufio.NewReader(r)
	var kind string
	var width, height, brightest int
	if _, err := fmt.Fscan(in, &kind, &width, &height, &brightest); err != nil {
		return nil, err
	}
	if kind != "P6" || brightest != 255 || width < 1 || height < 1 || width > maxSide || height > maxSide {
		return nil, errors.New("not a pixmap of 24 bits")
	}
	if _, err := in.ReadByte(); err != nil {
		return nil, err
	}
	picture := image.NewNRGBA(image.Rect(0, 0, 0, 0))
	row := make([]byte, 3*width)
	var pixels []byte // grows with what is there, not with what is claimed
	for range height {
		if _, err := io.ReadFull(in, row); err != nil {
			return nil, err
		}
		for x := 0; x < len(row); x += 3 {
			c := color.NRGBA{row[x], row[x+1], row[x+2], 255}
			pixels = append(pixels, c.R, c.G, c.B, c.A)
		}
	}
	picture.Pix, picture.Stride, picture.Rect = pixels, 4*width, image.Rect(0, 0, width, height)
	return picture, nil
}
