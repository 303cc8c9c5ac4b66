//go:build !linux

package fakeqemu

import "golang.org/x/sys/unix"

func dup(from, fd int) error { return unix.Dup2(from, fd) }
