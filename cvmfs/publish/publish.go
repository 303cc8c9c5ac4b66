package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/history"
	"github.com/micavm/mica/cvmfs/publish/internal/storage"
)

// What callers tell apart.
var (
	ErrNoRepository = errors.New("no such repository")
	ErrExists       = errors.New("exists already")
	ErrSource       = errors.New("cannot be published")
	ErrNoTag        = errors.New("no such tag")
)

// Phase says what is being done.
type Phase string

// The phases, in their order.
const (
	PhaseScan     Phase = "reading tree"        // counts files
	PhaseFiles    Phase = "storing files"       // counts bytes
	PhaseCatalogs Phase = "writing catalogues"  // counts catalogues
	PhaseCommit   Phase = "committing"          // counts nothing
	PhaseCheck    Phase = "checking catalogues" // counts catalogues
	PhaseData     Phase = "checking objects"    // counts bytes
	PhaseSweep    Phase = "sweeping objects"    // counts objects
	PhaseCopy     Phase = "copying objects"     // counts objects
)

// Progress is one sign of life.
type Progress struct {
	Phase    Phase
	Done     int64
	Total    int64 // 0 if not known
	Finished bool
}

// DefaultTTL is how long readers keep a manifest before they ask again.
const DefaultTTL = 4 * time.Minute

// DefaultWhitelistLifetime is how long a whitelist is good for.
const DefaultWhitelistLifetime = 30 * 24 * time.Hour

// Owner is who all files are published as belonging to.
type Owner struct{ UID, GID uint32 }

// Options say what Publish does. Source, Storage, Name and Keys are needed; the
// zero value of the rest is a good default.
type Options struct {
	Source  string    // directory that becomes the root of the repository, or
	Tar     io.Reader // archive that does, as it is or packed by gzip, bzip2, xz or zstd
	Storage string    // the repository is Storage/Name
	Name    string    // fully qualified repository name
	Keys    string    // directory of key files

	Tag          string // name for the new revision
	Description  string // of Tag
	NoGenericTag bool   // no "generic-<time>" tag for the new revision
	TagAge       Age    // "generic-" tags older than this are removed; zero keeps all

	TTL         time.Duration     // 0 keeps that of the revision before
	Algorithm   cvmfs.Algorithm   // of new objects; 0 keeps that of the revision before
	Compression cvmfs.Compression // of new file contents
	External    []string          // paths; of the files there, and below, no content is stored: readers get it elsewhere
	Chunks      ChunkSizes        // zero means 4, 8 and 16 MiB
	NoChunks    bool              // store big files whole
	MaxEntries  int               // of a catalogue before parts are split off; 0 means 5000, negative never
	Xattrs      XattrRules
	Owner       *Owner // nil keeps owners
	CrossMounts bool   // publish what is mounted inside Source too
	Checksum    bool   // read every file, however unchanged it looks

	Workers  int // 0 means one a processor
	Now      func() time.Time
	Stamp    time.Time      // what the revision and its tags are dated; zero means Now
	Progress func(Progress) // may be called from several goroutines, one at a time
	Log      *slog.Logger
}

func (o *Options) complete() error {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Chunks == (ChunkSizes{}) {
		o.Chunks = defaultChunks
	}
	if o.Tag != "" {
		if err := history.CheckTagName(o.Tag); err != nil {
			return err
		}
		if o.Tag == history.Trunk || o.Tag == history.TrunkPrevious {
			return fmt.Errorf("tag %q is kept by every publication: %w", o.Tag, ErrExists)
		}
	}
	if (o.Source == "") == (o.Tar == nil) {
		return fmt.Errorf("a directory or an archive, not both: %w", ErrSource)
	}
	if !o.Compression.Valid() || !o.Algorithm.Valid() {
		return fmt.Errorf("%v, %v: %w", o.Algorithm, o.Compression, errors.ErrUnsupported)
	}
	for _, p := range o.External {
		if !path.IsAbs(p) {
			return fmt.Errorf("external path %q does not begin with a slash: %w", p, ErrSource)
		}
	}
	return o.Chunks.check()
}

// Result says what a publication did.
type Result struct {
	Revision  uint64
	RootHash  cvmfs.Hash
	Tags      []string // set on this revision now
	Expired   []string // tags removed as they were too old
	Unchanged bool     // nothing differs from the revision before, which stays

	Entries                 int64 // files and directories of the revision
	Added, Changed, Removed int64 // of them; of a removed directory only itself is counted
	Read, BytesRead         int64 // files whose content was read
	Objects, BytesStored    int64 // new objects and their stored size
	Catalogs, NewCatalogs   int64
	WhitelistExpires        time.Time
	WhitelistRenewed        bool
	Warnings                []string
}

// Publish makes the tree of Source or Tar the next revision of a repository,
// which must exist (see Create). If the tree is what is published already, no tag
// is asked for and none is too old, nothing changes. Errors wrap ErrNoRepository, ErrExists
// (the tag), ErrSource, ErrKeys, atomicfile's ErrLocked, the errors of package
// cvmfs, or those of the system; after any of them the repository is as it was.
func Publish(ctx context.Context, o Options) (*Result, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("publishing %q: %w", o.Name, err)
	}
	r, err := publish(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("publishing %q: %w", o.Name, err)
	}
	return r, nil
}

func publish(ctx context.Context, o Options) (*Result, error) {
	t, err := begin(ctx, o.Storage, o.Name, o.Keys, o.Now, o.Algorithm)
	if err != nil {
		return nil, err
	}
	defer t.end()
	t.date(o.Stamp)
	if _, exists := t.tag(o.Tag); exists && o.Tag != "" {
		return nil, fmt.Errorf("tag %q: %w", o.Tag, ErrExists)
	}
	base, err := openBase(ctx, t.s, t.g.dir, t.head.RootHash)
	if err != nil {
		return nil, err
	}
	defer base.close()
	result := &Result{}
	sc := &scanner{options: &o, base: base, report: o.Progress}
	var root *node
	if o.Tar != nil {
		root, err = sc.scanTar(ctx, t.g, o.Tar, result)
	} else {
		if sc.root, err = filepath.Abs(o.Source); err != nil {
			return nil, err
		}
		if err := apart(sc.root, t.s.store); err != nil {
			return nil, err
		}
		root, err = sc.scan(ctx, t.g, result)
	}
	if err != nil {
		return nil, err
	}
	if err := sc.missingGrafts(ctx, t.s.store); err != nil {
		return nil, err
	}
	p := t.g.packer(o.Compression)
	if err := p.begin(); err != nil {
		return nil, err
	}
	nothing, err := p.finish()
	if err != nil {
		return nil, err
	}
	sc.empty = nothing.hash
	if err := sc.split(root); err != nil {
		return nil, err
	}
	if sc.marked {
		if err := t.g.keep(ctx, nothing, cvmfs.SuffixNone); err != nil {
			return nil, err
		}
	}
	result.Warnings, result.Removed = sc.warnings, base.removed
	result.countChanges(root)

	ttl := o.TTL
	if ttl == 0 {
		ttl = t.head.TTL
	}
	w := newWriter(t.g, o.Workers, ttl, t.now, result, o.Progress)
	var early errgroup.Group
	early.Go(func() error { return t.g.stage.Advance(ctx) })
	out, err := w.catalogue(ctx, root, "")
	if err := errors.Join(err, early.Wait()); err != nil {
		return nil, err
	}
	o.Progress(Progress{Phase: PhaseCatalogs, Done: w.count, Finished: true})
	result.Entries = out.total.Entries() - out.total.Nested // roots of nested catalogues count twice
	next := *t.head
	next.TTL = ttl
	if out.kept {
		result.Unchanged = true
	} else {
		next.RootHash, next.RootSize, next.Revision = out.hash, out.size, out.revision
	}
	result.Revision, result.RootHash = next.Revision, next.RootHash
	if err := t.retag(&next, o, result); err != nil {
		return nil, err
	}
	o.Progress(Progress{Phase: PhaseCommit})
	if err := t.commit(ctx, next, result); err != nil {
		return nil, err
	}
	o.Progress(Progress{Phase: PhaseCommit, Finished: true})
	for _, warning := range result.Warnings {
		o.Log.Warn(warning)
	}
	return result, nil
}

// apart makes sure that a repository is not published into itself, growing with
// every publication.
func apart(source string, store storage.Store) error {
	local, ok := store.(*storage.Directory)
	if !ok {
		return nil
	}
	repository := local.Dir()
	real := func(path string) string {
		if resolved, err := filepath.EvalSymlinks(path); err == nil {
			return resolved
		}
		return path
	}
	relative, err := filepath.Rel(real(source), real(repository))
	if err == nil && filepath.IsLocal(relative) {
		return fmt.Errorf("source: it contains the repository itself, %s: %w", repository, ErrSource)
	}
	return nil
}

func (r *Result) countChanges(n *node) {
	switch {
	case n.was == nil:
		r.Added++
	case !n.same():
		r.Changed++
	}
	for _, c := range n.children {
		r.countChanges(c)
	}
}

// retag moves the trunk tags to a new revision, sets those asked for, and removes
// those that are too old.
func (t *transaction) retag(next *cvmfs.Manifest, o Options, result *Result) error {
	set := func(name, description string) {
		t.setTag(history.Tag{Name: name, Hash: next.RootHash, Revision: next.Revision, Time: t.now, Description: description, Size: next.RootSize})
		result.Tags = append(result.Tags, name)
	}
	if !result.Unchanged {
		if old, found := t.tag(history.Trunk); found {
			old.Name, old.Description = history.TrunkPrevious, "previous HEAD"
			t.setTag(old)
		}
		set(history.Trunk, "current HEAD")
		if !o.NoGenericTag {
			set(t.genericName(), "")
		}
	}
	if o.Tag != "" {
		set(o.Tag, o.Description)
	}
	for _, old := range Expired(t.tags, o.TagAge, t.now) {
		t.removeTag(old.Name)
		result.Expired = append(result.Expired, old.Name)
	}
	return nil
}

// genericName is a tag that says when.
func (t *transaction) genericName() string {
	stamp := t.now.UTC().Format("2006-01-02T15:04:05Z")
	name := "generic-" + stamp
	for n := 1; ; n++ {
		if _, exists := t.tag(name); !exists {
			return name
		}
		name = "generic_" + strconv.Itoa(n) + "-" + stamp
	}
}

// CreateOptions say what Create does; Storage, Name and Keys are needed.
type CreateOptions struct {
	Storage, Name, Keys string
	TTL                 time.Duration   // 0 means DefaultTTL
	Algorithm           cvmfs.Algorithm // 0 means SHA1, as the original
	Lifetime            time.Duration   // of the whitelist; 0 means DefaultWhitelistLifetime
	Metainfo            []byte          // JSON document; nil means an empty form
	Now                 func() time.Time
	Stamp               time.Time // what the revision is dated; zero means Now
}

// Create makes an empty repository at revision 0. Keys are made if the directory
// has none for this name. It fails with an error wrapping ErrExists if there is
// a repository; what a killed Create left is completed.
func Create(ctx context.Context, o CreateOptions) error {
	if err := create(ctx, o); err != nil {
		return fmt.Errorf("creating repository %q: %w", o.Name, err)
	}
	return nil
}

func create(ctx context.Context, o CreateOptions) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.Algorithm == cvmfs.MD5 {
		o.Algorithm = cvmfs.SHA1
	}
	if o.Lifetime == 0 {
		o.Lifetime = DefaultWhitelistLifetime
	}
	s, err := openStorage(o.Storage, o.Name)
	if err != nil {
		return err
	}
	lock, err := s.store.Lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock() //nolint:errcheck // the kernel frees it
	if _, err := s.file(ctx, cvmfs.ManifestFile); err == nil {
		return ErrExists
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := o.Now().UTC().Truncate(time.Second)
	keys, err := LoadKeys(o.Keys, o.Name)
	if errors.Is(err, fs.ErrNotExist) {
		keys, err = CreateKeys(o.Keys, o.Name, now)
	}
	if err != nil {
		return err
	}
	g, err := s.stage(ctx, o.Algorithm)
	if err != nil {
		return err
	}
	defer g.discard()
	t := &transaction{s: s, g: g, keys: keys, lock: lock, now: now, clock: o.Now, head: &cvmfs.Manifest{Name: o.Name}}
	t.date(o.Stamp)
	if err := t.renewWhitelist(ctx, o.Lifetime, keys.fingerprint()); err != nil {
		return err
	}
	root := &node{}
	root.entry.Mode, root.entry.Size, root.entry.Nlink, root.entry.MTime, root.entry.MTimeNS = 0o40755, dirSize, 2, t.now.Unix(), -1
	out, err := newWriter(g, 1, o.TTL, t.now, &Result{}, func(Progress) {}).first(ctx, root)
	if err != nil {
		return err
	}
	metainfo := o.Metainfo
	if metainfo == nil {
		metainfo = []byte(emptyMetainfo)
	}
	next := cvmfs.Manifest{Name: o.Name, RootHash: out.hash, RootSize: out.size, TTL: o.TTL, GarbageCollectable: true}
	if next.Metainfo, err = g.putBytes(ctx, metainfo, cvmfs.SuffixMetainfo); err != nil {
		return err
	}
	if err := s.markReplicable(ctx); err != nil {
		return err
	}
	return t.commit(ctx, next, &Result{})
}

// masterReplica is the file that lets replicas copy a repository.
const masterReplica = ".cvmfs_master_replica"

func (s *repository) markReplicable(ctx context.Context) error {
	return s.store.Replace(ctx, masterReplica, []byte("This file marks the repository as one that may be replicated.\n"))
}

// first writes the catalogue of revision 0.
func (w *writer) first(ctx context.Context, root *node) (written, error) {
	r := &region{}
	r.collect(root, "", true)
	return w.writeRevision(ctx, r, root, "", 0)
}

const emptyMetainfo = `{
  "administrator": "",
  "email": "",
  "organisation": "",
  "description": "",
  "url": "",
  "recommended-stratum0": "",
  "recommended-stratum1s": [],
  "custom": {}
}
`
