package history

import (
	"database/sql/driver"
	"fmt"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/internal/sqlite"
)

// Names of the tags every publication moves.
const (
	Trunk         = "trunk"          // the current revision
	TrunkPrevious = "trunk-previous" // the one before
)

// Tag names a revision.
type Tag struct {
	Name        string
	Hash        cvmfs.Hash // root catalogue
	Revision    uint64
	Time        time.Time // when it was tagged, whole seconds
	Description string
	Size        int64 // of the root catalogue in bytes, inflated
}

// History is the list of tags of one history file, read whole. It is read-only
// and may be used by several goroutines.
type History struct {
	name     string
	previous cvmfs.Hash
	tags     []Tag // newest revision first, then by name
	byName   map[string]int
}

// Open reads a history file. Errors wrap cvmfs.ErrMalformed if it is none.
func Open(file string) (*History, error) {
	db, err := sqlite.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening history: %w", err)
	}
	defer db.Close() //nolint:errcheck // read only
	h := &History{byName: make(map[string]int)}
	if err := h.read(db); err != nil {
		return nil, fmt.Errorf("reading history: %w", err)
	}
	return h, nil
}

func (h *History) read(db *sqlite.DB) error {
	err := db.Query("SELECT count(*) FROM sqlite_master WHERE type NOT IN ('table','index')", 1, func(row []driver.Value) error {
		if n, ok := row[0].(int64); !ok || n != 0 {
			return fmt.Errorf("it has views or triggers: %w", cvmfs.ErrMalformed)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = db.Query("SELECT key, value FROM properties WHERE key IN ('fqrn', 'previous_revision')", 2, func(row []driver.Value) error {
		value, ok := row[1].(string)
		if !ok {
			return fmt.Errorf("property of type %T: %w", row[1], cvmfs.ErrMalformed)
		}
		if row[0] == "fqrn" {
			h.name = value
			return nil
		}
		if value == "" {
			return nil
		}
		var err error
		h.previous, err = cvmfs.ParseHash(value)
		return err
	})
	if err != nil {
		return err
	}
	return db.Query("SELECT name, hash, revision, timestamp, description, size FROM tags ORDER BY revision DESC, name", 6, func(row []driver.Value) error {
		t, err := readTag(row)
		if err != nil {
			return err
		}
		if _, twice := h.byName[t.Name]; twice {
			return fmt.Errorf("tag %q is there twice: %w", t.Name, cvmfs.ErrMalformed)
		}
		h.byName[t.Name] = len(h.tags)
		h.tags = append(h.tags, t)
		return nil
	})
}

func readTag(row []driver.Value) (Tag, error) {
	name, ok := row[0].(string)
	if !ok || len(name) > 255 {
		return Tag{}, fmt.Errorf("tag name: %w", cvmfs.ErrMalformed)
	}
	bad := func(column string) (Tag, error) {
		return Tag{}, fmt.Errorf("tag %q: %s: %w", name, column, cvmfs.ErrMalformed)
	}
	if err := CheckTagName(name); err != nil {
		return Tag{}, err
	}
	text, ok := row[1].(string)
	if !ok {
		return bad("hash")
	}
	hash, err := cvmfs.ParseHash(text)
	if err != nil || hash.IsZero() || hash.Algorithm == cvmfs.MD5 {
		return bad("hash")
	}
	revision, ok := row[2].(int64)
	if !ok || revision < 0 {
		return bad("revision")
	}
	seconds, ok := row[3].(int64)
	if !ok || seconds < 0 || seconds > 253402300799 { // end of the year 9999
		return bad("timestamp")
	}
	t := Tag{Name: name, Hash: hash, Revision: uint64(revision), Time: time.Unix(seconds, 0).UTC()}
	if row[4] != nil {
		if t.Description, ok = row[4].(string); !ok {
			return bad("description")
		}
	}
	if row[5] != nil {
		if t.Size, ok = row[5].(int64); !ok || t.Size < 0 {
			return bad("size")
		}
	}
	return t, nil
}

// Name returns the fully qualified name of the repository the tags are of.
func (h *History) Name() string { return h.name }

// Previous returns the hash of the history file before this one, if it is
// recorded.
func (h *History) Previous() cvmfs.Hash { return h.previous }

// Tags returns the tags, newest revision first. The slice is the caller's.
func (h *History) Tags() []Tag { return append([]Tag(nil), h.tags...) }

// Lookup finds a tag by name.
func (h *History) Lookup(name string) (Tag, bool) {
	i, found := h.byName[name]
	if !found {
		return Tag{}, false
	}
	return h.tags[i], true
}

// At returns the tag with the largest revision among those made at t or before.
func (h *History) At(t time.Time) (Tag, bool) {
	for _, tag := range h.tags {
		if !tag.Time.After(t) {
			return tag, true
		}
	}
	return Tag{}, false
}

// CheckTagName tells whether name can be that of a tag: letters, digits and
// "-_./:". The error wraps cvmfs.ErrMalformed.
func CheckTagName(name string) error {
	valid := func(c rune) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-_./:", c)
	}
	if name == "" || len(name) > 255 || strings.IndexFunc(name, func(c rune) bool { return !valid(c) }) >= 0 {
		return fmt.Errorf("tag name %q: %w", name, cvmfs.ErrMalformed)
	}
	return nil
}
