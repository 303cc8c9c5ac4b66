package fakeqemu

import "golang.org/x/sys/unix"

// dup makes fd refer to what from does; not every Linux has dup2.
func dup(from, fd int) error { return unix.Dup3(from, fd, 0) }
