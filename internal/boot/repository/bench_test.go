package repository_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/boot/repository"
	"github.com/micavm/mica/internal/tier"
)

// BenchmarkTree reads a tree of 10000 files through the whole chain (HTTP on the
// loopback, cache, FUSE) and, to compare, from the disk: first contact, from the
// cache on disk, and again from memory. One round is enough:
//
//	MICA_TEST=root go test -run ^$ -bench Tree -benchtime 1x ./internal/boot/repository
func BenchmarkTree(b *testing.B) {
	tier.Root(b)
	base := b.TempDir()
	source := filepath.Join(base, "source")
	plant(b, source, 100, 100)
	const name = "bench.example.org"
	storage, keys := filepath.Join(base, "storage"), filepath.Join(base, "keys")
	if err := publish.Create(b.Context(), publish.CreateOptions{Storage: storage, Name: name, Keys: keys}); err != nil {
		b.Fatal(err)
	}
	if _, err := publish.Publish(b.Context(), publish.Options{Source: source, Storage: storage, Name: name, Keys: keys}); err != nil {
		b.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(keys, name+".pub"))
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(storage)))
	defer server.Close()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		at := b.TempDir()
		c := repository.Config{
			Name: name, Servers: []string{server.URL + "/" + name}, Keys: []string{string(key)}, CacheDir: filepath.Join(b.TempDir(), "cache"), Mountpoint: at,
		}
		ready, err := repository.Start(b.Context(), exe, c)
		if err != nil {
			b.Fatal(err)
		}
		phase := func(name string, drop bool, where string, work func(testing.TB, string)) {
			if drop {
				if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
					b.Skip("dropping caches: ", err)
				}
			}
			start := time.Now()
			work(b, where)
			b.ReportMetric(time.Since(start).Seconds(), name+"-s")
		}
		phase("cold-find", true, at, find)
		phase("cold-read", false, at, readAll)
		phase("warm-find", false, at, find)
		phase("warm-read", false, at, readAll)
		phase("cached-find", true, at, find)
		phase("cached-read", false, at, readAll)
		phase("ext4-find", true, source, find)
		phase("ext4-read", false, source, readAll)
		phase("ext4-warm-find", false, source, find)
		phase("ext4-warm-read", false, source, readAll)
		s, err := repository.ReadStatus(b.Context(), c.CacheDir)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(s.Objects), "objects")
		b.ReportMetric(float64(s.Bytes), "bytes")
		b.ReportMetric(float64(s.PeakMemory)/1e6, "peak-MB")
		if err := unix.Unmount(at, 0); err != nil {
			b.Fatal(err)
		}
		if !ends(ready.PID) {
			b.Error("the process goes on after the unmount")
		}
	}
}

// plant makes files of up to 32 kB of text, no two alike.
func plant(b *testing.B, root string, dirs, files int) {
	b.Helper()
	for d := range dirs {
		dir := filepath.Join(root, fmt.Sprintf("d%02d", d/10), fmt.Sprintf("e%02d", d%10))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		for f := range files {
			n := d*files + f
			var text bytes.Buffer
			for text.Len() < n*7919%16384 {
				fmt.Fprintf(&text, "line %d of file %d, %x\n", text.Len(), n, text.Len()*n)
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%03d", f)), text.Bytes(), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func find(t testing.TB, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readAll(t testing.TB, root string) {
	t.Helper()
	buf := make([]byte, 128<<10)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		for {
			if _, err := f.Read(buf); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
