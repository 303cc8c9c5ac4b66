package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/publish/internal/storage"
)

// repository is the files of one repository, wherever they are kept.
type repository struct {
	store storage.Store
}

func openStorage(location, name string) (*repository, error) {
	store, err := storage.Open(location, name)
	if err != nil {
		return nil, err
	}
	return &repository{store}, nil
}

// SplitLocation takes the location of a repository, STORAGE/NAME, apart into what
// Storage and Name in the options of this package are: STORAGE is a directory or
// s3://BUCKET/PREFIX.
func SplitLocation(location string) (root, name string, err error) { return storage.Split(location) }

// file reads a small file at the root. What does not exist gives an error that
// wraps fs.ErrNotExist.
func (s *repository) file(ctx context.Context, name string) ([]byte, error) {
	return rootFile(ctx, s.store, name)
}

func rootFile(ctx context.Context, from storage.Source, name string) ([]byte, error) {
	var data []byte
	err := get(ctx, from, name, func(r io.Reader) (err error) {
		data, err = io.ReadAll(io.LimitReader(r, maxRootFile+1))
		return err
	})
	if err == nil && len(data) > maxRootFile {
		err = fmt.Errorf("%s/%s has more than %d bytes: %w", from, name, maxRootFile, cvmfs.ErrMalformed)
	}
	return data, err
}

// maxRootFile bounds manifests, whitelists and reflogs; the last grow by a
// hundred bytes a publication.
const maxRootFile = 1 << 30

// get gives a file to read, again from the start if the connection broke.
func (s *repository) get(ctx context.Context, name string, read func(io.Reader) error) error {
	return get(ctx, s.store, name, read)
}

func get(ctx context.Context, from storage.Source, name string, read func(io.Reader) error) error {
	for try := 1; ; try++ {
		err := once(ctx, from, name, read)
		var broken net.Error
		if errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, cvmfs.ErrCorrupt) || errors.As(err, &broken) {
			if try < 3 && ctx.Err() == nil {
				continue
			}
		}
		return err
	}
}

func once(ctx context.Context, from storage.Source, name string, read func(io.Reader) error) error {
	r, err := from.Open(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	return read(r)
}

// exists reports whether there is a repository.
func (s *repository) exists(ctx context.Context) error {
	_, err := s.store.Stat(ctx, cvmfs.ManifestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w in %s", ErrNoRepository, s.store)
	}
	return err
}

// read verifies and inflates a small zlib object.
func (s *repository) read(ctx context.Context, h cvmfs.Hash, suffix cvmfs.Suffix, limit int64) ([]byte, error) {
	var b bytes.Buffer
	err := s.get(ctx, h.ObjectPath(suffix), func(r io.Reader) error {
		b.Reset()
		_, err := cvmfs.CopyVerified(&b, r, h, cvmfs.Zlib, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// unpack verifies and inflates a zlib object into a new file in dir.
func (s *repository) unpack(ctx context.Context, dir string, h cvmfs.Hash, suffix cvmfs.Suffix) (string, error) {
	return unpackFrom(ctx, s.store, dir, h, suffix)
}

func unpackFrom(ctx context.Context, from storage.Source, dir string, h cvmfs.Hash, suffix cvmfs.Suffix) (string, error) {
	out, err := os.CreateTemp(dir, "plain-*")
	if err != nil {
		return "", err
	}
	err = get(ctx, from, h.ObjectPath(suffix), func(r io.Reader) error {
		if _, err := out.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := out.Truncate(0); err != nil {
			return err
		}
		_, err := cvmfs.CopyVerified(out, r, h, cvmfs.Zlib, maxDatabase)
		return err
	})
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(out.Name())
		return "", err
	}
	return out.Name(), nil
}

// maxDatabase bounds catalogues and histories, inflated.
const maxDatabase = 16 << 30

// staging collects the new objects of one publication. It is safe for
// concurrent use by several packers.
type staging struct {
	s         *repository
	stage     storage.Stage
	dir       string // for temporary files of any kind
	algorithm cvmfs.Algorithm
	last      atomic.Int64 // number of a temporary file
	idle      sync.Pool    // of packers for zlib objects

	mu     sync.Mutex      // guards the following
	names  map[string]bool // object paths
	stored int64           // bytes of new objects
}

// stage makes a fresh staging area. The caller holds the lock.
func (s *repository) stage(ctx context.Context, a cvmfs.Algorithm) (*staging, error) {
	g, err := s.store.Stage(ctx)
	if err != nil {
		return nil, err
	}
	return &staging{s: s, stage: g, dir: g.Dir(), algorithm: a, names: make(map[string]bool)}, nil
}

// temporary names a new file that goes with the staging area.
func (g *staging) temporary(kind string) string {
	return filepath.Join(g.dir, fmt.Sprintf("%s-%d", kind, g.last.Add(1)))
}

// discard removes the staging area and what was not committed.
func (g *staging) discard() { g.stage.Discard() }

// known reports whether an object is there already, staged or in the
// repository with the size it must have. An object of another size is damage
// that the new one repairs.
func (g *staging) known(ctx context.Context, path string, size int64) (bool, error) {
	g.mu.Lock()
	staged := g.names[path]
	g.mu.Unlock()
	if staged {
		return true, nil
	}
	info, err := g.s.store.Stat(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Size == size, err
}

// add makes a file of the staging area an object.
func (g *staging) add(ctx context.Context, path, file string, size int64) error {
	g.mu.Lock()
	twice := g.names[path]
	if !twice {
		g.names[path] = true
		g.stored += size
	}
	g.mu.Unlock()
	if twice {
		return os.Remove(file)
	}
	return g.stage.Add(ctx, path, file)
}

// commit gives the objects their names.
func (g *staging) commit(ctx context.Context) error { return g.stage.Commit(ctx) }
