package client_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/tier"
)

// The repository was published by the original tools; see its README.
const small = "small.peer.example"

var smallRoots = map[int]string{
	1: "6dbbb8b9d178f811e278804874ca6efdf98f846a",
	2: "90ef0b4af762d5827483070693b97190a9971c74",
	3: "e07c3fe44f0b69bb9d3d9f7a49a2f8af156c240a-shake128",
	4: "5ee670b8ad779de0450e04081f40103e7db090aa-shake128",
}

// archives are the files of the two repository archives, by name.
var archives = map[string]func() (map[string][]byte, error){
	"repo.tar.gz":           sync.OnceValues(func() (map[string][]byte, error) { return readArchive("repo.tar.gz") }),
	"repo-snapshots.tar.gz": sync.OnceValues(func() (map[string][]byte, error) { return readArchive("repo-snapshots.tar.gz") }),
}

func readArchive(name string) (map[string][]byte, error) {
	f, err := os.Open(filepath.Join("..", "testdata", "small", name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if files[filepath.Clean("/"+h.Name)], err = io.ReadAll(tr); err != nil {
				return nil, err
			}
		}
	}
}

func archive(t testing.TB, name string) map[string][]byte {
	t.Helper()
	files, err := archives[name]()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// unpack puts a repository archive into a new directory and returns the
// repository's own.
func unpack(t testing.TB, name string) string {
	t.Helper()
	dir := t.TempDir()
	for file, data := range archive(t, name) {
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, small)
}

// masterKeys are the public keys of the repository.
func masterKeys(t testing.TB) []*rsa.PublicKey {
	t.Helper()
	keys, err := cvmfs.ParsePublicKeys(archive(t, "repo.tar.gz")["/keys/"+small+".pub"])
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func serve(t testing.TB, repo string) string {
	t.Helper()
	s := httptest.NewServer(http.StripPrefix("/cvmfs/"+small, http.FileServer(http.Dir(repo))))
	t.Cleanup(s.Close)
	return s.URL + "/cvmfs/" + small
}

func options(t testing.TB, servers ...string) client.Options {
	return client.Options{
		Name: small, Servers: servers, MasterKeys: masterKeys(t), CacheDir: filepath.Join(t.TempDir(), "cache"),
		Vars: map[string]string{"CVMFS_ARCH": "x86_64"}, Backoff: 1, Log: testLog(t),
	}
}

func open(t testing.TB, opt client.Options) *client.Repository {
	t.Helper()
	r, err := client.Open(t.Context(), opt)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// tree reads everything below a path, as lines with the path below it.
func tree(t testing.TB, r *client.Repository, root string) map[string]cvmfstest.Listed {
	t.Helper()
	all := map[string]cvmfstest.Listed{}
	var walk func(path string, e catalog.Entry)
	walk = func(path string, e catalog.Entry) {
		l, err := describe(t.Context(), r, path, e)
		if err != nil {
			t.Errorf("%q: %v", path, err)
			return
		}
		l.Path = strings.TrimPrefix(path, root)
		all[l.Path] = l
		if !e.IsDir() {
			return
		}
		list, err := r.ReadDir(t.Context(), path)
		if err != nil {
			t.Errorf("ReadDir(%q): %v", path, err)
		}
		for _, e := range list {
			walk(path+"/"+e.Name, e)
		}
	}
	e, err := r.Lookup(t.Context(), root)
	if err != nil {
		t.Fatalf("Lookup(%q): %v", root, err)
	}
	walk(root, e)
	return all
}

func describe(ctx context.Context, r *client.Repository, path string, listed catalog.Entry) (cvmfstest.Listed, error) {
	e, err := r.Lookup(ctx, path)
	if err != nil {
		return cvmfstest.Listed{}, err
	}
	if diff := cmp.Diff(listed, e); diff != "" {
		return cvmfstest.Listed{}, fmt.Errorf("listing and lookup differ:\n%s", diff)
	}
	l := cvmfstest.Listed{
		Mode: fmt.Sprintf("%04o", e.Mode&0o7777), Nlink: e.Nlink, UID: e.UID, GID: e.GID,
		MTime: e.MTime, MTimeNS: max(e.MTimeNS, 0), Size: e.Size,
	}
	switch e.Mode & catalog.ModeType {
	case catalog.ModeDir:
		l.Type, l.Size = "dir", 0
	case catalog.ModeRegular:
		l.Type = "file"
		f, err := r.Open(ctx, path)
		if err != nil {
			return cvmfstest.Listed{}, err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, io.NewSectionReader(f, 0, 1<<40)); err != nil {
			return cvmfstest.Listed{}, err
		}
		l.SHA256 = hex.EncodeToString(sum.Sum(nil))
		if err := f.Close(); err != nil {
			return cvmfstest.Listed{}, err
		}
	case catalog.ModeSymlink:
		l.Type, l.RawTarget = "symlink", e.Symlink
		if l.Target, err = r.Readlink(ctx, path); err != nil {
			return cvmfstest.Listed{}, err
		}
	case catalog.ModeFIFO:
		l.Type = "fifo"
	case catalog.ModeSocket:
		l.Type = "socket"
	case catalog.ModeChar:
		l.Type = "char"
	case catalog.ModeBlock:
		l.Type = "block"
	}
	if l.Type == "char" || l.Type == "block" {
		l.Rdev = fmt.Sprintf("%d:%d", unix.Major(e.Rdev), unix.Minor(e.Rdev))
	}
	xattrs, err := r.Xattrs(ctx, path)
	if err != nil {
		return cvmfstest.Listed{}, err
	}
	l.Xattrs = xattrs
	return l, nil
}

func compare(t testing.TB, got, want map[string]cvmfstest.Listed) {
	t.Helper()
	cvmfstest.Compare(t, got, want, nil)
}

func TestReadsRevisionsExactly(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	for _, from := range []string{serve(t, repo), "file://" + repo} {
		scheme, _, _ := strings.Cut(from, ":")
		for revision := 1; revision <= 3; revision++ {
			t.Run(fmt.Sprintf("%s/%d", scheme, revision), func(t *testing.T) {
				opt := options(t, from)
				if revision < 3 {
					root, err := cvmfs.ParseHash(smallRoots[revision])
					if err != nil {
						t.Fatal(err)
					}
					opt.Pin.RootHash = root
				}
				r := open(t, opt)
				if got := r.RootHash().String(); got != smallRoots[revision] {
					t.Fatalf("RootHash = %s, want %s", got, smallRoots[revision])
				}
				if got := r.Revision(); got != uint64(revision) {
					t.Errorf("Revision = %d, want %d", got, revision)
				}
				compare(t, tree(t, r, ""), cvmfstest.Expect(t, revision))
				first := r.Stats()
				if first.Objects == 0 || first.Bytes == 0 {
					t.Errorf("Stats = %+v after a cold start, want downloads", first)
				}
				r.DetachCatalogs()
				compare(t, tree(t, r, ""), cvmfstest.Expect(t, revision))
				if again := r.Stats(); again.Objects != first.Objects {
					t.Errorf("%d objects downloaded again with a warm cache", again.Objects-first.Objects)
				}
			})
		}
	}
}

func TestSnapshotsAreReplanted(t *testing.T) {
	repo := unpack(t, "repo-snapshots.tar.gz")
	opt := options(t, serve(t, repo))
	opt.MaxCatalogs = 4 // so that they come and go
	r := open(t, opt)
	if got := r.RootHash().String(); got != smallRoots[4] {
		t.Fatalf("RootHash = %s, want %s", got, smallRoots[4])
	}
	root, err := r.Lookup(t.Context(), "/")
	if err != nil || root.Nlink != 20 {
		t.Errorf("Lookup(/) = nlink %d, %v, want 20", root.Nlink, err)
	}
	list, err := r.ReadDir(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Name == ".cvmfs" {
			t.Error("the hidden directory is listed")
		}
	}
	for revision := 1; revision <= 3; revision++ {
		at := fmt.Sprintf("/.cvmfs/snapshots/rev%d", revision)
		got := tree(t, r, at)
		want := cvmfstest.Expect(t, revision)
		compare(t, got, want)
	}
}

func TestTag(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	opt := options(t, serve(t, repo))
	for tag, revision := range map[string]int{"rev1": 1, "v1.0/final": 2, "trunk": 3} {
		opt.Pin.Tag = tag
		r := open(t, opt)
		if got := r.RootHash().String(); got != smallRoots[revision] || r.Revision() != uint64(revision) || r.Tag() != tag {
			t.Errorf("tag %q: root %s, revision %d, tag %q", tag, got, r.Revision(), r.Tag())
		}
	}
	opt.Pin.Tag = "nonesuch"
	if _, err := client.Open(t.Context(), opt); !errors.Is(err, client.ErrNoTag) {
		t.Errorf("unknown tag: error %v, want %v", err, client.ErrNoTag)
	}
}

func TestFS(t *testing.T) {
	tier.Full(t)
	repo := unpack(t, "repo.tar.gz")
	r := open(t, options(t, "file://"+repo))
	top, err := fs.ReadDir(r.FS(), ".")
	if err != nil {
		t.Fatal(err)
	}
	tested := 0
	for _, d := range top {
		// TestFS takes no dangling links and no backslashes in names.
		if !d.IsDir() || d.Name() == "links" || d.Name() == "hard" || d.Name() == "odd" {
			continue
		}
		sub, err := fs.Sub(r.FS(), d.Name())
		if err != nil {
			t.Fatal(err)
		}
		var files []string
		if err := fs.WalkDir(sub, ".", func(p string, _ fs.DirEntry, err error) error {
			if p != "." {
				files = append(files, p)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		if err := fstest.TestFS(sub, files...); err != nil {
			t.Errorf("%s: %v", d.Name(), err)
		}
		tested += len(files)
	}
	if tested < 100 {
		t.Errorf("only %d files tested", tested)
	}
	for name, want := range map[string]error{"links/abs/x": fs.ErrNotExist, "links/var-unset": fs.ErrNotExist, "../etc": fs.ErrInvalid, "README/x": syscall.ENOTDIR} {
		if _, err := fs.Stat(r.FS(), name); !errors.Is(err, want) {
			t.Errorf("Stat(%q): error %v, want %v", name, err, want)
		}
	}
	if got, err := fs.ReadLink(r.FS(), "links/var-arch"); err != nil || !strings.Contains(got, "x86_64") {
		t.Errorf("ReadLink(links/var-arch) = %q, %v", got, err)
	}
}
