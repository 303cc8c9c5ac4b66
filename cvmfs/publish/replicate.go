package publish

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/history"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/publish/internal/storage"
)

// What callers of Replicate tell apart, besides the errors of package cvmfs.
var (
	ErrNoReplica  = errors.New("the source does not let itself be replicated")
	ErrRollback   = errors.New("the source is older than the replica")
	ErrIncomplete = errors.New("the source is not complete")
	ErrOther      = errors.New("the source is a repository of another name")
)

// ReplicateOptions say what Replicate does. Source, Storage, Name and MasterKeys
// are needed.
type ReplicateOptions struct {
	Source        string // URL or directory of a repository
	Storage, Name string
	MasterKeys    []*rsa.PublicKey
	History       int  // how many untagged revisions before the published one are copied
	Unmarked      bool // copy although the source has no file that permits it
	Recheck       bool // look for the objects of catalogues that are here already, too
	Workers       int
	Now           func() time.Time
	Progress      func(Progress)
	Log           *slog.Logger

	trustAt func() time.Time // the clock whitelists are held to; nil means Now
}

func (o *ReplicateOptions) complete() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.trustAt == nil {
		o.trustAt = o.Now
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Replicated says what Replicate did.
type Replicated struct {
	Revision         uint64
	RootHash         cvmfs.Hash
	Unchanged        bool // the replica had this manifest
	Tags             int
	Catalogs         int64 // copied
	Objects          int64 // copied, of any kind
	Bytes            int64 // of them, as stored
	WhitelistExpires time.Time
	Warnings         []string
}

// Names of files that tell how far a replica is.
const (
	lastSnapshot   = ".cvmfs_last_snapshot"
	isSnapshotting = ".cvmfs_is_snapshotting"
	statusFile     = ".cvmfs_status.json"
)

// Replicate makes Storage/Name a copy of the source as it is published there: the
// present revision, every tagged one, and with History those before. Everything
// is verified on its way. What is here already is not copied again, so that a
// replication that was cut short goes on where it ended; a catalogue is stored
// after all it refers to, and the manifest last, so that readers of the replica
// never see a revision that is not whole.
//
// Objects the source does not have, or has damaged, are named in an error that
// wraps ErrIncomplete; the replica then keeps the manifest it had.
func Replicate(ctx context.Context, o ReplicateOptions) (*Replicated, error) {
	o.complete()
	r, err := replicate(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("replicating %q: %w", o.Name, err)
	}
	return r, nil
}

// signed are the files a revision is trusted by.
type signed struct {
	manifest, whitelist, certificate []byte
	m                                *cvmfs.Manifest
	expires                          time.Time
}

func replicate(ctx context.Context, o ReplicateOptions) (*Replicated, error) {
	from, name, err := storage.OpenSource(o.Source)
	if err != nil {
		return nil, err
	}
	if server, ok := from.(*storage.Server); ok {
		defer server.Close()
	}
	if name != o.Name {
		return nil, fmt.Errorf("%w: %s is %q", ErrOther, from, name)
	}
	if !o.Unmarked {
		if _, err := rootFile(ctx, from, masterReplica); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%s has no %s: %w", from, masterReplica, ErrNoReplica)
			}
			return nil, err
		}
	}
	head, err := readSigned(ctx, from, cvmfs.Trust{Name: o.Name, MasterKeys: o.MasterKeys, Now: o.trustAt})
	if err != nil {
		return nil, err
	}
	s, err := openStorage(o.Storage, o.Name)
	if err != nil {
		return nil, err
	}
	lock, err := s.store.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock() //nolint:errcheck // it ends by itself
	r := &replicator{ctx: ctx, o: o, from: from, s: s, lock: lock, head: head, result: &Replicated{
		Revision: head.m.Revision, RootHash: head.m.RootHash, WhitelistExpires: head.expires,
	}}
	if err := r.run(); err != nil {
		return nil, err
	}
	return r.result, nil
}

// readSigned gets and verifies the published revision.
func readSigned(ctx context.Context, from storage.Source, trust cvmfs.Trust) (*signed, error) {
	var h signed
	var err error
	if h.manifest, err = rootFile(ctx, from, cvmfs.ManifestFile); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w at %s", ErrNoRepository, from)
		}
		return nil, err
	}
	parsed, err := cvmfs.ParseManifest(h.manifest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	if parsed.Certificate.IsZero() {
		return nil, fmt.Errorf("manifest: no certificate: %w", cvmfs.ErrMalformed)
	}
	if h.whitelist, err = rootFile(ctx, from, cvmfs.WhitelistFile); err != nil {
		return nil, err
	}
	var certificate bytes.Buffer
	err = get(ctx, from, parsed.Certificate.ObjectPath(cvmfs.SuffixCertificate), func(r io.Reader) error {
		certificate.Reset()
		_, err := cvmfs.CopyVerified(&certificate, r, parsed.Certificate, cvmfs.Zlib, maxSmall)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading certificate: %w", err)
	}
	h.certificate = certificate.Bytes()
	if h.m, err = trust.Verify(h.manifest, h.whitelist, h.certificate); err != nil {
		return nil, err
	}
	w, err := cvmfs.ParseWhitelist(h.whitelist)
	if err != nil {
		return nil, err
	}
	h.expires = w.Expires
	return &h, nil
}

// replicator is one replication, under the lock of the replica.
type replicator struct {
	ctx    context.Context //nolint:containedctx // of the one replication it lives for
	o      ReplicateOptions
	from   storage.Source
	s      *repository
	lock   storage.Lock
	head   *signed
	result *Replicated
}

func (r *replicator) run() (err error) {
	had, err := r.s.file(r.ctx, cvmfs.ManifestFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := r.forward(had); err != nil {
			return err
		}
		r.result.Unchanged = bytes.Equal(had, r.head.manifest)
	}
	stage, err := r.s.store.Stage(r.ctx)
	if err != nil {
		return err
	}
	defer stage.Discard()
	stamp := r.o.Now().UTC().Format(time.UnixDate) + "\n" // as date(1) writes it
	if err := r.s.store.Replace(r.ctx, isSnapshotting, []byte(stamp)); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), 30*time.Second)
		defer cancel()
		if rerr := r.s.store.Remove(ctx, []string{isSnapshotting}, func(int) {}); err == nil {
			err = rerr
		}
	}()
	if !r.result.Unchanged || r.o.Recheck || r.o.History > 0 {
		if err := r.content(stage); err != nil {
			return err
		}
	}
	return r.announce()
}

// forward makes sure that the replica does not go back.
func (r *replicator) forward(had []byte) error {
	old, err := cvmfs.ParseManifest(had)
	if err != nil {
		return fmt.Errorf("the replica's: %w", err)
	}
	if old.Name != r.o.Name {
		return fmt.Errorf("the replica is of %q: %w", old.Name, cvmfs.ErrWrongName)
	}
	m := r.head.m
	if old.Revision > m.Revision || old.Revision == m.Revision && old.Published.After(m.Published) {
		return fmt.Errorf("revision %d of %s, here is %d of %s: %w", m.Revision, m.Published.Format(time.RFC3339), old.Revision, old.Published.Format(time.RFC3339), ErrRollback)
	}
	return nil
}

// content copies everything the manifest refers to.
func (r *replicator) content(stage storage.Stage) error {
	c := newCopier(r, stage)
	defer c.end()
	tags, err := r.tags(c)
	if err != nil {
		return err
	}
	r.result.Tags = len(tags)
	if err := c.revision(r.head.m.RootHash, r.o.History); err != nil {
		return err
	}
	for _, tag := range tags {
		if err := c.revision(tag.Hash, 0); err != nil {
			return fmt.Errorf("tag %q: %w", tag.Name, err)
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	for _, o := range []job{
		{hash: r.head.m.Certificate, suffix: cvmfs.SuffixCertificate, limit: maxSmall, where: "certificate"},
		{hash: r.head.m.Metainfo, suffix: cvmfs.SuffixMetainfo, limit: maxSmall, where: "metainfo"},
		{hash: r.head.m.History, suffix: cvmfs.SuffixHistory, limit: maxDatabase, where: "history"},
	} {
		if !o.hash.IsZero() {
			c.queue(o)
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	r.o.Progress(Progress{Phase: PhaseCopy, Done: r.result.Objects, Finished: true})
	return c.incomplete()
}

// tags reads the history of the source.
func (r *replicator) tags(c *copier) ([]history.Tag, error) {
	if r.head.m.History.IsZero() {
		return nil, nil
	}
	file, err := unpackFrom(r.ctx, r.from, c.stage.Dir(), r.head.m.History, cvmfs.SuffixHistory)
	if err != nil {
		return nil, fmt.Errorf("reading history: %w", err)
	}
	defer removeQuietly(file)
	h, err := history.Open(file)
	if err != nil {
		return nil, err
	}
	if h.Name() != r.o.Name {
		return nil, fmt.Errorf("history of %q: %w", h.Name(), cvmfs.ErrWrongName)
	}
	return h.Tags(), nil
}

// announce makes the revision that has been copied the one that is served.
func (r *replicator) announce() error {
	if err := r.lock.Held(); err != nil {
		return err
	}
	store := r.s.store
	if !r.result.Unchanged {
		if err := r.reflog(); err != nil {
			return err
		}
	}
	if had, err := r.s.file(r.ctx, cvmfs.WhitelistFile); err != nil || !bytes.Equal(had, r.head.whitelist) {
		if err := store.Replace(r.ctx, cvmfs.WhitelistFile, r.head.whitelist); err != nil {
			return err
		}
	}
	if !r.result.Unchanged {
		if err := store.Replace(r.ctx, cvmfs.ManifestFile, r.head.manifest); err != nil {
			return err
		}
	}
	if err := r.s.settleReflog(r.ctx, r.head.m); err != nil {
		return err
	}
	if err := r.profile(); err != nil {
		return err
	}
	stamp := r.o.Now().UTC().Format(time.UnixDate)
	if err := store.Replace(r.ctx, lastSnapshot, []byte(stamp+"\n")); err != nil {
		return err
	}
	return r.status(stamp)
}

// reflog takes over the reference log, beside the old one until the manifest is
// there. The manifest names it by its hash, unless garbage collection by the
// original has changed it since.
func (r *replicator) reflog() error {
	data, err := rootFile(r.ctx, r.from, cvmfs.ReflogFile)
	if errors.Is(err, fs.ErrNotExist) {
		if !r.head.m.Reflog.IsZero() {
			r.warn("the source has no reference log")
		}
		return nil
	}
	if err != nil {
		return err
	}
	want := r.head.m.Reflog
	if want.IsZero() || want.Algorithm.Sum(data) != want {
		r.warn("the reference log of the source is not the one its manifest names")
		return r.s.store.Replace(r.ctx, cvmfs.ReflogFile, data)
	}
	return r.s.store.Replace(r.ctx, nextReflog, data)
}

// profile takes over the profile that lies beside the manifest, and takes away
// one that the source has no more. Readers do without where there is none, so
// that a source that does not give it, or has a bad one, is no reason to stop.
func (r *replicator) profile() error {
	data, err := rootFile(r.ctx, r.from, profile.Name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := r.s.store.Stat(r.ctx, profile.Name); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return r.s.store.Remove(r.ctx, []string{profile.Name}, func(int) {})
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	var p *profile.Profile
	if err == nil {
		var text []byte
		if text, err = cvmfs.VerifyText(data, r.head.certificate); err == nil {
			p, err = profile.Parse(text)
		}
	}
	if err != nil || p.Repository != r.o.Name {
		r.warn("the profile of the source is not copied: it cannot be had, or is none of this repository")
		return nil
	}
	return r.s.store.Replace(r.ctx, profile.Name, data)
}

// noteExternal warns of files whose content a replica does not get: it is in no
// repository.
func (r *replicator) noteExternal(root *catalog.Catalog) error {
	self, below, err := root.ReadCounters()
	if n := self.Plus(below).External; err == nil && n > 0 {
		r.warn(fmt.Sprintf("the content of %d external files is not copied: readers of the replica get it where those of the source do", n))
	}
	return err
}

func (r *replicator) warn(text string) {
	r.result.Warnings = append(r.result.Warnings, text)
	r.o.Log.Warn(text, "source", r.from.String())
}

// status notes the date beside whatever else the status file has.
func (r *replicator) status(stamp string) error {
	status := make(map[string]any)
	data, err := r.s.file(r.ctx, statusFile)
	if err == nil && json.Unmarshal(data, &status) != nil {
		status = make(map[string]any)
	}
	status["last_snapshot"] = stamp
	if data, err = json.Marshal(status); err != nil {
		return err
	}
	return r.s.store.Replace(r.ctx, statusFile, append(data, '\n'))
}
