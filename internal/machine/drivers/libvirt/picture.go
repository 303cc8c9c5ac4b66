package libvirt

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
)

// maxSide bounds a picture's width and height.
const maxSide = 16384

// asPNG returns a whole picture in PNG, which newer QEMUs make.
func asPNG(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte("\x89PNG")) {
		return pngOfPPM(data)
	}
	if !bytes.HasSuffix(data, []byte("IEND\xaeB\x60\x82")) {
		return nil, errors.New("a PNG that is cut short")
	}
	return data, nil
}

// pngOfPPM turns the pictures of older QEMUs (netpbm's P6, 8 bits a colour)
// into PNG.
func pngOfPPM(data []byte) ([]byte, error) {
	r := bytes.NewReader(data)
	var w, h, depth int
	if n, err := fmt.Fscanf(r, "P6\n%d %d\n%d", &w, &h, &depth); err != nil || n != 3 {
		return nil, errors.New("neither PNG nor PPM")
	}
	if w < 1 || h < 1 || w > maxSide || h > maxSide || depth != 255 || r.Len() != 3*w*h+1 {
		return nil, fmt.Errorf("a damaged PPM of %dx%d", w, h)
	}
	pixels := data[len(data)-3*w*h:]
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for n := range w * h {
		img.SetRGBA(n%w, n/w, color.RGBA{R: pixels[3*n], G: pixels[3*n+1], B: pixels[3*n+2], A: 255})
	}
	var out bytes.Buffer
	err := png.Encode(io.Writer(&out), img)
	return out.Bytes(), err
}
