package qemu

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// shortPath returns a short name for dir, good until done is called: a
// socket's path has 108 bytes at most, a folder's may have thousands.
func shortPath(dir string) (path string, done func(), err error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), func() { _ = unix.Close(fd) }, nil
}
