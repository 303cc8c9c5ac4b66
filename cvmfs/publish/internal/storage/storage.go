package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
)

// ErrChanged says that somebody else replaced a file since it was read.
var ErrChanged = errors.New("was replaced by somebody else meanwhile")

// Store keeps the files of one repository. It is safe for concurrent use. Errors
// about a name that does not exist wrap fs.ErrNotExist.
type Store interface {
	// String says where, for messages.
	String() string

	// Lock keeps other writers out, or fails at once with an error that wraps
	// atomicfile.ErrLocked.
	Lock(ctx context.Context) (Lock, error)

	// Open reads a file.
	Open(ctx context.Context, name string) (io.ReadCloser, error)

	// Stat describes a file without reading it.
	Stat(ctx context.Context, name string) (Info, error)

	// Replace writes a file at the root. If this Store has read the file before,
	// and it is not the same any more, the error wraps ErrChanged.
	Replace(ctx context.Context, name string, data []byte) error

	// Remove removes files; those that do not exist are passed over. done is
	// told now and then how many are gone.
	Remove(ctx context.Context, names []string, done func(n int)) error

	// Objects describes all files below data/, but for staging areas, in no
	// order. It holds no more than some thousand at a time.
	Objects(ctx context.Context, visit func(Info) error) error

	// Stage opens an area for new objects. The caller holds the lock: what
	// others left behind is removed. The end of ctx stops what is on its way.
	Stage(ctx context.Context) (Stage, error)

	// Parallel is how many objects are best on their way at a time.
	Parallel() int
}

// Lock is held by one writer.
type Lock interface {
	// Held returns nil while the lock is certainly held.
	Held() error

	// Unlock frees it.
	Unlock() error
}

// Stage collects new objects.
type Stage interface {
	// Dir is a directory on this computer for temporary files of any kind.
	Dir() string

	// Create makes a file for an object in Dir. It may be called by several
	// goroutines.
	Create() (*os.File, error)

	// Add takes a file that Create made, complete and closed, as the object of a
	// name. It may be called by several goroutines, once for each name.
	Add(ctx context.Context, name, file string) error

	// Advance does of a Commit what can be done already, for what has been added
	// before. Create and Add may be called meanwhile.
	Advance(ctx context.Context) error

	// Commit returns when every object that was added has its name. Objects may
	// have them before. More may be added and committed afterwards.
	Commit(ctx context.Context) error

	// Discard removes what was not committed, and Dir.
	Discard()
}

// Info describes a file.
type Info struct {
	Name     string
	Size     int64
	Modified time.Time
}

// scheme starts the location of a bucket.
const scheme = "s3://"

// Open returns the storage of the repository name at location, a directory or
// s3://BUCKET/PREFIX. Nothing is created.
func Open(location, name string) (Store, error) {
	if err := cvmfs.CheckName(name); err != nil {
		return nil, err
	}
	if strings.HasPrefix(location, scheme) {
		b, err := parseBucket(location)
		if err != nil {
			return nil, err
		}
		return b.open(name)
	}
	if before, _, found := strings.Cut(location, "://"); found && before != "" && !strings.Contains(before, "/") {
		return nil, fmt.Errorf("storage %q: want a directory or %sBUCKET/PREFIX: %w", location, scheme, errors.ErrUnsupported)
	}
	abs, err := filepath.Abs(location)
	if err != nil {
		return nil, err
	}
	return newDirectory(abs, name), nil
}

// Split takes the location of a repository apart into its storage and its name,
// the last element of the path.
func Split(location string) (storage, name string, err error) {
	if strings.HasPrefix(location, scheme) {
		path, query, asked := strings.Cut(location, "?")
		path = strings.TrimRight(path, "/")
		i := strings.LastIndexByte(path, '/')
		if i < len(scheme) {
			return "", "", fmt.Errorf("%q names a bucket, no repository in it: %w", location, errors.ErrUnsupported)
		}
		storage, name = path[:i], path[i+1:]
		if asked {
			storage += "?" + query
		}
	} else {
		abs, err := filepath.Abs(location)
		if err != nil {
			return "", "", err
		}
		storage, name = filepath.Dir(abs), filepath.Base(abs)
	}
	return storage, name, cvmfs.CheckName(name)
}
