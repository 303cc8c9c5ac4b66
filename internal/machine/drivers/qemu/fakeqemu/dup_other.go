//go:build !linux

package fakeqemu

import (
	"os"

	"golang.org/x/sys/unix"
)

func dup(from, fd int) error { return unix.Dup2(from, fd) }

func lock(*os.File, int16) error { return nil }
