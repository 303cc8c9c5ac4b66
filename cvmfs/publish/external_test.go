package publish_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/cvmfs/slice"
)

// elsewhere is a tree with files outside of the repository and others in it.
func elsewhere(t *testing.T, w *world) {
	t.Helper()
	w.write(t, "data/run 1/a?b", strings.Repeat("small and far away\n", 40))
	big := make([]byte, 153600)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	w.write(t, "data/big", string(big))
	must(t, os.Link(filepath.Join(w.source, "data/big"), filepath.Join(w.source, "linked")))
	w.write(t, "data/none", "")
	w.write(t, "database", "not below data")
}

// archived is a source tree as a tar archive.
func archived(t *testing.T, source string) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	must(t, tw.AddFS(os.DirFS(source)))
	must(t, tw.Close())
	return &out
}

// Files published as external have their names and hashes in the repository, and
// their content nowhere in it; a reader has it from the server that is named, all
// of it verified. Trees and archives do the same.
func TestExternal(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"tree", "archive"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			elsewhere(t, w)
			change := func(o *publish.Options) {
				o.External = []string{"/data"}
				if form == "archive" {
					o.Source, o.Tar = "", archived(t, w.source)
				}
			}
			result := w.publish(t, change)
			entries, _, _ := w.tree(t, result.RootHash)
			for path, external := range map[string]bool{"/data/run 1/a?b": true, "/data/big": true, "/data/none": true, "/database": false, "/linked": false} {
				e, there := entries[path]
				if !there || e.IsExternal() != external || external && e.Compression != cvmfs.Plain {
					t.Errorf("%q = %+v, want external %v", path, e, external)
				}
			}
			if e := entries["/data/big"]; !e.IsChunked() {
				t.Errorf("/data/big is not chunked: %+v", e)
			}
			plain := entries["/data/run 1/a?b"].Hash.ObjectPath(0)
			if _, err := os.Stat(filepath.Join(w.repo(), plain)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the content of an external file is in the repository: %v", err)
			}
			clean(t, w.check(t))
			info, err := publish.ReadInfo(t.Context(), w.storage, name, nil, w.clock)
			must(t, err)
			if info.Counters.External != 3 {
				t.Errorf("counter of external files is %d, want 3", info.Counters.External)
			}

			again := w.publish(t, change)
			if form == "tree" && (!again.Unchanged || again.Read != 0) || again.RootHash != result.RootHash {
				t.Errorf("published again: %+v", again)
			}
			readElsewhere(t, w)
			copied := w.replica(t, w.repo()).copy(t)
			if len(copied.Warnings) != 1 || !strings.Contains(copied.Warnings[0], "content of 3 external files is not copied") {
				t.Errorf("warnings of a replica: %q, want one of 3 external files", copied.Warnings)
			}

			w.publish(t, nil) // and all of it comes in
			entries, _, _ = w.tree(t, w.head(t).RootHash)
			if e := entries["/data/run 1/a?b"]; e.IsExternal() || e.Compression != cvmfs.Zlib {
				t.Errorf("published without external paths: %+v", e)
			}
			clean(t, w.check(t))
			if copied := w.replica(t, w.repo()).copy(t); len(copied.Warnings) != 0 {
				t.Errorf("warnings of a replica of a repository without external files: %q", copied.Warnings)
			}
		})
	}
}

// asked is a web server of files that notes what it was asked for.
type asked struct {
	*httptest.Server
	mu       sync.Mutex // guards the following
	requests []string
	whole    bool // it does not know about ranges
}

func askable(t *testing.T, dir string) *asked {
	t.Helper()
	a := &asked{}
	files := http.FileServer(http.Dir(dir))
	a.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.requests = append(a.requests, r.URL.Path+" "+r.Header.Get("Range")+" "+r.Header.Get("Cvmfs-Info"))
		if a.whole {
			r.Header.Del("Range")
		}
		a.mu.Unlock()
		files.ServeHTTP(rw, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *asked) said() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.requests, "\n")
}

// readElsewhere reads what elsewhere wrote, external files from their server.
func readElsewhere(t *testing.T, w *world) {
	t.Helper()
	public, err := cvmfs.ParsePublicKeys(readFile(t, filepath.Join(w.keys, name+".pub")))
	must(t, err)
	inside, outside := askable(t, w.storage), askable(t, w.source)
	open := func(servers ...string) *client.Repository {
		r, err := client.Open(t.Context(), client.Options{
			Name: name, Servers: []string{inside.URL + "/" + name}, MasterKeys: public, CacheDir: t.TempDir(), Now: w.clock, Backoff: 1,
			Network: client.Network{SendInfo: true}, External: client.External{Servers: servers}, Record: 100,
		})
		must(t, err)
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	none := open()
	if _, err := fs.ReadFile(none.FS(), "data/run 1/a?b"); !errors.Is(err, client.ErrExternal) {
		t.Errorf("read without a server: %v, want ErrExternal", err)
	}
	// One that is named later is asked from then on.
	must(t, none.ExternalLink().SetServers([]string{outside.URL}))
	if got, err := fs.ReadFile(none.FS(), "data/run 1/a?b"); err != nil || !bytes.Equal(got, readFile(t, filepath.Join(w.source, "data/run 1/a?b"))) {
		t.Errorf("read from a server that was named later = %q, %v", got, err)
	}
	for what, servers := range map[string][]string{
		"http": {outside.URL}, "file": {"file://" + w.source}, "a second server": {outside.URL + "/absent", outside.URL},
	} {
		r := open(servers...)
		for _, path := range []string{"data/run 1/a?b", "data/big", "data/none", "database", "linked"} {
			got, err := fs.ReadFile(r.FS(), path)
			if want := readFile(t, filepath.Join(w.source, path)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %q = %d bytes, %v, want %d", what, path, len(got), err, len(want))
			}
		}
		if n := r.Recorded().External; n != 2 { // an empty file is not asked for
			t.Errorf("%s: %d external files recorded, want 2", what, n)
		}
		var disk bytes.Buffer
		if err := r.WriteSlice(t.Context(), &disk, r.Recorded(), nil); err != nil {
			t.Errorf("%s: a slice of what was read: %v", what, err)
		}
		s, err := slice.Open(bytes.NewReader(disk.Bytes()), int64(disk.Len()))
		if err != nil || s.Profile.External != 2 {
			t.Errorf("%s: a slice of what was read: %v", what, err)
		}
		for _, o := range r.Recorded().Objects {
			if _, err := os.Stat(filepath.Join(w.repo(), o.Path())); err != nil {
				t.Errorf("%s: recorded is what the repository does not have: %v", what, err)
			}
		}
	}
	for _, want := range []string{"/data/run 1/a?b  /data/run%201/a%3Fb", "/data/big bytes=0-"} {
		if said := outside.said(); !strings.Contains(said, want) {
			t.Errorf("the server of external files was asked\n%s\nwant %q among it", said, want)
		}
	}
	if said := inside.said(); strings.Contains(said, "/big ") || !strings.Contains(said, " /database") {
		t.Errorf("the repository's server was asked\n%s", said)
	}

	// A part of a file is what was asked for, or an error.
	outside.whole = true
	f, err := open(outside.URL).Open(t.Context(), "/data/big")
	must(t, err)
	defer f.Close()
	if _, err := f.ReadAt(make([]byte, 100), 100000); !client.IsTransfer(err) {
		t.Errorf("read from a server without ranges: %v, want it refused", err)
	}
	// Bytes that changed since are not shown.
	w.write(t, "data/run 1/a?b", strings.Repeat("SMALL AND FAR AWAY\n", 40))
	if got, err := fs.ReadFile(open(outside.URL).FS(), "data/run 1/a?b"); !errors.Is(err, cvmfs.ErrCorrupt) {
		t.Errorf("read of changed bytes = %q, %v, want ErrCorrupt", got, err)
	}
}
