package machine

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnlockDespiteACopy frees a lock whose descriptor another program has a copy
// of, as every program has between its fork and its exec.
func TestUnlockDespiteACopy(t *testing.T) {
	dir := t.TempDir()
	l, err := newLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(l.f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer os.NewFile(uintptr(fd), "copy").Close()
	l.unlock()
	again, err := tryLock(dir)
	if err != nil {
		t.Fatalf("locking after unlock: %v", err)
	}
	again.unlock()
}
