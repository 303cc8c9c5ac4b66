//go:build !linux

package qemu

import "github.com/micavm/mica/internal/fail"

func kvmOpens(string) error {
	return fail.New(fail.HostLacks, "KVM is a part of Linux").Hint("pass --accel tcg")
}

func kvmWorks(device, _ string) error { return kvmOpens(device) }
