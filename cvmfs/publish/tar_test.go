package publish_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/tier"
)

// pack has the tar program make an archive of the source.
func (w *world) pack(t testing.TB) []byte {
	t.Helper()
	tier.Tool(t, "tar")
	file := filepath.Join(t.TempDir(), "archive")
	cmd := run.Command{Name: "tar", Args: []string{"--create", "--file", file, "--format=pax", "--xattrs", "--xattrs-include=*", "--directory", w.source, "."}}
	_, err := run.Host{}.Run(t.Context(), cmd)
	must(t, err)
	return readFile(t, file)
}

// An archive made by tar and the tree it was made of give the same revision, to
// the last bit of every catalogue.
func TestTarIsLikeTree(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tricky(t)
	stamp := func(o *publish.Options) { o.Stamp = clock }
	tree := w.publish(t, stamp)
	archive := w.pack(t)

	packed := newWorld(t)
	fromTar := func(r io.Reader) func(o *publish.Options) {
		return func(o *publish.Options) { o.Source, o.Tar, o.Stamp = "", r, clock }
	}
	result := packed.publish(t, fromTar(bytes.NewReader(archive)))
	clean(t, packed.check(t))
	if result.RootHash != tree.RootHash {
		want, _, _ := w.tree(t, tree.RootHash)
		got, _, _ := packed.tree(t, result.RootHash)
		for path, e := range want {
			if got[path] != e {
				t.Errorf("%q = %+v from the archive, %+v from the tree", path, got[path], e)
			}
		}
		t.Errorf("root = %v with %d entries, want %v with %d", result.RootHash, len(got), tree.RootHash, len(want))
	}
	// Once more, packed in every way: nothing is new.
	for name, squeeze := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	} {
		var b bytes.Buffer
		z, err := squeeze(&b)
		must(t, err)
		_, err = z.Write(archive)
		must(t, err)
		must(t, z.Close())
		if again := packed.publish(t, fromTar(&b)); !again.Unchanged || again.Objects != 0 {
			t.Errorf("%s: publishing it again = %+v, want it unchanged", name, again)
		}
	}
	// And the tree on top of the archive.
	packed.source = w.source
	if again := packed.publish(t, stamp); !again.Unchanged || again.Read != 0 {
		t.Errorf("publishing the tree on top = %+v, want it unchanged and nothing read", again)
	}
}

type member struct {
	tar.Header
	content string
}

func archive(t testing.TB, members ...member) io.Reader {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, m := range members {
		m.Size = int64(len(m.content))
		if m.Mode == 0 {
			m.Mode = 0o644
		}
		if m.ModTime.IsZero() {
			m.ModTime = clock
		}
		must(t, tw.WriteHeader(&m.Header))
		_, err := io.WriteString(tw, m.content)
		must(t, err)
	}
	must(t, tw.Close())
	return &b
}

// What archives have and trees do not: missing directories, members twice, links
// to links, names that mean the same.
func TestTarMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	early := clock.Add(-time.Hour)
	big := strings.Repeat("0123456789abcdef", 100000)
	publishTar := func(r io.Reader) (*publish.Result, error) {
		o := w.options()
		o.Source, o.Tar = "", r
		return publish.Publish(t.Context(), o)
	}
	result, err := publishTar(archive(t,
		member{tar.Header{Name: "deep/er/file", Uid: 7, ModTime: early}, "1"},
		member{tar.Header{Name: "./twice"}, "first"},
		member{tar.Header{Name: "/twice", Mode: 0o600}, "second"},
		member{tar.Header{Name: "link", Typeflag: tar.TypeLink, Linkname: "twice"}, ""},
		member{tar.Header{Name: "link2", Typeflag: tar.TypeLink, Linkname: "./link"}, ""},
		member{tar.Header{Name: "deep/link", Typeflag: tar.TypeLink, Linkname: "twice"}, ""},
		member{tar.Header{Name: "big"}, big},
		member{tar.Header{Name: "biglink", Typeflag: tar.TypeLink, Linkname: "big"}, ""},
		member{tar.Header{Name: "deep/", Typeflag: tar.TypeDir, Mode: 0o700, Gid: 9}, ""},
		member{tar.Header{Name: "nested/.cvmfscatalog"}, ""},
		member{tar.Header{Name: "opt/a/x"}, "x"},
		member{tar.Header{Name: ".cvmfsdirtab"}, "/opt/*\n"},
		member{tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""},
	))
	must(t, err)
	clean(t, w.check(t))
	entries, _, nested := w.tree(t, result.RootHash)
	if len(nested) != 2 || nested[0] != "/nested" || nested[1] != "/opt/a" {
		t.Errorf("nested catalogues = %q", nested)
	}
	if e := entries["/twice"]; e.Mode != 0o100600 || e.Size != 6 || e.Nlink != 3 {
		t.Errorf("/twice = %+v, want the second with three links", e)
	}
	if a, b := entries["/link2"], entries["/twice"]; a.Hash != b.Hash || a.HardlinkGroup != b.HardlinkGroup || a.HardlinkGroup == 0 {
		t.Errorf("/link2 = %+v, want it linked with %+v", a, b)
	}
	if e := entries["/deep/link"]; e.Hash != entries["/twice"].Hash || e.Nlink != 1 || e.HardlinkGroup != 0 {
		t.Errorf("/deep/link = %+v, want a file of its own", e)
	}
	if e := entries["/deep"]; e.Mode != 0o40700 || e.GID != 9 || e.Nlink != 3 {
		t.Errorf("/deep = %+v, want what was said last", e)
	}
	if e := entries["/deep/er"]; e.Mode != 0o40755 || e.UID != 0 || e.MTime != early.Unix() {
		t.Errorf("/deep/er = %+v, want root's, of the date of the file in it", e)
	}
	if e := entries["/biglink"]; !e.IsChunked() || e.Size != int64(len(big)) || e.Nlink != 2 {
		t.Errorf("/biglink = %+v, want the chunks of /big", e)
	}
	if e := entries["/null"]; e.Rdev != 0x103 {
		t.Errorf("/null = %+v, want device 1, 3", e)
	}

	before := w.head(t)
	for what, r := range map[string]io.Reader{
		"nothing":         strings.NewReader(""),
		"no archive":      strings.NewReader(strings.Repeat("no archive ", 100)),
		"half a gzip":     strings.NewReader("\x1f\x8b\x08\x00\x00"),
		"out of it":       archive(t, member{tar.Header{Name: "a/../../b"}, "x"}),
		"below a file":    archive(t, member{tar.Header{Name: "a"}, "x"}, member{tar.Header{Name: "a/b"}, "x"}),
		"below a symlink": archive(t, member{tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, ""}, member{tar.Header{Name: "a/b"}, "x"}),
		"link to nothing": archive(t, member{tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}, ""}),
		"link outside":    archive(t, member{tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "../b"}, ""}),
		"file for dir":    archive(t, member{tar.Header{Name: "a/b"}, "x"}, member{tar.Header{Name: "a"}, "x"}),
		"cut short":       io.LimitReader(archive(t, member{tar.Header{Name: "a"}, big}), 5000),
		"marker at root":  archive(t, member{tar.Header{Name: ".cvmfscatalog"}, ""}),
	} {
		if r, err := publishTar(r); !errors.Is(err, publish.ErrSource) {
			t.Errorf("%s: Publish = %+v, %v, want ErrSource", what, r, err)
		}
	}
	if now := w.head(t); *now != *before {
		t.Errorf("revision %d came of bad archives", now.Revision)
	}
	if left, err := filepath.Glob(filepath.Join(w.repo(), "data/txn/*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	if _, err := os.Stat(w.source); err != nil {
		t.Error(err)
	}
}
