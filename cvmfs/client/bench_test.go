package client_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/publish"
)

// BenchmarkColdRead reads 2000 small files into an empty cache, over HTTP on the
// loopback.
func BenchmarkColdRead(b *testing.B) {
	base := b.TempDir()
	source := filepath.Join(base, "source")
	for i := range 2000 {
		dir := filepath.Join(source, fmt.Sprintf("d%02d", i/100))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		text := strings.Repeat(fmt.Sprintf("file %d of the tree\n", i), i%500+1)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%02d", i%100)), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	const name = "bench.example.org"
	storage, keys := filepath.Join(base, "storage"), filepath.Join(base, "keys")
	if err := publish.Create(b.Context(), publish.CreateOptions{Storage: storage, Name: name, Keys: keys}); err != nil {
		b.Fatal(err)
	}
	if _, err := publish.Publish(b.Context(), publish.Options{Source: source, Storage: storage, Name: name, Keys: keys}); err != nil {
		b.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(keys, name+".pub"))
	if err != nil {
		b.Fatal(err)
	}
	key, err := cvmfs.ParsePublicKeys(pem)
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(storage)))
	defer server.Close()
	for b.Loop() {
		r, err := client.Open(b.Context(), client.Options{Name: name, Servers: []string{server.URL + "/" + name}, MasterKeys: key, CacheDir: filepath.Join(b.TempDir(), "cache")})
		if err != nil {
			b.Fatal(err)
		}
		var walk func(p string, e catalog.Entry)
		walk = func(p string, e catalog.Entry) {
			if !e.IsDir() {
				f, err := r.Open(b.Context(), p)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, io.NewSectionReader(f, 0, f.Size())); err != nil {
					b.Fatal(err)
				}
				_ = f.Close()
				return
			}
			list, err := r.ReadDir(b.Context(), p)
			if err != nil {
				b.Fatal(err)
			}
			for _, e := range list {
				walk(p+"/"+e.Name, e)
			}
		}
		walk("", catalog.Entry{Mode: catalog.ModeDir})
		b.ReportMetric(float64(r.Stats().Objects), "objects")
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
