package publish

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/history"
	"github.com/micavm/mica/cvmfs/publish/internal/storage"
)

// CheckOptions say what Check looks at; Storage and Name are needed.
type CheckOptions struct {
	Storage, Name string
	MasterKeys    []*rsa.PublicKey // nil leaves out the signatures
	Data          bool             // read and hash every object
	Workers       int
	Now           func() time.Time
	Progress      func(Progress)
}

// Problem is something that does not hold.
type Problem struct {
	Revision string `json:"revision"` // "trunk" or another tag that shows it
	Path     string `json:"path"`     // in the repository, or the file in storage; "" for the whole
	Text     string `json:"text"`
}

func (p Problem) String() string { return fmt.Sprintf("%s: %q: %s", p.Revision, p.Path, p.Text) }

// Report is what Check found.
type Report struct {
	Revision uint64
	RootHash cvmfs.Hash
	Catalogs int64
	Entries  int64
	Objects  int64 // different objects of files
	Bytes    int64 // of them, as stored
	Problems []Problem
}

// maxProblems ends a check of what is broken altogether.
const maxProblems = 1000

var errEnough = errors.New("too many problems")

// Check verifies a repository: the signed files, the tags, the reflog, and of
// the published revision and every tag the catalogues (structure, links, counts)
// and that every object is there. Each catalogue is looked at once, however many
// revisions share it. What does not hold is in the report; the error is for what
// kept Check from looking.
func Check(ctx context.Context, o CheckOptions) (*Report, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	s, err := openStorage(o.Storage, o.Name)
	if err != nil {
		return nil, err
	}
	if err := s.exists(ctx); err != nil {
		return nil, fmt.Errorf("checking %q: %w", o.Name, err)
	}
	temp, err := os.MkdirTemp("", "mica-check-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // temporary
	c := &checker{ctx: ctx, o: o, s: s, temp: temp, report: &Report{}, catalogs: make(map[cvmfs.Hash]*checked), objects: make(map[string]*stored), revision: "trunk"}
	if err := c.all(); err != nil && !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("checking %q: %w", o.Name, err)
	}
	return c.report, nil
}

// checker walks revisions one after the other.
type checker struct {
	ctx      context.Context
	o        CheckOptions
	s        *repository
	temp     string
	report   *Report
	revision string
	catalogs map[cvmfs.Hash]*checked // nil while it is being looked at: its own ancestor
	objects  map[string]*stored
}

// stored is an object by its path: what its content must be.
type stored struct {
	hash        cvmfs.Hash
	compression cvmfs.Compression
	size        int64 // plain, at most
	where       string
	revision    string
	bytes       int64 // stored; -1 if it is not there
}

// checked is what is known of a catalogue that was looked at.
type checked struct {
	root     catalog.Entry
	xattrs   map[string][]byte // of root
	revision string            // property
	path     string
	total    catalog.Counters
	size     int64
	bad      bool
}

func (c *checker) problem(path, format string, args ...any) error {
	c.report.Problems = append(c.report.Problems, Problem{c.revision, path, fmt.Sprintf(format, args...)})
	if len(c.report.Problems) >= maxProblems {
		return errEnough
	}
	return nil
}

func (c *checker) all() error {
	m, err := c.manifest()
	if m == nil || err != nil {
		return err
	}
	c.report.Revision, c.report.RootHash = m.Revision, m.RootHash
	tags, err := c.history(m)
	if err != nil {
		return err
	}
	if err := c.reflog(m, tags); err != nil {
		return err
	}
	if err := c.revisionTree(m.RootHash, m.RootSize, m.Revision); err != nil {
		return err
	}
	for _, tag := range tags {
		c.revision = tag.Name
		if err := c.revisionTree(tag.Hash, tag.Size, tag.Revision); err != nil {
			return err
		}
	}
	c.o.Progress(Progress{Phase: PhaseCheck, Done: c.report.Catalogs, Finished: true})
	if err := c.census(); err != nil {
		return err
	}
	return c.data()
}

// manifest checks the signed files and the small objects.
func (c *checker) manifest() (*cvmfs.Manifest, error) {
	data, err := c.s.file(c.ctx, cvmfs.ManifestFile)
	if err != nil {
		return nil, err
	}
	m, err := cvmfs.ParseManifest(data)
	if err != nil {
		return nil, c.problem(cvmfs.ManifestFile, "%v", err)
	}
	if m.Name != c.o.Name {
		return m, c.problem(cvmfs.ManifestFile, "it is of %q", m.Name)
	}
	certificate, err := c.s.read(c.ctx, m.Certificate, cvmfs.SuffixCertificate, maxSmall)
	if err != nil {
		if err := c.problem(m.Certificate.ObjectPath(cvmfs.SuffixCertificate), "certificate: %v", err); err != nil {
			return m, err
		}
	}
	if c.o.MasterKeys != nil && err == nil {
		whitelist, err := c.s.file(c.ctx, cvmfs.WhitelistFile)
		if err == nil {
			_, err = cvmfs.Trust{Name: c.o.Name, MasterKeys: c.o.MasterKeys, Now: c.o.Now}.Verify(data, whitelist, certificate)
		}
		if err != nil {
			if err := c.problem(cvmfs.ManifestFile, "%v", err); err != nil {
				return m, err
			}
		}
	}
	if !m.Metainfo.IsZero() {
		if _, err := c.s.read(c.ctx, m.Metainfo, cvmfs.SuffixMetainfo, maxSmall); err != nil {
			return m, c.problem(m.Metainfo.ObjectPath(cvmfs.SuffixMetainfo), "metainfo: %v", err)
		}
	}
	return m, nil
}

func (c *checker) history(m *cvmfs.Manifest) ([]history.Tag, error) {
	if m.History.IsZero() {
		return nil, nil
	}
	path := m.History.ObjectPath(cvmfs.SuffixHistory)
	file, err := c.s.unpack(c.ctx, c.temp, m.History, cvmfs.SuffixHistory)
	if err != nil {
		return nil, c.problem(path, "history: %v", err)
	}
	defer os.Remove(file) //nolint:errcheck // temporary
	h, err := history.Open(file)
	if err != nil {
		return nil, c.problem(path, "%v", err)
	}
	if h.Name() != m.Name {
		if err := c.problem(path, "the history is of %q", h.Name()); err != nil {
			return nil, err
		}
	}
	for _, tag := range h.Tags() {
		// Tools that publish a directory of snapshots do so after they have set
		// the tags, so trunk may be one behind.
		if tag.Revision > m.Revision || tag.Revision == m.Revision && tag.Hash != m.RootHash {
			if err := c.problem(path, "tag %q is of revision %d, %v; published is %d, %v", tag.Name, tag.Revision, tag.Hash, m.Revision, m.RootHash); err != nil {
				return nil, err
			}
		}
	}
	return h.Tags(), nil
}

func (c *checker) reflog(m *cvmfs.Manifest, tags []history.Tag) error {
	if m.Reflog.IsZero() {
		return nil
	}
	_, data, err := c.s.reflogFile(c.ctx, m)
	if err != nil {
		return c.problem(cvmfs.ReflogFile, "%v", err)
	}
	if got := m.Reflog.Algorithm.Sum(data); got != m.Reflog {
		if err := c.problem(cvmfs.ReflogFile, "its hash is %v, the manifest says %v", got, m.Reflog); err != nil {
			return err
		}
	}
	l, err := parseReflog(c.temp, data, m.Name)
	if err != nil {
		return c.problem(cvmfs.ReflogFile, "%v", err)
	}
	want := []reference{{m.RootHash, refCatalog, 0}, {m.Certificate, refCertificate, 0}, {m.History, refHistory, 0}, {m.Metainfo, refMetainfo, 0}}
	for _, tag := range tags {
		want = append(want, reference{tag.Hash, refCatalog, 0})
	}
	for _, r := range want {
		if got, known := l.refs[r.hash]; !r.hash.IsZero() && (!known || got.kind != r.kind) {
			if err := c.problem(cvmfs.ReflogFile, "%v is not in it", r.hash); err != nil {
				return err
			}
		}
	}
	return nil
}

// revisionTree checks a root catalogue and all below.
func (c *checker) revisionTree(root cvmfs.Hash, size int64, revision uint64) error {
	got, err := c.catalogue("", root)
	if err != nil || got == nil {
		return err
	}
	if got.revision != strconv.FormatUint(revision, 10) {
		if err := c.problem("", "catalogue %v is of revision %q, announced is %d", root, got.revision, revision); err != nil {
			return err
		}
	}
	if size != 0 && size != got.size {
		return c.problem("", "catalogue %v has %d bytes, announced are %d", root, got.size, size)
	}
	return nil
}

// catalogue checks the catalogue of a path and returns what its parent must
// know; nil if it cannot be read.
func (c *checker) catalogue(path string, h cvmfs.Hash) (*checked, error) {
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	if known, found := c.catalogs[h]; found {
		if known == nil {
			return nil, c.problem(path, "catalogue %v is below itself", h)
		}
		if known.path != path {
			return known, c.problem(path, "catalogue %v belongs to %q", h, known.path)
		}
		return known, nil
	}
	c.catalogs[h] = nil
	file, err := c.s.unpack(c.ctx, c.temp, h, cvmfs.SuffixCatalog)
	if err != nil {
		delete(c.catalogs, h)
		return nil, c.problem(path, "catalogue %v: %v", h, err)
	}
	defer os.Remove(file) //nolint:errcheck // temporary
	cat, err := catalog.Open(file)
	if err != nil {
		delete(c.catalogs, h)
		return nil, c.problem(path, "catalogue %v: %v", h, err)
	}
	defer cat.Close() //nolint:errcheck // read only
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	c.report.Catalogs++
	c.o.Progress(Progress{Phase: PhaseCheck, Done: c.report.Catalogs})
	v := &catalogueCheck{c: c, catalog: cat, top: path, out: &checked{path: path, size: fi.Size()}}
	if err := v.run(); err != nil {
		return nil, err
	}
	c.report.Entries += v.self.Entries() - v.self.Nested
	c.catalogs[h] = v.out
	return v.out, nil
}

// note remembers an object to look for.
func (c *checker) note(h cvmfs.Hash, suffix cvmfs.Suffix, compression cvmfs.Compression, size int64, where string) error {
	path := h.ObjectPath(suffix)
	if _, known := c.objects[path]; known {
		return nil
	}
	c.objects[path] = &stored{h, compression, size, where, c.revision, -1}
	return nil
}

// census finds out which objects there are. What lies in data/ and is no object
// nobody will ever ask for or remove, so that a check of the data names it.
func (c *checker) census() error {
	err := c.s.store.Objects(c.ctx, func(i storage.Info) error {
		if o := c.objects[i.Name]; o != nil {
			o.bytes = i.Size
			c.report.Objects++
			c.report.Bytes += i.Size
			return nil
		}
		if c.o.Data && !isObject(i.Name) {
			c.revision = history.Trunk
			return c.problem(i.Name, "it lies among the objects and is none")
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(c.objects)) {
		if o := c.objects[path]; o.bytes < 0 {
			c.revision = o.revision
			if err := c.problem(o.where, "object %s is missing", path); err != nil {
				return err
			}
		}
	}
	return nil
}

// isObject reports whether a path is exactly that of an object.
func isObject(path string) bool {
	rest, ok := strings.CutPrefix(path, "data/")
	if !ok || len(rest) < 4 || rest[2] != '/' {
		return false
	}
	text := rest[:2] + rest[3:]
	if last := text[len(text)-1]; last >= 'A' && last <= 'Z' {
		text = text[:len(text)-1]
	}
	h, err := cvmfs.ParseHash(text)
	return err == nil && h.Algorithm != cvmfs.MD5
}

// data reads every object there is.
func (c *checker) data() error {
	if !c.o.Data {
		return nil
	}
	workers := c.o.Workers
	if workers <= 0 {
		workers = c.s.store.Parallel()
	}
	paths := slices.Sorted(maps.Keys(c.objects))
	var mu sync.Mutex // guards the report
	done := int64(0)
	group, ctx := errgroup.WithContext(c.ctx)
	group.SetLimit(workers)
	for _, path := range paths {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			o := c.objects[path]
			n, err := c.verify(path, o)
			mu.Lock()
			defer mu.Unlock()
			done += n
			c.o.Progress(Progress{Phase: PhaseData, Done: done, Total: c.report.Bytes})
			if err == nil || errors.Is(err, fs.ErrNotExist) { // what is missing has been reported
				return nil
			}
			c.revision = o.revision
			return c.problem(o.where, "%v", err)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	c.o.Progress(Progress{Phase: PhaseData, Done: done, Total: c.report.Bytes, Finished: true})
	return c.ctx.Err()
}

// verify reads one object and returns its stored size.
func (c *checker) verify(path string, o *stored) (int64, error) {
	if o.bytes < 0 {
		return 0, fs.ErrNotExist
	}
	n := int64(0)
	err := c.s.get(c.ctx, path, func(r io.Reader) (err error) {
		n, err = cvmfs.CopyVerified(io.Discard, r, o.hash, o.compression, o.size)
		return err
	})
	if err == nil && n != o.size {
		err = fmt.Errorf("object %s has %d bytes, the catalogue says %d: %w", path, n, o.size, cvmfs.ErrCorrupt)
	}
	return o.bytes, err
}
