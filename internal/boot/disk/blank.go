package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/micavm/mica/internal/boot/disk/probe"
)

const (
	samples    = 256
	sampleSize = 16 << 10
)

// blank reports whether a piece of a device is empty as far as reasonable
// reading can tell: its first two and last two MiB, and samples spread over the
// rest, are zero, but for what lies in except. If not, at is where the first
// byte is that is not zero.
//
// Two MiB, because one would see no file system in the place of a first
// partition whose table was wiped.
func blank(r io.ReaderAt, piece Extent, except ...Extent) (at int64, ok bool, err error) {
	end := piece.Start + piece.Size
	buf, zeros := make([]byte, 256<<10), make([]byte, 256<<10)
	check := func(from, to int64) bool {
		at, ok, err = zeroRange(r, max(from, piece.Start), min(to, end), except, buf, zeros)
		return err == nil && ok
	}
	if !check(piece.Start, piece.Start+2*mib) || !check(end-2*mib, end) {
		return at, false, err
	}
	for i := range int64(samples) {
		from := (piece.Start + piece.Size/(samples+1)*(i+1)) &^ 4095
		if !check(from, from+sampleSize) {
			return at, false, err
		}
	}
	return 0, true, nil
}

func zeroRange(r io.ReaderAt, from, to int64, except []Extent, buf, zeros []byte) (int64, bool, error) {
	for from < to {
		b := buf[:min(int64(len(buf)), to-from)]
		if n, err := r.ReadAt(b, from); n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, false, fmt.Errorf("reading %d bytes at %d: %w", len(b), from, err)
		}
		for _, e := range except {
			lo, hi := max(e.Start-from, 0), min(e.Start+e.Size-from, int64(len(b)))
			if lo < hi {
				clear(b[lo:hi])
			}
		}
		if !bytes.Equal(b, zeros[:len(b)]) {
			return from + int64(bytes.IndexFunc(b, func(c rune) bool { return c != 0 })), false, nil
		}
		from += int64(len(b))
	}
	return 0, true, nil
}

// neverUsed reports whether a partition with an intent on it holds at most what
// Prepare put there: nothing that is known, or its file system, never mounted.
func neverUsed(c probe.Content) bool {
	if !c.Known() {
		return true
	}
	return c.Type == "ext4" && len(c.All) == 1 && (c.Label == labelNew || c.Label == label) &&
		c.Ext.Mounts == 0 && c.Ext.Mounted == 0 && c.Ext.LastMounted == ""
}
