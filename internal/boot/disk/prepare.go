package disk

import (
	"context"
	"errors"
	"io"
	"log/slog"
)

// ErrReboot says that the file system check repaired something that needs a
// restart before the file system may be mounted.
var ErrReboot = errors.New("the file system check asks for a restart")

// Tools are the programs and doors to the outside that Prepare and Resize use.
type Tools struct {
	MkfsExt4  string // mke2fs; "" looks for "mke2fs" in PATH
	FsckExt4  string // e2fsck
	Resize2fs string // resize2fs

	// Exec runs a program to its end and returns both outputs together and the
	// exit code; err is for a program that could not be run or was killed. nil
	// uses os/exec; process 1 passes its own, so that its reaper knows the child.
	Exec func(ctx context.Context, argv []string) (output []byte, code int, err error)

	Roots Roots     // where /sys and /dev are
	Rand  io.Reader // for identifiers; nil is crypto/rand
}

// UROOT is a checked file system that is ready to be mounted.
type UROOT struct {
	Device string // device file; empty for a tmpfs
	Fresh  bool   // made just now: it has no directories yet
	Size   int64  // bytes of the device, or of the tmpfs
	UUID   string
	RAM    bool // mount a tmpfs of Size bytes instead
}

// Prepare carries a choice out: it partitions, formats and checks, as far as
// the choice asks for it, and never mounts. It looks at the device again first
// and refuses if it is not what Choose saw. Stopped at any moment it leaves
// either nothing, or a device that the next Scan reports as Unfinished.
func Prepare(ctx context.Context, c Choice, tools Tools, log *slog.Logger) (UROOT, error) {
	return prepare(ctx, c, tools, log)
}
