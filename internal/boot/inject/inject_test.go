package inject

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func archive(t testing.TB, members ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range members {
		body := []byte(h.PAXRecords["BODY"])
		h.PAXRecords = nil
		h.Size = int64(len(body))
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, body string, mode int64) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, PAXRecords: map[string]string{"BODY": body}, ModTime: time.Unix(1e9, 0)}
}

func TestUnpack(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "old"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := Unpack(root, archive(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o555},
		file("./etc/motd", "hello", 0o640),
		file("usr/bin/tool", "#!", 0o4755),
		file("old", "new", 0o644),
		tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "etc/motd"},
	))
	if err != nil || n != 7 {
		t.Fatalf("Unpack = %d, %v; want 7 members", n, err)
	}
	for name, want := range map[string]string{"etc/motd": "hello", "old": "new", "hard": "hello"} {
		if got, err := os.ReadFile(filepath.Join(root, name)); string(got) != want {
			t.Errorf("%s = %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]fs.FileMode{"etc": fs.ModeDir | 0o555, "etc/motd": 0o640, "usr/bin/tool": fs.ModeSetuid | 0o755} {
		if fi, err := os.Stat(filepath.Join(root, name)); err != nil || fi.Mode() != want {
			t.Errorf("mode of %s = %v, want %v", name, fi.Mode(), want)
		}
	}
	if target, _ := os.Readlink(filepath.Join(root, "link")); target != "/etc/passwd" {
		t.Errorf("link = %q, want /etc/passwd", target)
	}
	_ = os.Chmod(filepath.Join(root, "etc"), 0o755) // so that TempDir can be removed
}

func TestUnpackRefuses(t *testing.T) {
	for name, members := range map[string][]tar.Header{
		"absolute":            {file("/tmp/x", "", 0o644)},
		"dots":                {file("../x", "", 0o644)},
		"dots inside":         {file("a/../../x", "", 0o644)},
		"through a link":      {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, file("l/x", "", 0o644)},
		"through an abs link": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, file("l/x", "", 0o644)},
		"link there before":   {file("outside/x", "", 0o644)},
		"hard link out":       {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../secret"}},
		"hard link by link":   {{Name: "h", Typeflag: tar.TypeLink, Linkname: "outside/secret"}},
		"device":              {{Name: "d", Typeflag: tar.TypeBlock, Devmajor: 8}},
		"pipe":                {{Name: "p", Typeflag: tar.TypeFifo}},
		"over a directory":    {file("dir", "", 0o644)},
	} {
		base := t.TempDir()
		root := filepath.Join(base, "root")
		for _, d := range []string{"root/dir", "outer"} {
			if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(base, "outer/secret"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../outer", filepath.Join(root, "outside")); err != nil {
			t.Fatal(err)
		}
		if _, err := Unpack(root, archive(t, members...)); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: Unpack = %v, want ErrUnsafe", name, err)
		}
		for _, leaked := range []string{"x", "outer/x"} {
			if _, err := os.Lstat(filepath.Join(base, leaked)); err == nil {
				t.Errorf("%s: %s appeared outside the root", name, leaked)
			}
		}
	}
}

func TestUnpackGarbage(t *testing.T) {
	whole := archive(t, file("a", "body of a", 0o644))
	for name, data := range map[string][]byte{"empty": nil, "text": []byte("hello"), "half": whole[:len(whole)/2]} {
		if _, err := Unpack(t.TempDir(), data); err == nil {
			t.Errorf("%s: Unpack succeeded", name)
		}
	}
}
