package mount_test

import (
	"errors"
	"syscall"
	"time"
	"unsafe"

	"github.com/micavm/mica/cvmfs/cvmfstest"
)

func mtime(l cvmfstest.Listed) time.Time { return time.Unix(l.MTime, int64(l.MTimeNS)) }

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(&b[0]) }

func isErrno(err error, want syscall.Errno) bool { return errors.Is(err, want) }

// nobody is a process without privileges.
func nobody() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}
