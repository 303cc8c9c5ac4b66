package publish

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/cvmfstest"
)

// Rules that are taken match without harm; those that are not name a line.
func FuzzDirtab(f *testing.F) {
	for _, seed := range []string{
		"# rules\n/opt/*\n! */skip\n", "/a\\*b\n!/a?\n", "relative\n", "/a\n!/a\n", "/x\\", "/\xff*\n", "!\n", "/[a]+(b){2}\n",
	} {
		f.Add(seed, "/opt/a")
	}
	f.Add("/c+*\n", "/c++/(1)[x]{2}|$^.")
	f.Fuzz(func(t *testing.T, text, path string) {
		d, err := parseDirtab(text)
		if err != nil {
			if d != nil || !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), " line ") {
				t.Errorf("parseDirtab = %v, %v, want ErrSource with a line", d, err)
			}
			return
		}
		matched := d.matches(path)
		if matched && len(d.positive) == 0 {
			t.Errorf("%q matches, and no rule asks for it", path)
		}
		// A path without characters that mean something is matched by itself, as
		// far as nothing excludes it.
		if strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/") && utf8.ValidString(path) && !strings.ContainsAny(path, "*?\\\n\r\t ") {
			own, err := parseDirtab(path + "\n")
			if err != nil || !own.matches(path) {
				t.Errorf("the rule %q does not match itself: %v", path, err)
			}
		}
	})
}

// A damaged reflog is malformed or of another repository, which has it made anew,
// or gives references that name something.
func FuzzReflog(f *testing.F) {
	const fqrn = "fuzz.example.org"
	l := &reflog{refs: make(map[cvmfs.Hash]reference)}
	for i, kind := range []int64{refCatalog, refCertificate, refHistory} {
		l.add(cvmfs.SHA1.Sum([]byte{byte(i)}), kind, time.Unix(1e9, 0))
	}
	file := filepath.Join(f.TempDir(), "reflog")
	if err := l.write(file, fqrn); err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	cvmfstest.FuzzDatabase(f, file, func(t *testing.T, data []byte) {
		l, err := parseReflog(dir, data, fqrn)
		if err != nil && !errors.Is(err, cvmfs.ErrMalformed) && !errors.Is(err, cvmfs.ErrWrongName) {
			t.Errorf("parseReflog = %v, want ErrMalformed or ErrWrongName", err)
		}
		if err == nil {
			for h := range l.refs {
				if again, err := cvmfs.ParseHash(h.String()); err != nil || again != h {
					t.Errorf("reference to %v = %v, %v", h, again, err)
				}
			}
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%d temporary files are left", len(left))
		}
	})
}

// A description of a content is refused with a line, or is one that a catalogue
// takes.
func FuzzGraft(f *testing.F) {
	sum := cvmfs.SHA1.Sum(nil).String()
	for _, seed := range []string{
		"size=0\nchecksum=" + sum, "size = 9\nchecksum=" + strings.Repeat("0", 40) + "\nchunk_offsets=0,4\nchunk_checksums=" + sum + "," + sum + "P\ncompression=none\n",
		"# comment\nsize=9223372036854775807\n", "=\n", "chunk_offsets=,\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g, err := parseGraft("/d/"+graftPrefix+"f", []byte(text))
		if err != nil {
			if !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), " line ") {
				t.Errorf("parseGraft = %v, want ErrSource with a line", err)
			}
			return
		}
		n := &node{entry: catalog.Entry{Name: "f", Mode: 0o100644, Nlink: 1}}
		g.onto(n)
		b, err := catalog.Create(filepath.Join(t.TempDir(), "c"))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Discard()
		if err := b.Add("/d/f", n.entry, nil, n.chunks); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
