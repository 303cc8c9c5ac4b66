package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	engine "modernc.org/sqlite"

	"github.com/micavm/mica/cvmfs"
)

// DB is one connection to an SQLite file. It is not safe for concurrent use.
type DB struct {
	conn driver.Conn
	file string
}

// readPragmas keep the engine small, and suspicious of the file it reads.
const readPragmas = "&_pragma=query_only(1)&_pragma=trusted_schema(0)&_pragma=cell_size_check(1)" +
	"&_pragma=mmap_size(0)&_pragma=cache_size(-256)&_pragma=temp_store(2)"

// Open opens an SQLite file that nobody changes meanwhile. Whatever is in the
// file, to read all of it takes no longer than its size lets expect.
func Open(file string) (*DB, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := newShape(f)
	if err != nil {
		return nil, err
	}
	if err := s.checkSchema(); err != nil {
		return nil, err
	}
	db, err := connect(file, "?mode=ro&immutable=1"+readPragmas)
	if err != nil {
		return nil, err
	}
	if err := s.checkAll(db); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// Create makes a new SQLite file for writing, which must not exist. It has no
// journal while it is written: a file half made is thrown away.
func Create(file string) (*DB, error) {
	return connect(file, "?mode=rwc&_pragma=page_size(4096)&_pragma=journal_mode(off)&_pragma=synchronous(off)"+
		"&_pragma=locking_mode(exclusive)&_pragma=temp_store(2)&_pragma=cache_size(-8192)&_pragma=foreign_keys(0)")
}

func connect(file, query string) (*DB, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	conn, err := (&engine.Driver{}).Open("file:" + (&url.URL{Path: abs}).EscapedPath() + query)
	if err != nil {
		return nil, classify(err)
	}
	return &DB{conn: conn, file: file}, nil
}

// Close ends the connection; statements must be closed before.
func (d *DB) Close() error { return d.conn.Close() }

// Exec runs statements that return no rows.
func (d *DB) Exec(query string, args ...driver.Value) error {
	s, err := d.Prepare(query)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // the statement has run
	return s.Exec(args...)
}

// Prepare compiles a statement.
func (d *DB) Prepare(query string) (*Stmt, error) {
	s, err := d.conn.Prepare(query)
	if err != nil {
		return nil, classify(err)
	}
	return &Stmt{s: s}, nil
}

// Query prepares, runs and closes a statement, giving each row to visit.
func (d *DB) Query(query string, columns int, visit func(row []driver.Value) error, args ...driver.Value) error {
	s, err := d.Prepare(query)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // read only
	return s.Each(columns, visit, args...)
}

// Stmt is a prepared statement.
type Stmt struct{ s driver.Stmt }

// Close frees the statement.
func (s *Stmt) Close() error { return s.s.Close() }

// Exec runs a statement that returns no rows.
func (s *Stmt) Exec(args ...driver.Value) error {
	_, err := s.s.Exec(args) //nolint:staticcheck // the plain form, no context is needed
	return classify(err)
}

// Each runs the statement and gives each row, which has the given number of
// columns, to visit. The row's slice is used again for the next one.
func (s *Stmt) Each(columns int, visit func(row []driver.Value) error, args ...driver.Value) error {
	rows, err := s.s.Query(args) //nolint:staticcheck // as above
	if err != nil {
		return classify(err)
	}
	row := make([]driver.Value, columns)
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return classify(rows.Close())
		case err != nil:
			_ = rows.Close()
			return classify(err)
		}
		if err := visit(row); err != nil {
			_ = rows.Close()
			return err
		}
	}
}

// classify tells a file that is no good from an operation that failed.
func classify(err error) error {
	var e *engine.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case codeCorrupt, codeNotADB, codeError, codeTooBig, codeMismatch, codeFormat:
			return fmt.Errorf("%w: %w", cvmfs.ErrMalformed, err)
		}
	}
	return err
}

// Result codes of SQLite that say the file is at fault.
const (
	codeError    = 1 // among others: no such table or column
	codeCorrupt  = 11
	codeTooBig   = 18
	codeMismatch = 20
	codeFormat   = 24
	codeNotADB   = 26
)
