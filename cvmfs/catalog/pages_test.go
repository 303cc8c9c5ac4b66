package catalog_test

import (
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/internal/sqlite"
)

const pageSize = 4096 // of what Builder writes

// many builds a catalogue whose trees have inner pages.
func many(t testing.TB) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "many")
	b, err := catalog.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Add("", catalog.Entry{Mode: 0o40755, Nlink: 2}, nil, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 600 {
		name := fmt.Sprintf("file%04d", i)
		e := catalog.Entry{Name: name, Mode: 0o100644, Nlink: 1, Hash: cvmfs.SHA1.Sum([]byte(name))}
		if err := b.Add("/"+name, e, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Finish(catalog.Properties{}, catalog.Counters{}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// pointers are the places of the numbers of pages in the inner pages of a file.
func pointers(data []byte) (list []int) {
	for page := 0; page < len(data); page += pageSize {
		head := page
		if page == 0 {
			head = 100
		}
		if data[head] != 2 && data[head] != 5 {
			continue
		}
		list = append(list, head+8)
		for i := range int(binary.BigEndian.Uint16(data[head+3:])) {
			list = append(list, page+int(binary.BigEndian.Uint16(data[head+12+2*i:])))
		}
	}
	return list
}

// readAll uses a catalogue made of these bytes, for some seconds at most.
func readAll(t *testing.T, data []byte) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "catalog")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- useAll(file) }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("still reading")
		return nil
	}
}

// Pages that lead to each other over and over are no reason to read for ever. The
// file is small: twelve pages, each of which has the next one 300 times below it.
func TestPagesInCircles(t *testing.T) {
	good := many(t)
	if list := pointers(good); len(list) < 10 {
		t.Fatalf("the catalogue has %d pointers to pages, too few to forge", len(list))
	}
	if err := readAll(t, good); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	for _, where := range []string{
		"name = 'catalog'", "name = 'sqlite_autoindex_catalog_1'", "name = 'idx_catalog_parent'", "name = 'nested_catalogs'", "name = 'chunks'", "",
	} {
		root := 1 // the schema's own
		if where != "" {
			root = rootPage(t, good, where)
		}
		data := append([]byte(nil), good...)
		head := (root - 1) * pageSize
		leaf := append([]byte(nil), data[head:head+pageSize]...)
		if root == 1 {
			head = 100
			leaf = make([]byte, pageSize)
		}
		next := len(data)/pageSize + 1
		table := data[head] == 13 || data[head] == 5
		inner(data[(root-1)*pageSize:][:pageSize], head%pageSize, table, next)
		for range 12 {
			next++
			page := make([]byte, pageSize)
			inner(page, 0, table, next)
			data = append(data, page...)
		}
		data = append(data, leaf...)
		binary.BigEndian.PutUint32(data[28:], uint32(len(data)/pageSize)) //nolint:gosec // some pages
		if err := readAll(t, data); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("pages of %q: %v, want ErrMalformed", where, err)
		}
	}
}

// inner makes a page an inner one that has another page below it 300 times.
func inner(page []byte, head int, table bool, below int) {
	const cells = 300
	kind, size := byte(2), 5
	if table {
		kind = 5
	}
	clear(page[head:])
	page[head] = kind
	start := pageSize - cells*size
	binary.BigEndian.PutUint16(page[head+3:], cells)
	binary.BigEndian.PutUint16(page[head+5:], uint16(start)) //nolint:gosec // within a page
	binary.BigEndian.PutUint32(page[head+8:], uint32(below)) //nolint:gosec // some pages
	for i := range cells {
		at := start + i*size
		binary.BigEndian.PutUint16(page[head+12+2*i:], uint16(at)) //nolint:gosec // within a page
		binary.BigEndian.PutUint32(page[at:], uint32(below))       //nolint:gosec // some pages
		page[at+4] = 1                                             // the key, or the length of one
	}
}

// rootPage finds the tree of a table or index.
func rootPage(t *testing.T, data []byte, where string) (root int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "schema")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Query("SELECT rootpage FROM sqlite_schema WHERE "+where, 1, func(row []driver.Value) error {
		root = int(row[0].(int64))
		return nil
	})
	if err != nil || root == 0 {
		t.Fatalf("%s: page %d, %v", where, root, err)
	}
	return root
}

// However the inner pages are rewired, reading ends soon.
func FuzzPages(f *testing.F) {
	good := many(f)
	places := pointers(good)
	f.Add([]byte{0, 2})
	f.Add([]byte{0, 3, 1, 3, 2, 3, 3, 3, 4, 3})
	f.Add([]byte{5, 255})
	f.Fuzz(func(t *testing.T, wires []byte) {
		data := append([]byte(nil), good...)
		for len(wires) >= 2 {
			binary.BigEndian.PutUint32(data[places[int(wires[0])%len(places)]:], uint32(wires[1]))
			wires = wires[2:]
		}
		if err := readAll(t, data); err != nil && !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("reading = %v, want ErrMalformed or nothing", err)
		}
	})
}
