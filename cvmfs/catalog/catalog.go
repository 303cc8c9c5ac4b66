package catalog

import (
	"database/sql/driver"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/internal/sqlite"
)

// Catalog is an open catalogue. It may be used by several goroutines.
type Catalog struct {
	layout layout

	mu         sync.Mutex // guards everything below: the engine takes one call at a time
	db         *sqlite.DB
	statements map[string]*sqlite.Stmt
	nested     map[string]nestedRow // nil until first used
}

// nestedRow is a nested catalogue, or what is wrong with it.
type nestedRow struct {
	Nested
	err error
}

// Rows counts the rows of the tables, for those who check a catalogue: what no
// walk from the root reaches is there for nobody.
func (c *Catalog) Rows() (entries, chunks int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := func(table string) (n int64, err error) {
		err = c.query("SELECT count(*) FROM "+table, 1, func(row []driver.Value) (err error) {
			n, err = intOf(row[0])
			return err
		})
		return n, err
	}
	if entries, err = count("catalog"); err == nil && c.layout.hasChunks {
		chunks, err = count("chunks")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("counting rows: %w", err)
	}
	return entries, chunks, nil
}

// Oddities gives to visit what is in the rows that readers pass over and no
// publisher writes: content hashes, targets and sizes where none belong, and a
// root that is not where it should be; each with the name of its entry.
func (c *Catalog) Oddities(top string, visit func(name, text string) error) error {
	if err := checkPath(top); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, odd := range []struct{ query, text string }{
		{"SELECT name FROM catalog WHERE (mode & 61440) <> 32768 AND length(hash) > 0", "a content hash on what is no regular file"},
		{"SELECT name FROM catalog WHERE (mode & 61440) <> 40960 AND length(symlink) > 0", "a target on what is no symbolic link"},
		{"SELECT name FROM catalog WHERE (mode & 61440) IN (4096, 49152) AND size <> 0", "a size on a pipe or socket"},
		{"SELECT name FROM catalog WHERE flags & 16386 = 16386 OR flags & 2 AND flags & 32", "flags that exclude each other"},
	} {
		err := c.query(odd.query, 1, func(row []driver.Value) error {
			name, err := textOf(row[0])
			if err != nil {
				return err
			}
			return visit(name, odd.text)
		})
		if err != nil {
			return err
		}
	}
	key, parent := hashPath(top), pathHash{}
	if top != "" {
		parent = hashPath(top[:strings.LastIndexByte(top, '/')])
	}
	return c.query("SELECT parent_1, parent_2 FROM catalog WHERE md5path_1=? AND md5path_2=?", 2, func(row []driver.Value) error {
		if row[0] != parent.a || row[1] != parent.b {
			return visit(base(top), "the root directory is not below its parent")
		}
		return nil
	}, key.a, key.b)
}

// Object is one of those that files consist of.
type Object struct {
	Hash        cvmfs.Hash
	Suffix      cvmfs.Suffix
	Compression cvmfs.Compression
	Size        int64 // plain
	External    bool  // it lies with somebody else
}

// Objects gives every object the catalogue's files consist of to visit, in no
// order, some more than once. It holds the catalogue meanwhile: visit must not
// call back. Nested catalogues are not among them.
func (c *Catalog) Objects(visit func(Object) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	each := func(query string, suffix cvmfs.Suffix) error {
		return c.query(query, 3, func(row []driver.Value) error {
			var f fields
			digest, flags := f.blob(row[0]), Flags(f.int(row[1])) //nolint:gosec // only some bits count
			size := f.int(row[2])
			if f.err != nil {
				return f.err
			}
			h := cvmfs.Hash{Algorithm: hashAlgorithm(flags)}
			if len(digest) != len(h.Digest) || !h.Algorithm.Valid() {
				return fmt.Errorf("hash of %d bytes: %w", len(digest), cvmfs.ErrMalformed)
			}
			copy(h.Digest[:], digest)
			if size < 0 || !compression(flags).Valid() {
				return fmt.Errorf("object of %d bytes, compression %d: %w", size, compression(flags), cvmfs.ErrMalformed)
			}
			return visit(Object{h, suffix, compression(flags), size, flags&FlagExternal != 0})
		})
	}
	err := each("SELECT hash, flags, size FROM catalog WHERE length(hash) > 0", cvmfs.SuffixNone)
	if err == nil && c.layout.hasChunks {
		err = each("SELECT chunks.hash, catalog.flags, chunks.size FROM chunks JOIN catalog USING (md5path_1, md5path_2)", cvmfs.SuffixPartial)
	}
	if err != nil {
		return fmt.Errorf("reading objects: %w", err)
	}
	return nil
}

// Open opens a catalogue file for reading. The file must be complete and must
// not change while it is open. Errors wrap cvmfs.ErrMalformed if the file is no
// catalogue this package can read.
func Open(file string) (*Catalog, error) {
	db, err := sqlite.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening catalogue: %w", err)
	}
	l, err := readLayout(db)
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("opening catalogue: %w", err)
	}
	return &Catalog{layout: l, db: db, statements: make(map[string]*sqlite.Stmt)}, nil
}

// Close frees what the catalogue holds. No call may follow or be under way.
func (c *Catalog) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.db == nil {
		return nil
	}
	for _, s := range c.statements {
		_ = s.Close()
	}
	err := c.db.Close()
	c.db, c.statements = nil, nil
	return err
}

// query runs a statement, compiling it the first time. The caller holds mu.
func (c *Catalog) query(text string, columns int, visit func([]driver.Value) error, args ...driver.Value) error {
	if c.db == nil {
		return fmt.Errorf("catalogue is closed")
	}
	s := c.statements[text]
	if s == nil {
		var err error
		if s, err = c.db.Prepare(text); err != nil {
			return err
		}
		c.statements[text] = s
	}
	return s.Each(columns, visit, args...)
}

// Lookup finds the entry of a path. At a transition point the upper catalogue's
// row and the lower one's are both found, each in its own file.
func (c *Catalog) Lookup(path string) (Entry, bool, error) {
	if err := checkPath(path); err != nil {
		return Entry{}, false, err
	}
	var e Entry
	found := false
	key := hashPath(path)
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.query(c.layout.lookup, c.layout.columns, func(row []driver.Value) (err error) {
		found = true
		e, err = c.layout.entry(row)
		return err
	}, key.a, key.b)
	if err == nil && found && e.Name != base(path) {
		err = fmt.Errorf("its row has the name %q: %w", e.Name, cvmfs.ErrMalformed)
	}
	if err != nil {
		return Entry{}, false, fmt.Errorf("looking up %q: %w", path, err)
	}
	return e, found, nil
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// List returns the entries of a directory, hidden ones included, by name. A
// path that is no directory of this catalogue has none.
func (c *Catalog) List(dir string) ([]Entry, error) {
	if err := checkPath(dir); err != nil {
		return nil, err
	}
	var list []Entry
	key := hashPath(dir)
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.query(c.layout.list, c.layout.columns, func(row []driver.Value) error {
		e, err := c.layout.entry(row)
		if err == nil {
			err = checkName(e.Name)
		}
		list = append(list, e)
		return err
	}, key.a, key.b)
	if err != nil {
		return nil, fmt.Errorf("listing %q: %w", dir, err)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	for i := 1; i < len(list); i++ {
		if list[i].Name == list[i-1].Name {
			return nil, fmt.Errorf("listing %q: %q is there twice: %w", dir, list[i].Name, cvmfs.ErrMalformed)
		}
	}
	return list, nil
}

// Chunks returns the pieces of a chunked file in order. They are contiguous
// from 0 and add up to the file's size, or it is an error; a path that is no
// chunked file has none.
func (c *Catalog) Chunks(path string) ([]Chunk, error) {
	e, found, err := c.Lookup(path)
	if err != nil || !found || !e.IsChunked() || !c.layout.hasChunks {
		return nil, err
	}
	var list []Chunk
	key := hashPath(path)
	end := int64(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.query("SELECT offset, size, hash FROM chunks WHERE md5path_1=? AND md5path_2=? ORDER BY offset", 3, func(row []driver.Value) error {
		chunk, err := readChunk(row, e.Algorithm())
		if err == nil && chunk.Offset != end {
			err = fmt.Errorf("chunk at %d, wanted at %d: %w", chunk.Offset, end, cvmfs.ErrMalformed)
		}
		list = append(list, chunk)
		end += chunk.Size
		return err
	}, key.a, key.b)
	if err == nil && end != e.Size {
		err = fmt.Errorf("chunks of %d bytes in a file of %d: %w", end, e.Size, cvmfs.ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("chunks of %q: %w", path, err)
	}
	return list, nil
}

// Xattrs returns the extended attributes of a path; nil if there are none.
func (c *Catalog) Xattrs(path string) (map[string][]byte, error) {
	if err := checkPath(path); err != nil || !c.layout.hasXattrs {
		return nil, err
	}
	var set map[string][]byte
	key := hashPath(path)
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.query("SELECT xattr FROM catalog WHERE md5path_1=? AND md5path_2=?", 1, func(row []driver.Value) error {
		blob, err := bytesOf(row[0])
		if err == nil {
			set, err = DecodeXattrs(blob)
		}
		return err
	}, key.a, key.b)
	if err != nil {
		return nil, fmt.Errorf("extended attributes of %q: %w", path, err)
	}
	return set, nil
}

// Nested returns the catalogues below this one, by path.
func (c *Catalog) Nested() ([]Nested, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.loadNested(); err != nil {
		return nil, err
	}
	list := make([]Nested, 0, len(c.nested))
	for _, n := range c.nested {
		if n.err != nil {
			return nil, n.err
		}
		list = append(list, n.Nested)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Path < list[j].Path })
	return list, nil
}

// NestedFor returns the catalogue below this one that covers path, at whose
// transition point path lies or below it. "/soft" does not cover "/software".
func (c *Catalog) NestedFor(path string) (Nested, bool, error) {
	if err := checkPath(path); err != nil {
		return Nested{}, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.loadNested(); err != nil || len(c.nested) == 0 {
		return Nested{}, false, err
	}
	for prefix := path; prefix != ""; prefix = prefix[:strings.LastIndexByte(prefix, '/')] {
		if n, found := c.nested[prefix]; found {
			return n.Nested, true, n.err
		}
	}
	return Nested{}, false, nil
}

// loadNested reads both tables once. The caller holds mu.
func (c *Catalog) loadNested() error {
	if c.nested != nil {
		return nil
	}
	nested := make(map[string]nestedRow)
	for table, query := range c.layout.nested {
		err := c.query(query, 3, func(row []driver.Value) error {
			n, err := readNested(row)
			if err != nil {
				return err
			}
			if _, twice := nested[n.Path]; twice {
				return fmt.Errorf("%q is there twice: %w", n.Path, cvmfs.ErrMalformed)
			}
			n.Bind = table == "bind_mountpoints"
			nested[n.Path] = n
			return nil
		})
		if err != nil {
			return fmt.Errorf("reading table %s: %w", table, err)
		}
	}
	c.nested = nested
	return nil
}

// Counters returns the statistics, "self_regular" and so on. Catalogues of old
// schemas have none.
func (c *Catalog) Counters() (map[string]int64, error) {
	counters := make(map[string]int64)
	if !c.layout.hasStatistics {
		return counters, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.query("SELECT counter, value FROM statistics", 2, func(row []driver.Value) error {
		name, err := textOf(row[0])
		if err != nil {
			return err
		}
		counters[name], err = intOf(row[1])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading counters: %w", err)
	}
	return counters, nil
}

// Property returns a property of the catalogue, "revision" for one.
func (c *Catalog) Property(key string) (value string, found bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.query("SELECT value FROM properties WHERE key=?", 1, func(row []driver.Value) (err error) {
		value, err = scalarText(row[0])
		found = true
		return err
	}, key)
	if err != nil {
		return "", false, fmt.Errorf("reading property %q: %w", key, err)
	}
	return value, found, nil
}

// scalarText is the text of a property's value, which old tools also wrote as
// a number.
func scalarText(v driver.Value) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case []byte:
		return string(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	}
	return "", fmt.Errorf("value of type %T: %w", v, cvmfs.ErrMalformed)
}
