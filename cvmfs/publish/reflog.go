package publish

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/internal/sqlite"
)

// write makes a new reflog file. Equal references give equal files.
func (l *reflog) write(file, name string) error {
	db, err := sqlite.Create(file)
	if err != nil {
		return fmt.Errorf("writing reflog: %w", err)
	}
	err = l.fill(db, name)
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("writing reflog: %w", err)
	}
	return nil
}

func (l *reflog) fill(db *sqlite.DB, name string) error {
	for _, statement := range []string{
		"BEGIN",
		"CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash))",
		"CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))",
		"INSERT INTO properties VALUES ('schema', '1.0')",
		"INSERT INTO properties VALUES ('schema_revision', '0')",
	} {
		if err := db.Exec(statement); err != nil {
			return err
		}
	}
	if err := db.Exec("INSERT INTO properties VALUES ('fqrn', ?)", name); err != nil {
		return err
	}
	insert, err := db.Prepare("INSERT INTO refs VALUES (?,?,?)")
	if err != nil {
		return err
	}
	for _, r := range l.sorted() {
		if err := insert.Exec(r.hash.String(), r.kind, r.time); err != nil {
			_ = insert.Close()
			return err
		}
	}
	if err := insert.Close(); err != nil {
		return err
	}
	return db.Exec("COMMIT")
}

func readReflog(file, name string) (*reflog, error) {
	db, err := sqlite.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading reflog: %w", err)
	}
	defer db.Close() //nolint:errcheck // read only
	l := &reflog{refs: make(map[cvmfs.Hash]reference)}
	err = db.Query("SELECT value FROM properties WHERE key='fqrn'", 1, func(row []driver.Value) error {
		if row[0] != name {
			return fmt.Errorf("of %q: %w", row[0], cvmfs.ErrWrongName)
		}
		return nil
	})
	if err == nil {
		err = db.Query("SELECT hash, type, timestamp FROM refs", 3, func(row []driver.Value) error {
			text, ok1 := row[0].(string)
			kind, ok2 := row[1].(int64)
			at, ok3 := row[2].(int64)
			h, err := cvmfs.ParseHash(text)
			if err != nil || !ok1 || !ok2 || !ok3 {
				return fmt.Errorf("row %v: %w", row, cvmfs.ErrMalformed)
			}
			l.refs[h] = reference{h, kind, at}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("reading reflog: %w", err)
	}
	return l, nil
}

// nextReflog is where the reflog of a publication waits for its manifest. The
// manifest names the reflog by its hash, and two files cannot be replaced at
// once; so the one that the manifest names is under one of the two names,
// whenever a publication is cut short.
const nextReflog = cvmfs.ReflogFile + ".next"

// reflogFile finds the file that holds the reflog that m names, and reads it; the
// usual one if none does.
func (s *repository) reflogFile(ctx context.Context, m *cvmfs.Manifest) (name string, data []byte, err error) {
	data, err = s.file(ctx, cvmfs.ReflogFile)
	if m.Reflog.IsZero() || err == nil && m.Reflog.Algorithm.Sum(data) == m.Reflog {
		return cvmfs.ReflogFile, data, err
	}
	next, nerr := s.file(ctx, nextReflog)
	if nerr == nil && m.Reflog.Algorithm.Sum(next) == m.Reflog {
		return nextReflog, next, nil
	}
	return cvmfs.ReflogFile, data, err
}

// settleReflog puts the reflog that m names under its name, and removes one that
// a killed publication left.
func (s *repository) settleReflog(ctx context.Context, m *cvmfs.Manifest) error {
	name, data, err := s.reflogFile(ctx, m)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if name == nextReflog {
		if err := s.store.Replace(ctx, cvmfs.ReflogFile, data); err != nil {
			return err
		}
	}
	return s.store.Remove(ctx, []string{nextReflog}, func(int) {})
}

// readReflog reads the published reflog. One that is missing, damaged or does
// not know the published catalogue is made anew from the chain of revisions.
func (t *transaction) readReflog(ctx context.Context) (*reflog, error) {
	data, err := t.s.file(ctx, cvmfs.ReflogFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := parseReflog(t.g.dir, data, t.keys.Name)
	if err == nil {
		if _, known := l.refs[t.head.RootHash]; known {
			return l, nil
		}
	} else if !errors.Is(err, cvmfs.ErrMalformed) && !errors.Is(err, cvmfs.ErrWrongName) {
		return nil, err
	}
	l = &reflog{refs: make(map[cvmfs.Hash]reference)}
	roots := []cvmfs.Hash{t.head.RootHash}
	for _, tag := range t.tags {
		roots = append(roots, tag.Hash)
	}
	for _, root := range roots {
		if err := t.chain(ctx, l, root); err != nil {
			return nil, fmt.Errorf("making the reflog anew: %w", err)
		}
	}
	return l, nil
}

// parseReflog reads the content of a reflog; none at all is malformed.
func parseReflog(dir string, data []byte, name string) (*reflog, error) {
	f, err := os.CreateTemp(dir, "reflog-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // temporary
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("reading reflog: it is empty: %w", cvmfs.ErrMalformed)
	}
	return readReflog(f.Name(), name)
}

// chain adds a root catalogue and those before it, as far as they are kept.
func (t *transaction) chain(ctx context.Context, l *reflog, root cvmfs.Hash) error {
	for at := root; !at.IsZero(); {
		if _, known := l.refs[at]; known {
			return nil
		}
		file, err := t.s.unpack(ctx, t.g.dir, at, cvmfs.SuffixCatalog)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && at != root {
				return nil // garbage collection ends the chain here
			}
			return err
		}
		previous, modified, err := predecessor(file)
		_ = os.Remove(file)
		if err != nil {
			return fmt.Errorf("catalogue %v: %w", at, err)
		}
		l.add(at, refCatalog, modified)
		at = previous
	}
	return nil
}

// predecessor reads from a catalogue file which one it replaced, and when.
func predecessor(file string) (previous cvmfs.Hash, modified time.Time, err error) {
	c, err := catalog.Open(file)
	if err != nil {
		return previous, modified, err
	}
	defer c.Close() //nolint:errcheck // read only
	text, found, err := c.Property("previous_revision")
	if err == nil && found && text != "" {
		previous, err = cvmfs.ParseHash(text)
	}
	if err != nil {
		return previous, modified, err
	}
	text, _, err = c.Property("last_modified")
	if err != nil {
		return previous, modified, err
	}
	var seconds int64
	if _, err := fmt.Sscan(text, &seconds); err != nil {
		seconds = 0
	}
	return previous, time.Unix(seconds, 0), nil
}
