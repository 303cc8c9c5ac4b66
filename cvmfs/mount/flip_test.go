package mount_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/internal/tier"
)

// Readers go on while one revision follows the other: whatever they read is all of
// one revision's content, with the size that belongs to it, and never an error.
func TestReadersWhileRevisionsChange(t *testing.T) { kernels(t, readWhileChanging) }

func readWhileChanging(t *testing.T, opt mount.Options) {
	const files, big = 24, 10 // the tenth is in pieces, in most revisions
	content := func(file, revision int) string {
		line := fmt.Sprintf("%d file %d\n", revision, file)
		lines := 1 + (file*7+revision*13)%400
		if file == big {
			lines *= 4000
		}
		return strings.Repeat(line, lines)
	}
	name := func(file int) string { return fmt.Sprintf("d%d/file%02d", file%3, file) }
	w := newWorkshop(t)
	show := func(revision int) {
		for file := range files {
			w.write(name(file), content(file, revision))
		}
		w.publish()
	}
	show(1)
	opt.KernelTimeout = 20 * time.Millisecond
	at, r := w.mount(opt)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	var read, old atomic.Int64
	var newest atomic.Int64
	newest.Store(1)
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for file := range files {
					f, err := os.Open(filepath.Join(at, name(file)))
					if err != nil {
						t.Error(err)
						return
					}
					before := newest.Load()
					if file%4 == 0 {
						time.Sleep(30 * time.Millisecond) // a revision may come in between
					}
					info, err := f.Stat()
					if err != nil {
						t.Error(err)
						return
					}
					data := make([]byte, info.Size())
					if _, err := f.ReadAt(data, 0); err != nil {
						t.Errorf("%s: %v", name(file), err)
						return
					}
					_ = f.Close()
					number, _, _ := strings.Cut(string(data), " ")
					revision, err := strconv.Atoi(number)
					if err != nil || string(data) != content(file, revision) {
						t.Errorf("%s: %d bytes %.30q are no revision's", name(file), len(data), data)
						return
					}
					read.Add(1)
					if int64(revision) < newest.Load() && before < newest.Load() {
						old.Add(1)
					}
				}
				for dir := range 3 {
					if list, err := os.ReadDir(filepath.Join(at, fmt.Sprintf("d%d", dir))); err != nil || len(list) != files/3 {
						t.Errorf("d%d: %d names, %v", dir, len(list), err)
						return
					}
				}
			}
		})
	}
	last := 1 + tier.Rounds(t, 8)
	for revision := 2; revision <= last; revision++ {
		show(revision)
		if changed, err := r.Refresh(t.Context()); err != nil || !changed {
			t.Fatalf("Refresh = %v, %v", changed, err)
		}
		newest.Store(int64(revision))
		time.Sleep(50 * time.Millisecond)
	}
	close(stop)
	readers.Wait()
	if read.Load() == 0 || old.Load() == 0 {
		t.Errorf("%d files were read, %d of them opened in a revision before the last: the readers were not in the way", read.Load(), old.Load())
	}
	time.Sleep(2 * opt.KernelTimeout)
	for file := range files {
		if data, err := os.ReadFile(filepath.Join(at, name(file))); err != nil || string(data) != content(file, last) {
			t.Errorf("%s in the last revision: %.30q, %v", name(file), data, err)
		}
	}
}
