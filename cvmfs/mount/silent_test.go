package mount_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs/mount"
)

// TestKernelAsksOnce reads a pinned tree twice. What the kernel has it must not
// ask for again, or reading costs more than on a disk for ever.
func TestKernelAsksOnce(t *testing.T) {
	w := newWorkshop(t)
	const files = 40 // more than stay open
	for i := range files {
		w.write(filepath.Join("d", string(rune('A'+i))), "content of "+string(rune('A'+i)))
	}
	big := bytes.Repeat([]byte("more than one read of the kernel takes\n"), 20000)
	w.write("big", string(big))
	w.publish()
	w.tag = "trunk"
	at, r := w.mount(mount.Options{})
	visit := func() {
		list, err := os.ReadDir(filepath.Join(at, "d"))
		if err != nil || len(list) != files {
			t.Fatalf("%d names, %v; want %d", len(list), err, files)
		}
		for _, e := range list {
			if text, err := os.ReadFile(filepath.Join(at, "d", e.Name())); err != nil || string(text) != "content of "+e.Name() {
				t.Errorf("%s: %q, %v", e.Name(), text, err)
			}
		}
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				if text, err := os.ReadFile(filepath.Join(at, "big")); err != nil || !bytes.Equal(text, big) {
					t.Errorf("big file: %d bytes, %v", len(text), err)
				}
			})
		}
		readers.Wait()
	}
	visit()
	before := r.Stats()
	visit()
	if after := r.Stats(); after.CacheHits != before.CacheHits || after.Objects != before.Objects {
		t.Errorf("the second time, %d objects were opened", after.CacheHits-before.CacheHits+after.Objects-before.Objects)
	}
}

// TestListingFollowsRevision lists a directory that changes: what the kernel
// keeps of it must not outlive the revision.
func TestListingFollowsRevision(t *testing.T) {
	w := newWorkshop(t)
	// The kernel compares the directory's own time, and is not to be helped by it.
	same := func() {
		if err := os.Chtimes(filepath.Join(w.source, "d"), time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	w.write("d/one", "1")
	same()
	w.publish()
	at, r := w.mount(mount.Options{KernelTimeout: time.Millisecond})
	names := func() (list []string) {
		entries, err := os.ReadDir(filepath.Join(at, "d"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	for range 3 {
		if got := names(); len(got) != 1 {
			t.Fatalf("names %q", got)
		}
	}
	w.write("d/two", "2")
	same()
	w.publish()
	if changed, err := r.Refresh(t.Context()); err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	for range 3 {
		if got := names(); len(got) != 2 {
			t.Errorf("names %q in the new revision", got)
		}
	}
}
