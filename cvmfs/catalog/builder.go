package catalog

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/internal/sqlite"
)

const schemaSQL = `
CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER,
 hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER,
 flags INTEGER, name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB,
 CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,
 CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),
 FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog(md5path_1, md5path_2));
CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER,
 CONSTRAINT pk_nested_catalogs PRIMARY KEY (path));
CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER,
 CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));
CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter));
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
`

// Properties are what a catalogue says about itself.
type Properties struct {
	RootPrefix   string // path of the transition point; "" for the root catalogue
	Revision     uint64
	Previous     cvmfs.Hash // the catalogue this one replaces
	FirstNested  bool       // a nested catalogue without predecessor, which says so with a null hash
	TTL          time.Duration
	LastModified time.Time
}

// Builder writes a new catalogue. It is not safe for concurrent use. Equal calls
// in equal order give equal files. Either Finish or Discard ends it.
type Builder struct {
	db             *sqlite.DB
	file           string
	insert, chunks *sqlite.Stmt
	self           Counters
}

// Create starts a catalogue in a new file.
func Create(file string) (*Builder, error) {
	if _, err := os.Lstat(file); err == nil {
		return nil, fmt.Errorf("creating catalogue %s: %w", file, os.ErrExist)
	}
	db, err := sqlite.Create(file)
	if err != nil {
		return nil, fmt.Errorf("creating catalogue: %w", err)
	}
	b := &Builder{db: db, file: file}
	if err := b.begin(); err != nil {
		b.Discard()
		return nil, fmt.Errorf("creating catalogue: %w", err)
	}
	return b, nil
}

func (b *Builder) begin() (err error) {
	if err := b.db.Exec("BEGIN"); err != nil {
		return err
	}
	for statement := range strings.SplitSeq(strings.TrimSpace(schemaSQL), ";\n") {
		if err := b.db.Exec(statement); err != nil {
			return err
		}
	}
	if b.insert, err = b.db.Prepare("INSERT INTO catalog VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"); err != nil {
		return err
	}
	b.chunks, err = b.db.Prepare("INSERT INTO chunks VALUES (?,?,?,?,?)")
	return err
}

// Add writes the entry of a path. Of e.Flags only the bits that do not follow
// from mode, hash and compression are taken; e.HasXattrs and e.RowID are not.
// What a reader would refuse is an error that wraps cvmfs.ErrMalformed.
func (b *Builder) Add(path string, e Entry, xattrs map[string][]byte, chunks []Chunk) error {
	if err := b.add(path, e, xattrs, chunks); err != nil {
		return fmt.Errorf("catalogue entry %q: %w", path, err)
	}
	return nil
}

func (b *Builder) add(path string, e Entry, xattrs map[string][]byte, chunks []Chunk) error {
	if err := checkPath(path); err != nil {
		return err
	}
	if e.Name != base(path) {
		return fmt.Errorf("name %q: %w", e.Name, cvmfs.ErrMalformed)
	}
	if len(e.Symlink) > MaxSymlink {
		return fmt.Errorf("symlink target of length %d: %w", len(e.Symlink), cvmfs.ErrMalformed)
	}
	blob, err := EncodeXattrs(xattrs)
	if err != nil {
		return err
	}
	algorithm, err := e.checkContent(chunks)
	if err != nil {
		return err
	}
	e.HasXattrs = blob != nil
	e.Flags = e.Flags&(FlagNestedMountpoint|FlagNestedRoot|FlagChunked|FlagExternal|FlagBindMountpoint|FlagHidden|FlagDirectIO) | typeFlags(e, algorithm)

	key, parent := hashPath(path), pathHash{}
	if path != "" {
		parent = hashPath(path[:strings.LastIndexByte(path, '/')])
	}
	size := e.Size
	if t := e.Mode & ModeType; t == ModeChar || t == ModeBlock {
		size = int64(e.Rdev) //nolint:gosec // device numbers have 64 bits at most and come back the same
	}
	var digest, ns, attributes driver.Value
	if !e.Hash.IsZero() {
		digest = e.Hash.Digest[:]
	}
	if e.MTimeNS >= 0 {
		ns = int64(e.MTimeNS)
	}
	if blob != nil {
		attributes = blob
	}
	err = b.insert.Exec(key.a, key.b, parent.a, parent.b,
		int64(e.HardlinkGroup)<<32|int64(e.Nlink), digest, size, int64(e.Mode), e.MTime, ns,
		int64(e.Flags), e.Name, e.Symlink, int64(e.UID), int64(e.GID), attributes)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		if err := b.chunks.Exec(key.a, key.b, c.Offset, c.Size, c.Hash.Digest[:]); err != nil {
			return err
		}
	}
	b.self.Count(e, chunks)
	return nil
}

// checkContent makes sure that size, hash and chunks belong together and
// returns the algorithm they share.
func (e Entry) checkContent(chunks []Chunk) (cvmfs.Algorithm, error) {
	if !e.IsRegular() {
		if !e.Hash.IsZero() || len(chunks) > 0 {
			return 0, fmt.Errorf("content of what is no regular file: %w", cvmfs.ErrMalformed)
		}
		return cvmfs.SHA1, nil
	}
	if e.IsChunked() != (len(chunks) > 0) || e.Hash.IsZero() && len(chunks) == 0 {
		return 0, fmt.Errorf("hash %v and %d chunks: %w", e.Hash, len(chunks), cvmfs.ErrMalformed)
	}
	algorithm := e.Hash.Algorithm
	if e.Hash.IsZero() {
		algorithm = chunks[0].Hash.Algorithm
	}
	if algorithm == cvmfs.MD5 || !algorithm.Valid() {
		return 0, fmt.Errorf("content hash by %v: %w", algorithm, cvmfs.ErrMalformed)
	}
	end := int64(0)
	for _, c := range chunks {
		if c.Offset != end || c.Size <= 0 || c.Hash.Algorithm != algorithm {
			return 0, fmt.Errorf("chunk of %d bytes at %d: %w", c.Size, c.Offset, cvmfs.ErrMalformed)
		}
		end += c.Size
	}
	if len(chunks) > 0 && end != e.Size {
		return 0, fmt.Errorf("chunks of %d bytes in a file of %d: %w", end, e.Size, cvmfs.ErrMalformed)
	}
	return algorithm, nil
}

// AddNested registers a catalogue below this one, whose transition point has
// been added.
func (b *Builder) AddNested(n Nested) error {
	table := "nested_catalogs"
	if n.Bind {
		table = "bind_mountpoints"
	} else {
		b.self.Nested++
	}
	if err := checkPath(n.Path); err != nil || n.Path == "" || n.Hash.IsZero() {
		return fmt.Errorf("nested catalogue %q, hash %v: %w", n.Path, n.Hash, cvmfs.ErrMalformed)
	}
	if err := b.db.Exec("INSERT INTO "+table+" VALUES (?,?,?)", n.Path, n.Hash.String(), n.Size); err != nil {
		return fmt.Errorf("nested catalogue %q: %w", n.Path, err)
	}
	return nil
}

// Self returns the counters of what has been added so far.
func (b *Builder) Self() Counters { return b.self }

// Finish writes properties and counters and closes the file. subtree are the
// counters of all catalogues below this one.
func (b *Builder) Finish(p Properties, subtree Counters) error {
	err := b.finish(p, subtree)
	if cerr := b.close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(b.file)
		return fmt.Errorf("writing catalogue of %q: %w", p.RootPrefix, err)
	}
	return nil
}

func (b *Builder) finish(p Properties, subtree Counters) error {
	insert := func(table string, key string, value driver.Value) error {
		return b.db.Exec("INSERT INTO "+table+" VALUES (?,?)", key, value)
	}
	rows := counterRows(b.self, subtree)
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		if err := insert("statistics", name, rows[name]); err != nil {
			return err
		}
	}
	for _, kv := range p.list() {
		if err := insert("properties", kv[0], kv[1]); err != nil {
			return err
		}
	}
	// The index is made last, and the file then written once more in order: the
	// primary key's index has grown in random order and would stay a third empty.
	for _, statement := range []string{
		"CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)", "COMMIT", "VACUUM",
	} {
		if err := b.db.Exec(statement); err != nil {
			return err
		}
	}
	return nil
}

func (p Properties) list() [][2]string {
	list := [][2]string{
		{"schema", "2.5"},
		{"schema_revision", "7"},
		{"revision", strconv.FormatUint(p.Revision, 10)},
		{"last_modified", strconv.FormatInt(p.LastModified.Unix(), 10)},
	}
	switch {
	case !p.Previous.IsZero():
		list = append(list, [2]string{"previous_revision", p.Previous.String()})
	case p.FirstNested:
		list = append(list, [2]string{"previous_revision", strings.Repeat("0", 40)})
	}
	if p.RootPrefix != "" {
		list = append(list, [2]string{"root_prefix", p.RootPrefix})
	}
	if p.TTL > 0 {
		list = append(list, [2]string{"TTL", strconv.FormatInt(int64(p.TTL/time.Second), 10)})
	}
	return list
}

// Discard gives the catalogue up and removes its file.
func (b *Builder) Discard() {
	_ = b.close()
	_ = os.Remove(b.file)
}

func (b *Builder) close() error {
	var errs []error
	for _, s := range []*sqlite.Stmt{b.insert, b.chunks} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	b.insert, b.chunks = nil, nil
	return errors.Join(append(errs, b.db.Close())...)
}
