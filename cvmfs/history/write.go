package history

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/internal/sqlite"
)

// The branch row comes first: both tables point at it.
var schema = []string{
	`CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER,
 CONSTRAINT pk_branch PRIMARY KEY (branch), FOREIGN KEY (parent) REFERENCES branches (branch),
 CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)))`,
	`INSERT INTO branches VALUES ('', NULL, 0)`,
	`CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER,
 description TEXT, size INTEGER, branch TEXT,
 CONSTRAINT pk_tags PRIMARY KEY (name), FOREIGN KEY (branch) REFERENCES branches (branch))`,
	`CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash))`,
	`CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))`,
	`INSERT INTO properties VALUES ('schema', '1.0')`,
	`INSERT INTO properties VALUES ('schema_revision', '3')`,
}

// Write makes a new history file with the given tags; previous is the one it
// replaces, or zero. Equal tags give equal files.
func Write(file, repository string, previous cvmfs.Hash, tags []Tag) error {
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("writing history %s: %w", file, os.ErrExist)
	}
	db, err := sqlite.Create(file)
	if err != nil {
		return fmt.Errorf("writing history: %w", err)
	}
	err = write(db, repository, previous, tags)
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(file)
		return fmt.Errorf("writing history: %w", err)
	}
	return nil
}

func write(db *sqlite.DB, repository string, previous cvmfs.Hash, tags []Tag) error {
	if err := db.Exec("BEGIN"); err != nil {
		return err
	}
	for _, statement := range schema {
		if err := db.Exec(statement); err != nil {
			return err
		}
	}
	if err := db.Exec("INSERT INTO properties VALUES ('fqrn', ?)", repository); err != nil {
		return err
	}
	if !previous.IsZero() {
		if err := db.Exec("INSERT INTO properties VALUES ('previous_revision', ?)", previous.String()); err != nil {
			return err
		}
	}
	tags = slices.SortedFunc(slices.Values(tags), func(a, b Tag) int { return strings.Compare(a.Name, b.Name) })
	for _, t := range tags {
		if err := CheckTagName(t.Name); err != nil {
			return err
		}
		if t.Hash.IsZero() {
			return fmt.Errorf("tag %q has no catalogue: %w", t.Name, cvmfs.ErrMalformed)
		}
		err := db.Exec("INSERT INTO tags VALUES (?,?,?,?,0,?,?,'')",
			t.Name, t.Hash.String(), int64(t.Revision), t.Time.Unix(), t.Description, t.Size) //nolint:gosec // revisions are small
		if err != nil {
			return fmt.Errorf("tag %q: %w", t.Name, err)
		}
	}
	return db.Exec("COMMIT")
}
