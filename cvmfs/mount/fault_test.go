package mount_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/internal/tier"
)

// patience is much longer than any read may take with the timeouts of these
// tests, and is waited for only if one hangs.
const patience = time.Minute

// within fails the test if f does not return.
func within(t testing.TB, what string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatalf("%s hangs", what)
		return nil
	}
}

// Whatever a server does, a read through the kernel gives the right bytes or
// EIO, in bounded time; and once the server is well again nothing is left of it.
func TestFaultyServer(t *testing.T) {
	tier.Root(t)
	repo := cvmfstest.Small(t)
	want := cvmfstest.Expect(t, 3)
	for name, fault := range cvmfstest.Faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cvmfstest.NewRogue(t, repo.Dir)
			opt := options(t, repo, server.Base)
			opt.Timeout = 300 * time.Millisecond
			at, _ := mountWith(t, opt, mount.Options{})
			server.Set(func(path string, _ int) cvmfstest.Fault {
				if cvmfstest.IsObject(path) {
					return fault
				}
				return nil
			})
			for what, f := range map[string]func() error{
				"reading a file":                func() error { return readRight(at, want["/README"]) },
				"reading a chunked file":        func() error { return readRight(at, want["/big/chunked"]) },
				"reading in a nested catalogue": func() error { return readRight(at, want["/nested/one"]) },
				"listing a nested catalogue": func() error {
					_, err := os.ReadDir(at + "/nested")
					return err
				},
			} {
				if err := within(t, what, f); !errors.Is(err, unix.EIO) {
					t.Errorf("%s: %v, want %v", what, err, unix.EIO)
				}
			}
			server.Set(nil)
			cvmfstest.Compare(t, tree(t, at), want, unreadable)
		})
	}
}

// readRight reads a file and compares what came with what is expected.
func readRight(at string, want cvmfstest.Listed) error {
	f, err := os.Open(at + want.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("%d bytes of %q with sha256 %s, want %s", n, want.Path, got, want.SHA256)
	}
	return nil
}

// A fault in the middle of a file that is open and half read: what was read stays
// right, the rest is an error and not the end of the file, and comes later.
func TestFaultInTheMiddle(t *testing.T) {
	tier.Root(t)
	repo := cvmfstest.Small(t)
	server := cvmfstest.NewRogue(t, repo.Dir)
	at, r := mountWith(t, options(t, repo, server.Base), mount.Options{})
	chunks, err := r.Chunks(t.Context(), "/big/chunked")
	if err != nil || len(chunks) < 4 {
		t.Fatalf("%d chunks, %v", len(chunks), err)
	}
	last := "/" + chunks[len(chunks)-1].Hash.ObjectPath('P')
	server.Set(func(path string, _ int) cvmfstest.Fault {
		if path == last {
			return cvmfstest.Faults["garbles"]
		}
		return nil
	})
	want := cvmfstest.Expect(t, 3)["/big/chunked"]
	if err := within(t, "reading", func() error { return readRight(at, want) }); !errors.Is(err, unix.EIO) {
		t.Errorf("reading: %v, want %v", err, unix.EIO)
	}
	f, err := os.Open(at + want.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := f.ReadAt(make([]byte, 100), 0); n != 100 || err != nil {
		t.Errorf("the first bytes: %d, %v", n, err)
	}
	if n, err := f.ReadAt(make([]byte, 100), want.Size-100); n != 0 || !errors.Is(err, unix.EIO) {
		t.Errorf("the last bytes: %d, %v, want %v", n, err, unix.EIO)
	}
	server.Set(nil)
	if n, err := f.ReadAt(make([]byte, 100), want.Size-100); n != 100 || err != nil {
		t.Errorf("the last bytes, from an honest server: %d, %v", n, err)
	}
	if err := readRight(at, want); err != nil {
		t.Error(err)
	}
}
