package catalog

import (
	"database/sql/driver"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/internal/sqlite"
)

// layout is what one file offers, found by looking at its tables and columns:
// revisions of the schema differ in what they have, and files upgraded in place
// in the order they have it.
type layout struct {
	hasChunks, hasXattrs, hasStatistics bool

	columns      int
	lookup, list string
	nested       map[string]string // table → query
}

// Positions in a row of lookup and list. What the file lacks is selected as a
// constant that means none.
const (
	colRowID = iota
	colName
	colMode
	colSize
	colMTime
	colMTimeNS
	colUID
	colGID
	colHardlinks
	colHash
	colFlags
	colSymlink
	colXattr
	colCount
)

func readLayout(db *sqlite.DB) (layout, error) {
	l := layout{columns: colCount, nested: make(map[string]string)}
	tables := make(map[string]bool)
	err := db.Query("SELECT type, name FROM sqlite_master", 2, func(row []driver.Value) error {
		kind, err := textOf(row[0])
		if err != nil {
			return err
		}
		name, err := textOf(row[1])
		if err != nil {
			return err
		}
		switch kind {
		case "table":
			tables[name] = true
		case "index":
		default: // a view or trigger would run what its maker wants
			return fmt.Errorf("it has the %s %q: %w", clip(kind), clip(name), cvmfs.ErrMalformed)
		}
		return nil
	})
	if err != nil {
		return l, err
	}
	for _, name := range []string{"catalog", "nested_catalogs", "properties"} {
		if !tables[name] {
			return l, fmt.Errorf("it has no table %q: %w", name, cvmfs.ErrMalformed)
		}
	}
	if err := checkSchema(db); err != nil {
		return l, err
	}
	have, err := columnsOf(db, "catalog")
	if err != nil {
		return l, err
	}
	l.hasChunks = tables["chunks"]
	l.hasStatistics = tables["statistics"]
	l.hasXattrs = have["xattr"]
	l.queries(have)

	nested, err := columnsOf(db, "nested_catalogs")
	if err != nil {
		return l, err
	}
	if !nested["sha1"] {
		return l, fmt.Errorf("its nested catalogues have no hashes: %w", cvmfs.ErrMalformed)
	}
	l.nested["nested_catalogs"] = "SELECT path, sha1, " + orElse(nested, "size", "0") + " FROM nested_catalogs"
	if tables["bind_mountpoints"] {
		l.nested["bind_mountpoints"] = "SELECT path, sha1, size FROM bind_mountpoints"
	}
	return l, nil
}

func (l *layout) queries(have map[string]bool) {
	xattr := "0"
	if l.hasXattrs {
		xattr = "xattr IS NOT NULL"
	}
	columns := strings.Join([]string{
		"rowid", "name", "mode", "size", "mtime",
		orElse(have, "mtimens", "NULL"), orElse(have, "uid", "0"), orElse(have, "gid", "0"),
		orElse(have, "hardlinks", "1"), "hash", "flags", "symlink", xattr,
	}, ", ")
	l.lookup = "SELECT " + columns + " FROM catalog WHERE md5path_1=? AND md5path_2=?"
	l.list = "SELECT " + columns + " FROM catalog WHERE parent_1=? AND parent_2=?"
}

func orElse(have map[string]bool, column, value string) string {
	if have[column] {
		return column
	}
	return value
}

func columnsOf(db *sqlite.DB, table string) (map[string]bool, error) {
	have := make(map[string]bool)
	err := db.Query("SELECT name FROM pragma_table_info(?)", 1, func(row []driver.Value) error {
		name, err := textOf(row[0])
		have[name] = true
		return err
	}, table)
	return have, err
}

// checkSchema refuses what the original refuses: schemas 2.0 to 2.3, which
// never left development, and those after 2.5.
func checkSchema(db *sqlite.DB) error {
	text := ""
	err := db.Query("SELECT value FROM properties WHERE key='schema'", 1, func(row []driver.Value) (err error) {
		text, err = scalarText(row[0])
		return err
	})
	if err != nil {
		return err
	}
	if text == "" {
		return nil // the first catalogues did not say
	}
	version, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(version) || version < 0 {
		return fmt.Errorf("schema %q: %w", clip(text), cvmfs.ErrMalformed)
	}
	const tolerance = 0.001
	if version > 2.5+tolerance || version > 2-tolerance && version < 2.4-tolerance {
		return fmt.Errorf("schema %s is not supported: %w", text, cvmfs.ErrMalformed)
	}
	return nil
}

// entry makes an Entry of a row and checks it.
func (l *layout) entry(row []driver.Value) (Entry, error) {
	var f fields
	e := Entry{
		RowID:     f.int(row[colRowID]),
		Name:      f.text(row[colName]),
		Size:      f.int(row[colSize]),
		MTime:     f.int(row[colMTime]),
		UID:       uint32(f.int(row[colUID])), //nolint:gosec // Compat: signed 32-bit writers store big ids as negative numbers
		GID:       uint32(f.int(row[colGID])), //nolint:gosec // as above
		Symlink:   f.text(row[colSymlink]),
		HasXattrs: f.int(row[colXattr]) != 0,
		MTimeNS:   -1,
	}
	mode := f.int(row[colMode])
	flags := f.int(row[colFlags])
	links := f.int(row[colHardlinks])
	digest := f.blob(row[colHash])
	if row[colMTimeNS] != nil {
		if ns := f.int(row[colMTimeNS]); ns >= 0 && ns < 1e9 {
			e.MTimeNS = int32(ns)
		}
	}
	if f.err != nil {
		return Entry{}, f.err
	}
	bad := func(what string, value any) (Entry, error) {
		return Entry{}, fmt.Errorf("entry %.300q: %s %v: %w", e.Name, what, value, cvmfs.ErrMalformed)
	}
	if e.Name != "" {
		if err := checkName(e.Name); err != nil {
			return Entry{}, err
		}
	}
	if mode < 0 || mode > 0o177777 {
		return bad("mode", mode)
	}
	if flags < 0 || flags > math.MaxUint32 {
		return bad("flags", flags)
	}
	if e.Size < 0 {
		return bad("size", e.Size)
	}
	e.Mode, e.Flags = uint32(mode), Flags(flags)
	e.Nlink = uint32(links)               //nolint:gosec // the low half
	e.HardlinkGroup = uint32(links >> 32) //nolint:gosec // the high half
	if e.IsDir() != (e.Flags&FlagDir != 0) || e.IsSymlink() != (e.Flags&FlagSymlink != 0) {
		return bad("mode and flags disagree:", fmt.Sprintf("%o, %#x", e.Mode, uint32(e.Flags)))
	}
	switch e.Mode & ModeType {
	case ModeDir, ModeFIFO, ModeSocket:
	case ModeRegular:
		if e.Compression = compression(e.Flags); !e.Compression.Valid() {
			return bad("compression", uint8(e.Compression))
		}
		if !e.Algorithm().Valid() {
			return bad("hash algorithm", uint8(e.Algorithm()))
		}
		if len(digest) != 0 {
			if len(digest) != len(e.Hash.Digest) {
				return bad("hash length", len(digest))
			}
			e.Hash = cvmfs.Hash{Algorithm: e.Algorithm(), Digest: [20]byte(digest)}
		}
	case ModeSymlink:
		if len(e.Symlink) > MaxSymlink || strings.Contains(e.Symlink, "\x00") {
			return bad("symlink target of length", len(e.Symlink))
		}
	case ModeChar, ModeBlock:
		e.Rdev, e.Size = uint64(e.Size), 0 //nolint:gosec // not negative
	default:
		return bad("mode", fmt.Sprintf("%o", e.Mode))
	}
	if e.IsSpecial() {
		e.Size = 0
	}
	return e, nil
}

// MaxSymlink is the length of the target that the kernel can hand out (PATH_MAX).
const MaxSymlink = 4096

func readChunk(row []driver.Value, a cvmfs.Algorithm) (Chunk, error) {
	var f fields
	chunk := Chunk{Offset: f.int(row[0]), Size: f.int(row[1])}
	digest := f.blob(row[2])
	if f.err != nil {
		return chunk, f.err
	}
	if chunk.Offset < 0 || chunk.Size <= 0 || chunk.Offset > math.MaxInt64-chunk.Size || len(digest) != len(chunk.Hash.Digest) {
		return chunk, fmt.Errorf("chunk of %d bytes at %d, hash of %d bytes: %w", chunk.Size, chunk.Offset, len(digest), cvmfs.ErrMalformed)
	}
	chunk.Hash = cvmfs.Hash{Algorithm: a, Digest: [20]byte(digest)}
	return chunk, nil
}

// readNested reads a row about a nested catalogue. A path that is none spoils the
// whole table; what else may be wrong concerns those below that path only, and is
// in the row.
func readNested(row []driver.Value) (nestedRow, error) {
	var f fields
	n := nestedRow{Nested: Nested{Path: f.text(row[0]), Size: f.int(row[2])}}
	text := f.text(row[1])
	if f.err != nil {
		return n, f.err
	}
	if n.Path == "" {
		return n, fmt.Errorf("nested catalogue without a path: %w", cvmfs.ErrMalformed)
	}
	if err := checkPath(n.Path); err != nil {
		return n, err
	}
	var err error
	n.Hash, err = cvmfs.ParseHash(text)
	switch {
	case err != nil:
	case n.Hash.IsZero() || n.Hash.Algorithm == cvmfs.MD5:
		err = fmt.Errorf("hash %q names nothing: %w", text, cvmfs.ErrMalformed)
	case n.Size < 0:
		err = fmt.Errorf("%d bytes: %w", n.Size, cvmfs.ErrMalformed)
	}
	if err != nil {
		n.err = fmt.Errorf("nested catalogue %q: %w", n.Path, err)
	}
	return n, nil
}

// fields takes values out of a row and remembers the first that has the wrong
// type.
type fields struct{ err error }

func (f *fields) note(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *fields) int(v driver.Value) int64 {
	n, err := intOf(v)
	f.note(err)
	return n
}

func (f *fields) text(v driver.Value) string {
	s, err := textOf(v)
	f.note(err)
	return s
}

func (f *fields) blob(v driver.Value) []byte {
	b, err := bytesOf(v)
	f.note(err)
	return b
}

func intOf(v driver.Value) (int64, error) {
	if n, ok := v.(int64); ok {
		return n, nil
	}
	return 0, fmt.Errorf("%T where a number belongs: %w", v, cvmfs.ErrMalformed)
}

// textOf also takes NULL, as the empty text.
func textOf(v driver.Value) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case nil:
		return "", nil
	}
	return "", fmt.Errorf("%T where text belongs: %w", v, cvmfs.ErrMalformed)
}

func bytesOf(v driver.Value) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case nil:
		return nil, nil
	}
	return nil, fmt.Errorf("%T where bytes belong: %w", v, cvmfs.ErrMalformed)
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
