package delivery

import (
	"bytes"
	"io"

	"github.com/micavm/mica/internal/fail"
)

// The floppy exchange of CernVM-Launch: two halves, one for each direction, and
// in the end a flag for each that says whether there is something to read.
//
// Compat: libcernvm src/floppyIO.cpp: the host's half may have 14334 bytes, and the
// guest's begins at byte 14335.
const (
	FloppySize = 28672            // bytes of the image
	FloppyData = FloppySize/2 - 2 // bytes of context that fit
	toGuest    = FloppySize - 2   // offset of the flag of the host's half
	toHost     = FloppySize - 1   // of the guest's
	guestsHalf = FloppyData + 1   // where the guest's half begins
	floppyKind = "floppy"         // in Found
	rawSystem  = "none"           // in Found
)

// WriteFloppy writes the image of the floppy disk through which CernVM-Launch
// exchanges data with a machine: the context as it is, without a file system and
// without metadata. The error has class Usage where the context does not fit.
//
// Differs: libcernvm src/floppyIO.cpp cuts what does not fit.
func WriteFloppy(w io.Writer, userData []byte) error {
	if len(userData) > FloppyData {
		return fail.New(fail.Usage, "%d bytes do not fit on the exchange floppy, which takes %d", len(userData), FloppyData).
			Hint("use a config drive: mica context iso, or mica context drive")
	}
	if bytes.IndexByte(userData, 0) >= 0 {
		return fail.New(fail.Usage, "the context has NUL bytes, with which the exchange floppy ends its text").
			Hint("use a config drive: mica context iso, or mica context drive")
	}
	image := make([]byte, FloppySize)
	copy(image, userData)
	if len(userData) > 0 {
		image[toGuest] = 1
	}
	_, err := w.Write(image)
	return err
}

// readFloppy takes the context from an exchange floppy. There is nothing to know
// one by but its size, its flags and the padding.
func (f *Found) readFloppy(r io.ReaderAt, size int64) bool {
	if size != FloppySize {
		return false
	}
	image := make([]byte, FloppySize)
	if n, err := r.ReadAt(image, 0); n < len(image) {
		_ = err // a file that shrank is no floppy
		return false
	}
	text, padding, _ := bytes.Cut(image[:guestsHalf], []byte{0})
	if image[toGuest] > 1 || image[toHost] > 1 || len(text) > FloppyData || len(bytes.Trim(padding, "\x00")) > 0 {
		return false
	}
	if image[toGuest] == 0 && len(text) == 0 && image[toHost] == 0 {
		return false // nothing but zeros: any empty disk
	}
	f.Kind, f.System, f.UserData, f.Files = floppyKind, rawSystem, text, []ListedFile{}
	return true
}
