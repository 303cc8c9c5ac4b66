package sparse_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/micavm/mica/internal/machine/sparse"
)

func write(t *testing.T, size int64, at map[int64]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for offset, text := range at {
		if _, err := f.WriteAt([]byte(text), offset); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestCopy(t *testing.T) {
	for name, tc := range map[string]struct {
		size int64
		at   map[int64]string
	}{
		"empty":                {0, nil},
		"one hole":             {50 << 20, nil},
		"odd size":             {(5 << 20) + 17, map[int64]string{0: "first", 3 << 20: "middle", (5 << 20) + 12: "last!"}},
		"data across a border": {8 << 20, map[int64]string{(1 << 20) - 3: "across"}},
	} {
		from := write(t, tc.size, tc.at)
		to := filepath.Join(t.TempDir(), "copy")
		if err := sparse.Copy(t.Context(), from, to); err != nil {
			t.Fatalf("%s: Copy: %v", name, err)
		}
		want, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(to)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the copy differs (%d bytes, want %d), %v", name, len(got), len(want), err)
		}
		info, err := os.Stat(to)
		if err != nil || info.Sys().(*syscall.Stat_t).Blocks*512 > 4<<20 {
			t.Errorf("%s: the copy takes %d blocks, %v", name, info.Sys().(*syscall.Stat_t).Blocks, err)
		}
	}
}

func TestCopyOfOld(t *testing.T) {
	from := write(t, 3<<20, map[int64]string{0: "x"})
	to := write(t, 1, nil)
	if err := sparse.Copy(t.Context(), from, to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Copy onto a file = %v, want fs.ErrExist", err)
	}
	if info, err := os.Stat(to); err != nil || info.Size() != 1 {
		t.Errorf("the file that was there has %v, %v; want it untouched", info.Size(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	gone := filepath.Join(t.TempDir(), "gone")
	err := sparse.Copy(ctx, from, gone)
	if _, serr := os.Stat(gone); !errors.Is(err, context.Canceled) && serr != nil {
		t.Errorf("cancelled Copy = %v", err)
	} else if err != nil && !errors.Is(serr, fs.ErrNotExist) {
		t.Error("a cancelled copy was left behind")
	}
}
