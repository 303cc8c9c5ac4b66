package sqlite

import (
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/micavm/mica/cvmfs"
)

// shape makes sure that what the engine does with a file ends. The engine checks
// each page that it comes to, but not whether it has been there: of pages that
// lead to each other several times, a file of some kilobytes is enough for a walk
// that ends in no lifetime. So the pages of all trees are counted before, from
// their inner pages alone: if a file's trees have no more pages than the file,
// reading each once is all there is to do.
//
// Format: https://www.sqlite.org/fileformat2.html, 1.3 and 1.6.
type shape struct {
	file  io.ReaderAt
	page  int64 // size of one
	pages int64 // in the file
	left  int64 // how many trees may still have
}

// Kinds of pages.
const (
	innerIndex = 2
	innerTable = 5
	leafIndex  = 10
	leafTable  = 13
)

// maxDepth of a tree is that of the engine (BTCURSOR_MAX_DEPTH).
const maxDepth = 20

// errShape says that a file is no tree of pages.
var errShape = fmt.Errorf("the pages of the database are no tree: %w", cvmfs.ErrMalformed)

// newShape reads the header of a database.
func newShape(file *os.File) (*shape, error) {
	header := make([]byte, 100)
	if _, err := file.ReadAt(header, 0); err != nil {
		return nil, endOf(err)
	}
	fi, err := file.Stat()
	if err != nil {
		return nil, err
	}
	s := &shape{file: file, page: int64(binary.BigEndian.Uint16(header[16:]))}
	if s.page == 1 {
		s.page = 1 << 16
	}
	if s.page < 512 || s.page&(s.page-1) != 0 {
		return nil, fmt.Errorf("pages of %d bytes: %w", s.page, cvmfs.ErrMalformed)
	}
	s.pages = fi.Size() / s.page
	s.left = s.pages
	return s, nil
}

// endOf tells a file that ends too early from one that cannot be read.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the file ends too early: %w", cvmfs.ErrMalformed)
	}
	return err
}

// tree counts the pages of a tree from its root on.
func (s *shape) tree(number int64, depth int) error {
	if s.left--; s.left < 0 || number < 1 || number > s.pages || depth > maxDepth {
		return errShape
	}
	start := int64(0)
	if number == 1 {
		start = 100 // behind the file's header
	}
	var head [12]byte
	if _, err := s.file.ReadAt(head[:], (number-1)*s.page+start); err != nil {
		return endOf(err)
	}
	switch head[0] {
	case leafIndex, leafTable:
		return nil
	case innerIndex, innerTable:
	default:
		return errShape
	}
	page := make([]byte, s.page)
	if _, err := s.file.ReadAt(page, (number-1)*s.page); err != nil {
		return endOf(err)
	}
	cells := int64(binary.BigEndian.Uint16(head[3:]))
	if start+12+2*cells > s.page {
		return errShape
	}
	for i := range cells {
		cell := int64(binary.BigEndian.Uint16(page[start+12+2*i:]))
		if cell+4 > s.page {
			return errShape
		}
		if err := s.tree(int64(binary.BigEndian.Uint32(page[cell:])), depth+1); err != nil {
			return err
		}
	}
	return s.tree(int64(binary.BigEndian.Uint32(head[8:])), depth+1)
}

// checkSchema looks at the tree that the engine reads whenever it opens a file.
func (s *shape) checkSchema() error { return s.tree(1, 0) }

// checkAll looks at all the others, which the schema names.
func (s *shape) checkAll(d *DB) error {
	return d.Query("SELECT rootpage FROM sqlite_schema WHERE rootpage <> 0", 1, func(row []driver.Value) error {
		root, ok := row[0].(int64)
		if !ok {
			return errShape
		}
		return s.tree(root, 0)
	})
}
