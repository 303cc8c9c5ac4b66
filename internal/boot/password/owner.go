package password

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives a rewritten file its owner back: shadow belongs to a group.
func keepOwner(file string, fi fs.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if err := os.Chown(file, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("restoring the owner: %w", err)
	}
	return nil
}
