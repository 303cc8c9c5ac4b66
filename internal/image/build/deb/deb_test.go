package deb_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/micavm/mica/internal/image/build/deb"
	"github.com/micavm/mica/internal/tier"
)

func tarball(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		text := h.Uname // carries the content
		h.Uname, h.Size = "", int64(len(text))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pack(t testing.TB, suffix string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case "":
		return data
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ar(members ...any) []byte {
	b := []byte("!<arch>\n")
	for i := 0; i < len(members); i += 2 {
		data := members[i+1].([]byte)
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", members[i], 0, 0, 0, "100644", len(data))
		b = append(b, data...)
		if len(data)%2 != 0 {
			b = append(b, '\n')
		}
	}
	return b
}

func sample(t testing.TB, suffix string) []byte {
	control := tarball(t, tar.Header{Name: "./control", Uname: "Package: thing\nVersion: 1:2-3\nDescription: short\n long\n .\n"})
	data := tarball(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "./usr/bin/thing", Mode: 0o755, Uname: "program"},
		tar.Header{Name: "./usr/bin/other", Typeflag: tar.TypeSymlink, Linkname: "thing"},
		tar.Header{Name: "./usr/bin/third", Typeflag: tar.TypeLink, Linkname: "./usr/bin/thing"})
	return ar("debian-binary", []byte("2.0\n"), "control.tar"+suffix, pack(t, suffix, control), "data.tar"+suffix, pack(t, suffix, data))
}

func TestWalk(t *testing.T) {
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		pkg := sample(t, suffix)
		fields, err := deb.Control(bytes.NewReader(pkg))
		if err != nil || fields["Package"] != "thing" || fields["Version"] != "1:2-3" || fields["Description"] != "short\nlong\n." {
			t.Errorf("%q: Control = %q, %v", suffix, fields, err)
		}
		got := map[string]string{}
		err = deb.Walk(t.Context(), bytes.NewReader(pkg), func(e deb.Entry, r io.Reader) error {
			text, err := io.ReadAll(r)
			got[e.Path] = fmt.Sprintf("%v %s %v %s", e.Mode, e.Link, e.Hard, text)
			return err
		})
		want := map[string]string{
			".": "drwxr-xr-x  false ", "usr/bin/thing": "-rwxr-xr-x  false program", "usr/bin/other": "L--------- thing false ", "usr/bin/third": "---------- usr/bin/thing true ",
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: Walk: %v (-want +got):\n%s", suffix, err, diff)
		}
	}
}

func TestStop(t *testing.T) {
	n := 0
	err := deb.Walk(t.Context(), bytes.NewReader(sample(t, ".xz")), func(deb.Entry, io.Reader) error { n++; return deb.Stop })
	if err != nil || n != 1 {
		t.Errorf("Walk = %v after %d files, want nil after 1", err, n)
	}
}

func TestMalformed(t *testing.T) {
	whole := sample(t, ".xz")
	escape := func(h tar.Header) []byte { return ar("data.tar", tarball(t, h)) }
	for name, pkg := range map[string][]byte{
		"empty":              {},
		"not an archive":     []byte("<html>404</html>"),
		"no data":            ar("debian-binary", []byte("2.0\n")),
		"cut":                whole[:len(whole)-100],
		"unknown":            ar("data.tar.lzma", []byte("x")),
		"escape":             escape(tar.Header{Name: "../etc/passwd"}),
		"hidden escape":      escape(tar.Header{Name: "./a/../../x"}),
		"hard link escape":   escape(tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"}),
		"damaged ar header":  append([]byte("!<arch>\n"), bytes.Repeat([]byte("z"), 60)...),
		"damaged compressed": ar("data.tar.xz", []byte("not xz at all")),
	} {
		err := deb.Walk(t.Context(), bytes.NewReader(pkg), func(_ deb.Entry, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if err == nil || name != "cut" && !errors.Is(err, deb.ErrFormat) {
			t.Errorf("%s: Walk = %v, want ErrFormat", name, err)
		}
	}
}

// TestAgainstDpkg reads what dpkg-deb builds.
func TestAgainstDpkg(t *testing.T) {
	tool := tier.Tool(t, "dpkg-deb")
	root := filepath.Join(t.TempDir(), "root")
	for name, text := range map[string]string{
		"DEBIAN/control": "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: thing\n",
		"usr/lib/a":      "content",
	} {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil { //nolint:gosec // dpkg-deb insists
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, z := range []string{"-Zgzip", "-Zxz", "-Zzstd", "-Znone"} {
		pkg := filepath.Join(t.TempDir(), "x.deb")
		if out, err := exec.Command(tool, "--root-owner-group", z, "-b", root, pkg).CombinedOutput(); err != nil {
			t.Logf("dpkg-deb %s: %v: %s", z, err, out) // older ones lack zstd
			continue
		}
		data, err := os.ReadFile(pkg)
		if err != nil {
			t.Fatal(err)
		}
		found := ""
		err = deb.Walk(t.Context(), bytes.NewReader(data), func(e deb.Entry, r io.Reader) error {
			if e.Path == "usr/lib/a" {
				b, err := io.ReadAll(r)
				found = string(b)
				return err
			}
			return nil
		})
		if err != nil || found != "content" {
			t.Errorf("%s: content = %q, %v", z, found, err)
		}
	}
}

func FuzzWalk(f *testing.F) {
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		f.Add(sample(f, suffix))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = deb.Control(bytes.NewReader(data))
		left := 1 << 20
		_ = deb.Walk(context.Background(), bytes.NewReader(data), func(e deb.Entry, r io.Reader) error {
			if e.Path == "" || e.Path[0] == '/' {
				t.Errorf("path %q", e.Path)
			}
			n, err := io.CopyN(io.Discard, r, int64(left))
			if left -= int(n); left <= 0 {
				return deb.Stop
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		})
	})
}
