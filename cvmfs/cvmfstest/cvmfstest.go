package cvmfstest

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
)

// Name is the fully qualified name of the repository.
const Name = "small.peer.example"

// Repo is the unpacked repository. Tests may change it.
type Repo struct {
	Dir  string // what a server serves as /cvmfs/small.peer.example
	Keys string // key files, named as the original names them
}

// RootHashes are the root catalogues of revisions 0 to 3, and of revision 4 in
// what Snapshots returns.
var RootHashes = [...]string{
	"3c066676b80c7a8a228e5b3bd6f0262644ce4a8d",
	"6dbbb8b9d178f811e278804874ca6efdf98f846a",
	"90ef0b4af762d5827483070693b97190a9971c74",
	"e07c3fe44f0b69bb9d3d9f7a49a2f8af156c240a-shake128",
	"5ee670b8ad779de0450e04081f40103e7db090aa-shake128",
}

// Small unpacks the repository at revision 3.
func Small(t testing.TB) Repo { return unpack(t, "repo.tar.gz") }

// Snapshots unpacks the repository at revision 4, which has the hidden
// directory of tagged snapshots.
func Snapshots(t testing.TB) Repo { return unpack(t, "repo-snapshots.tar.gz") }

// Data returns the path of a file of cvmfs/testdata/small.
func Data(t testing.TB, name string) string {
	t.Helper()
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("no source path")
	}
	return filepath.Join(filepath.Dir(self), "..", "testdata", "small", name)
}

func unpack(t testing.TB, name string) Repo {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(Data(t, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := unpackOne(filepath.Join(dir, filepath.Clean("/"+h.Name)), h, tr); err != nil {
			t.Fatal(err)
		}
	}
	return Repo{Dir: filepath.Join(dir, Name), Keys: filepath.Join(dir, "keys")}
}

func unpackOne(path string, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// RemoveAll removes what is at a path while others may still write below it.
func RemoveAll(t testing.TB, path string) {
	t.Helper()
	var err error
	for range 100 {
		if err = os.RemoveAll(path); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(err)
}

// Read returns a file of the repository.
func (r Repo) Read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Key returns a key file: "masterkey", "pub", "key" or "crt".
func (r Repo) Key(t testing.TB, kind string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Keys, Name+"."+kind))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Object verifies and inflates a zlib object into a temporary file and returns
// that file's path.
func (r Repo) Object(t testing.TB, h cvmfs.Hash, s cvmfs.Suffix) string {
	t.Helper()
	in, err := os.Open(filepath.Join(r.Dir, h.ObjectPath(s)))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "object"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cvmfs.CopyVerified(out, in, h, cvmfs.Zlib, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}
