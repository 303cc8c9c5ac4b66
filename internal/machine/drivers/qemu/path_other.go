//go:build !linux

package qemu

import "os"

// shortPath returns dir itself: where there is no /proc, a folder with a path
// of some ninety bytes is the most that sockets bear.
func shortPath(dir string) (path string, done func(), err error) {
	_, err = os.Stat(dir)
	return dir, func() {}, err
}
