package mount_test

import (
	"time"
	"unsafe"
)

func (l line) time() time.Time { return time.Unix(l.MTime, l.MTimeNS) }

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(&b[0]) }
