package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zlib"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/internal/atomicfile"
)

// storage is the directory of one repository.
type storage struct {
	dir  string // STORAGE/NAME
	lock string // beside it, where no server looks
}

func openStorage(root, name string) (*storage, error) {
	if err := cvmfs.CheckName(name); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	return &storage{dir: filepath.Join(abs, name), lock: filepath.Join(abs, "."+name+".lock")}, nil
}

func (s *storage) file(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (s *storage) object(h cvmfs.Hash, suffix cvmfs.Suffix) string {
	return s.file(h.ObjectPath(suffix))
}

// acquire takes the repository's lock for the life of a writer.
func (s *storage) acquire() (*atomicfile.Lock, error) {
	if err := os.MkdirAll(filepath.Dir(s.lock), 0o755); err != nil {
		return nil, err
	}
	return atomicfile.TryLock(s.lock)
}

const stagingDir = "data/txn"

// prepare makes the directories objects go to. They exist beforehand in every
// repository, so that storing an object is one rename.
func (s *storage) prepare() error {
	if err := os.MkdirAll(s.file(stagingDir), 0o755); err != nil {
		return err
	}
	for i := range 256 {
		if err := os.Mkdir(s.file(fmt.Sprintf("data/%02x", i)), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// read verifies and inflates a small zlib object.
func (s *storage) read(h cvmfs.Hash, suffix cvmfs.Suffix, limit int64) ([]byte, error) {
	f, err := os.Open(s.object(h, suffix))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := cvmfs.CopyVerified(&b, f, h, cvmfs.Zlib, limit); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// unpack verifies and inflates a zlib object into a new file in dir.
func (s *storage) unpack(dir string, h cvmfs.Hash, suffix cvmfs.Suffix) (string, error) {
	in, err := os.Open(s.object(h, suffix))
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.CreateTemp(dir, "plain-*")
	if err != nil {
		return "", err
	}
	_, err = cvmfs.CopyVerified(out, in, h, cvmfs.Zlib, maxDatabase)
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
	s         *storage
	dir       string
	algorithm cvmfs.Algorithm

	mu     sync.Mutex
	names  map[string]string // object path → staged file
	stored int64             // bytes of new objects
}

// stagingPrefix marks what a killed publication of ours left behind.
const stagingPrefix = "mica-"

// stage makes a fresh staging area. The caller holds the lock, so whatever an
// earlier one left is nobody's.
func (s *storage) stage(a cvmfs.Algorithm) (*staging, error) {
	if err := s.prepare(); err != nil {
		return nil, err
	}
	left, err := os.ReadDir(s.file(stagingDir))
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		if strings.HasPrefix(e.Name(), stagingPrefix) {
			if err := os.RemoveAll(filepath.Join(s.file(stagingDir), e.Name())); err != nil {
				return nil, err
			}
		}
	}
	dir, err := os.MkdirTemp(s.file(stagingDir), stagingPrefix)
	if err != nil {
		return nil, err
	}
	return &staging{s: s, dir: dir, algorithm: a, names: make(map[string]string)}, nil
}

// discard removes the staging area and what was not committed.
func (g *staging) discard() { _ = os.RemoveAll(g.dir) }

// known reports whether an object is there already, staged or in the
// repository with the size it must have. An object of another size is damage
// that the new one repairs.
func (g *staging) known(path string, size int64) bool {
	g.mu.Lock()
	_, staged := g.names[path]
	g.mu.Unlock()
	if staged {
		return true
	}
	fi, err := os.Lstat(g.s.file(path))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == size
}

// add registers a file of the staging area as an object.
func (g *staging) add(path, file string, size int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, twice := g.names[path]; twice {
		_ = os.Remove(file)
		return
	}
	g.names[path] = file
	g.stored += size
}

// commit makes the objects durable and then gives them their names, so that a
// name never stands for bytes a power cut may still take.
func (g *staging) commit(ctx context.Context) error {
	if err := syncFS(g.dir); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(g.names)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := os.Rename(g.names[path], g.s.file(path)); err != nil {
			return err
		}
	}
	return syncFS(g.dir)
}

// syncFS flushes the file system of dir: one call instead of one per object.
func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("flushing %s: %w", dir, err)
	}
	return nil
}

// packer stores objects, one at a time. Each worker has its own: the compressor
// holds a megabyte.
type packer struct {
	g    *staging
	c    cvmfs.Compression
	z    *zlib.Writer
	sum  hash.Hash
	mem  bytes.Buffer // the stored form while it is small
	file *os.File     // the stored form once it is not
	size int64        // stored
}

func (g *staging) packer(c cvmfs.Compression) *packer { return &packer{g: g, c: c} }

// spill is the stored size from which an object is written to a file before its
// name is known.
const spill = 1 << 20

// begin starts an object.
func (p *packer) begin() error {
	p.abort()
	p.sum = p.g.algorithm.New()
	if p.c == cvmfs.Plain {
		return nil
	}
	if p.z == nil {
		var err error
		p.z, err = zlib.NewWriterLevel(sink{p}, 6)
		return err
	}
	p.z.Reset(sink{p})
	return nil
}

// Write adds plain bytes to the object.
func (p *packer) Write(b []byte) (int, error) {
	if p.c == cvmfs.Plain {
		return sink{p}.Write(b)
	}
	return p.z.Write(b)
}

// finish ends the object and returns its hash and the place to register it at:
// what kind it is may become known only later.
func (p *packer) finish() (packed, error) {
	if p.c != cvmfs.Plain {
		if err := p.z.Close(); err != nil {
			return packed{}, err
		}
	}
	o := packed{hash: cvmfs.NewHash(p.g.algorithm, p.sum), size: p.size}
	if p.file != nil {
		o.file = p.file.Name()
		err := p.file.Close()
		p.file = nil
		p.abort()
		return o, err
	}
	o.data = bytes.Clone(p.mem.Bytes())
	p.abort()
	return o, nil
}

// abort forgets an object half written.
func (p *packer) abort() {
	if p.file != nil {
		_ = p.file.Close()
		_ = os.Remove(p.file.Name())
		p.file = nil
	}
	p.mem.Reset()
	p.size = 0
}

// sink takes the stored form.
type sink struct{ p *packer }

func (s sink) Write(b []byte) (int, error) {
	p := s.p
	_, _ = p.sum.Write(b) // never fails
	p.size += int64(len(b))
	if p.file != nil {
		return p.file.Write(b)
	}
	if p.mem.Len()+len(b) <= spill {
		return p.mem.Write(b)
	}
	f, err := os.CreateTemp(p.g.dir, "object-*")
	if err != nil {
		return 0, err
	}
	p.file = f
	if _, err := f.Write(p.mem.Bytes()); err != nil {
		return 0, err
	}
	p.mem.Reset()
	return f.Write(b)
}

// packed is an object that has been compressed and hashed.
type packed struct {
	hash cvmfs.Hash
	size int64
	data []byte // or
	file string
}

// keep stages a packed object under its kind.
func (g *staging) keep(o packed, suffix cvmfs.Suffix) error {
	path := o.hash.ObjectPath(suffix)
	if g.known(path, o.size) {
		if o.file != "" {
			return os.Remove(o.file)
		}
		return nil
	}
	file := o.file
	if file == "" {
		f, err := os.CreateTemp(g.dir, "object-*")
		if err != nil {
			return err
		}
		file = f.Name()
		_, err = f.Write(o.data)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	if err := os.Chmod(file, 0o644); err != nil { //nolint:gosec // a web server reads it
		return err
	}
	g.add(path, file, o.size)
	return nil
}

// putBytes stages data as a zlib object.
func (g *staging) putBytes(data []byte, suffix cvmfs.Suffix) (cvmfs.Hash, error) {
	return g.put(bytes.NewReader(data), suffix)
}

// putFile stages a file as a zlib object.
func (g *staging) putFile(file string, suffix cvmfs.Suffix) (cvmfs.Hash, error) {
	f, err := os.Open(file)
	if err != nil {
		return cvmfs.Hash{}, err
	}
	defer f.Close()
	return g.put(f, suffix)
}

func (g *staging) put(r io.Reader, suffix cvmfs.Suffix) (cvmfs.Hash, error) {
	p := g.packer(cvmfs.Zlib)
	defer p.abort()
	if err := p.begin(); err != nil {
		return cvmfs.Hash{}, err
	}
	if _, err := io.Copy(p, r); err != nil {
		return cvmfs.Hash{}, err
	}
	o, err := p.finish()
	if err != nil {
		return cvmfs.Hash{}, err
	}
	return o.hash, g.keep(o, suffix)
}
