package fakeqemu

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

func dup(from, fd int) error { return unix.Dup3(from, fd, 0) }

// lock takes or frees an image as QEMU does: for as long as it is open, against
// everybody else who opens it.
func lock(f *os.File, kind int16) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Whence: io.SeekStart})
}
