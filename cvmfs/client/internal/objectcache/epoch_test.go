package objectcache

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs"
)

// zlibObject puts an object whose content cannot be checked by its name, and then
// damages it as a power cut does, with its attributes in place.
func zlibObject(t *testing.T, c *Cache) (h cvmfs.Hash, damage func()) {
	t.Helper()
	h = cvmfs.SHA1.Sum([]byte("stored"))
	store(t, c, h, cvmfs.Zlib, []byte("content"))
	return h, func() {
		if err := os.WriteFile(c.Path(h), make([]byte, len("content")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// noAttributes reports whether the file system of temporary files has none: then
// there is nothing that a record could be kept in.
func noAttributes(t *testing.T) bool {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := &Cache{}
	return !c.setRecord(f, record{})
}

func hasZlib(c *Cache, h cvmfs.Hash) bool {
	o, err := c.Get(h, Expect{Size: -1, Compression: cvmfs.Zlib})
	if err != nil {
		return false
	}
	_ = o.Close()
	return true
}

func closeCache(t *testing.T, c *Cache) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// After an unclean end every object is checked before its next use, whoever uses
// it and however much later.
func TestUncleanEnd(t *testing.T) {
	if noAttributes(t) {
		return
	}
	for name, later := range map[string]func(t *testing.T, dir string) *Cache{
		"at once": func(t *testing.T, dir string) *Cache { return openCache(t, dir, Options{}) },
		"after a clean end": func(t *testing.T, dir string) *Cache {
			closeCache(t, openCache(t, dir, Options{}))
			return openCache(t, dir, Options{})
		},
		"beside another": func(t *testing.T, dir string) *Cache {
			other := openCache(t, dir, Options{})
			t.Cleanup(func() { closeCache(t, other) })
			return openCache(t, dir, Options{})
		},
		"by another repository": func(t *testing.T, dir string) *Cache {
			c, err := Open(dir, Options{Name: "other.example.org"})
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := openCache(t, dir, Options{})
			h, damage := zlibObject(t, c)
			closeCache(t, c)
			if err := os.WriteFile(filepath.Join(dir, "running."+repo), nil, 0o600); err != nil { // as a dead client leaves it
				t.Fatal(err)
			}
			damage()
			c = later(t, dir)
			if hasZlib(c, h) {
				t.Error("a damaged object is handed out")
			}
			h, _ = zlibObject(t, c) // fetched again
			if !hasZlib(c, h) {
				t.Error("the good object that replaces it is not")
			}
			closeCache(t, c)
		})
	}
}

// An object that was checked is not checked a second time.
func TestCheckedOnce(t *testing.T) {
	if noAttributes(t) {
		return
	}
	dir := t.TempDir()
	c := openCache(t, dir, Options{})
	h, damage := zlibObject(t, c)
	closeCache(t, c)
	if err := os.WriteFile(filepath.Join(dir, "running."+repo), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c = openCache(t, dir, Options{})
	if !hasZlib(c, h) {
		t.Error("a good object is not handed out")
	}
	closeCache(t, c)
	damage()
	c = openCache(t, dir, Options{})
	if !hasZlib(c, h) {
		t.Error("it was read again after a clean end")
	}
	closeCache(t, c)
}

// The same stored bytes are one content inflated and another as they are, even of
// the same length.
func TestTwoContentsOfOneHash(t *testing.T) {
	if noAttributes(t) {
		return
	}
	c := openCache(t, t.TempDir(), Options{})
	defer closeCache(t, c)
	h, _ := zlibObject(t, c)
	get := func(comp cvmfs.Compression) []byte {
		t.Helper()
		o, err := c.Get(h, Expect{Size: 7, Compression: comp})
		if err != nil {
			return nil
		}
		defer o.Close()
		data := make([]byte, 7)
		if _, err := o.ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		return data
	}
	held, err := c.Get(h, Expect{Size: 7, Compression: cvmfs.Zlib})
	if err != nil {
		t.Fatal(err)
	}
	for _, open := range []bool{true, false} {
		if data := get(cvmfs.Plain); data != nil {
			t.Errorf("the inflated content stands for the stored one (open: %v): %q", open, data)
		}
		if data := get(cvmfs.Zlib); !bytes.Equal(data, []byte("content")) {
			t.Errorf("the inflated content (open: %v) is %q", open, data)
		}
		_ = held.Close()
	}
}

func FuzzEpoch(f *testing.F) {
	f.Add("7\n")
	f.Add("")
	f.Add("-1")
	f.Add("4294967296")
	f.Fuzz(func(t *testing.T, text string) {
		n := parseEpoch(text)
		if again := parseEpoch(strconv.FormatUint(uint64(n), 10) + "\n"); again != n {
			t.Errorf("parseEpoch(%q) = %d, and then %d", text, n, again)
		}
		if n == 0 && !strings.Contains(text, "0") {
			t.Errorf("parseEpoch(%q) = 0, with which nothing is checked", text)
		}
	})
}

// Whatever the record of a damaged object says, it is not handed out after an
// unclean end, unless by a checksum that happens to be right.
func FuzzRecord(f *testing.F) {
	f.Add(record{sum: [4]byte{1, 2, 3, 4}, comp: cvmfs.Plain, epoch: 5}.bytes())
	f.Add(make([]byte, recordSize))
	f.Add([]byte("short"))
	file := filepath.Join(f.TempDir(), "object")
	content := []byte("content")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		known, ok := parseRecord(data)
		if ok != (len(data) == recordSize) || ok && !bytes.Equal(known.bytes(), data) {
			t.Errorf("parseRecord(%x) = %+v, %v", data, known, ok)
		}
		object, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer object.Close()
		sum := crc32.Checksum(content, castagnoli)
		right := ok && binary.BigEndian.Uint32(known.sum[:]) == sum
		if err := verify(object, cvmfs.SHA1.Sum(nil), cvmfs.Zlib, known, ok); (err == nil) != (right || !ok) {
			t.Errorf("verify with %+v: %v", known, err)
		}
		if err := verify(object, cvmfs.SHA1.Sum(nil), cvmfs.Plain, known, ok); err == nil {
			t.Error("an uncompressed object of another name is taken for good")
		}
	})
}
