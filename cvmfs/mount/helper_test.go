package mount_test

import (
	"errors"
	"syscall"
	"time"
	"unsafe"
)

func (l line) time() time.Time { return time.Unix(l.MTime, l.MTimeNS) }

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(&b[0]) }

func isErrno(err error, want syscall.Errno) bool { return errors.Is(err, want) }
