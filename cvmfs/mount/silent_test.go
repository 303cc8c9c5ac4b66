package mount_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs/mount"
)

// TestKernelAsksOnce reads a tree twice. What the kernel has it must not ask for
// again, or reading costs more than on a disk for ever.
func TestKernelAsksOnce(t *testing.T) {
	for _, tag := range []string{"trunk", ""} {
		t.Run("tag="+tag, func(t *testing.T) { asksOnce(t, tag) })
	}
}

func asksOnce(t *testing.T, tag string) {
	w := newWorkshop(t)
	const files = 40 // more than stay open
	for i := range files {
		w.write(filepath.Join("d", string(rune('A'+i))), "content of "+string(rune('A'+i)))
	}
	big := bytes.Repeat([]byte("more than one read of the kernel takes\n"), 20000)
	w.write("big", string(big))
	w.publish()
	w.tag = tag
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

// kernels runs a test with a kernel that opens by itself, and with one that asks.
func kernels(t *testing.T, test func(t *testing.T, opt mount.Options)) {
	for name, opt := range map[string]mount.Options{"silent": {}, "asks": {CountOpens: true}} {
		opt.KernelTimeout = time.Millisecond
		t.Run(name, func(t *testing.T) { test(t, opt) })
	}
}

// TestListingFollowsRevision lists a directory that changes: what the kernel
// keeps of it must not outlive the revision.
func TestListingFollowsRevision(t *testing.T) { kernels(t, listingFollows) }

func listingFollows(t *testing.T, opt mount.Options) {
	w := newWorkshop(t)
	// The kernel compares the directory's own time, and is not to be helped by it.
	same := func() {
		if err := os.Chtimes(filepath.Join(w.source, "d"), time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	const many = 600 // more than one answer holds, and than one page
	for i := range many {
		w.write(fmt.Sprintf("d/a rather long name for a file, number %03d", i), "")
	}
	same()
	w.publish()
	at, r := w.mount(opt)
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
		if got := names(); len(got) != many {
			t.Fatalf("%d names", len(got))
		}
	}
	w.write("d/00 one more, and the first", "2")
	same()
	w.publish()
	if changed, err := r.Refresh(t.Context()); err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	for range 3 {
		if got := names(); len(got) != many+1 {
			t.Errorf("%d names in the new revision, want %d", len(got), many+1)
		}
	}
	// One who is in the middle when the revision changes gets each name once, and
	// leaves nothing behind for those who come after.
	d, err := os.Open(filepath.Join(at, "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	seen := map[string]int{}
	read := func() bool {
		part, err := d.Readdirnames(50)
		for _, name := range part {
			seen[name]++
		}
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return err == nil
	}
	read()
	w.write("d/01 and another one", "3")
	same()
	w.publish()
	if changed, err := r.Refresh(t.Context()); err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	for read() {
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%q was listed %d times", name, n)
		}
	}
	if len(seen) < many+1 {
		t.Errorf("%d names, want at least %d", len(seen), many+1)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for range 3 {
		if got := names(); len(got) != many+2 {
			t.Errorf("%d names in the newest revision, want %d", len(got), many+2)
		}
	}
}

// TestOldContentOfOpenFile holds files open across a change of the revision and
// reads them only then: each shows what it was opened with, and its size, while
// its path shows what is there now.
func TestOldContentOfOpenFile(t *testing.T) { kernels(t, oldContent) }

func oldContent(t *testing.T, opt mount.Options) {
	w := newWorkshop(t)
	content := func(letter string) string { return strings.Repeat(letter+" and many more of it\n", 1_000_000) } // in pieces
	w.write("small", "old")
	w.write("gone", "old")
	w.write("big", content("a"))
	w.publish()
	at, r := w.mount(opt)
	held := map[string]*os.File{}
	for _, name := range []string{"small", "gone", "big"} {
		f, err := os.Open(filepath.Join(at, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		held[name] = f
	}
	w.write("small", "newer")
	w.write("big", content("b"))
	if err := os.Remove(filepath.Join(w.source, "gone")); err != nil {
		t.Fatal(err)
	}
	w.publish()
	if changed, err := r.Refresh(t.Context()); err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	time.Sleep(20 * time.Millisecond) // the kernel forgets
	for name, want := range map[string]string{"small": "newer", "big": content("b")} {
		if got, err := os.ReadFile(filepath.Join(at, name)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes %.20q, %v; want %d bytes", name, len(got), got, err, len(want))
		}
	}
	if _, err := os.Stat(filepath.Join(at, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
	for name, want := range map[string]string{"small": "old", "gone": "old", "big": content("a")} {
		info, err := held[name].Stat()
		if err != nil || info.Size() != int64(len(want)) {
			t.Errorf("%s, opened before: %v, %v; want %d bytes", name, info, err, len(want))
		}
		got, err := io.ReadAll(held[name])
		if err != nil || string(got) != want {
			t.Errorf("%s, opened before: %d bytes %.20q, %v; want %d bytes %.20q", name, len(got), got, err, len(want), want)
		}
	}
}
