package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/history"
	"github.com/micavm/mica/cvmfs/publish/internal/storage"
)

// transaction is one change of a repository, under its lock.
type transaction struct {
	s     *repository
	g     *staging
	keys  *Keys
	lock  storage.Lock
	now   time.Time // what is dated is dated this, whole seconds
	clock func() time.Time
	head  *cvmfs.Manifest // what is published

	published []byte // the file of head, signed; nil if there is none

	tags      []history.Tag
	tagsDirty bool
	reflog    *reflog
	whitelist *cvmfs.Whitelist
}

// begin locks a repository and verifies what is published with the keys.
func begin(ctx context.Context, root, name, keyDir string, clock func() time.Time, a cvmfs.Algorithm) (*transaction, error) {
	s, err := openStorage(root, name)
	if err != nil {
		return nil, err
	}
	if err := s.exists(ctx); err != nil {
		return nil, err
	}
	keys, err := LoadKeys(keyDir, name)
	if err != nil {
		return nil, err
	}
	lock, err := s.store.Lock(ctx)
	if err != nil {
		return nil, err
	}
	t := &transaction{s: s, keys: keys, lock: lock, now: clock().UTC().Truncate(time.Second), clock: clock}
	if err := t.open(ctx, a); err != nil {
		t.end()
		return nil, err
	}
	return t, nil
}

// open reads what is published and prepares for objects hashed by a, or as
// before where a is zero.
func (t *transaction) open(ctx context.Context, a cvmfs.Algorithm) (err error) {
	if err := t.readHead(ctx); err != nil {
		return err
	}
	if a == cvmfs.MD5 {
		a = t.head.RootHash.Algorithm
	}
	if t.g, err = t.s.stage(ctx, a); err != nil {
		return err
	}
	if err := t.readTags(ctx); err != nil {
		return err
	}
	if err := t.s.settleReflog(ctx, t.head); err != nil {
		return err
	}
	t.reflog, err = t.readReflog(ctx)
	return err
}

// date sets what the new revision is dated, unless it is zero. Signatures go by
// the clock all the same: a whitelist of the past would be of no use.
func (t *transaction) date(stamp time.Time) {
	if !stamp.IsZero() {
		t.now = stamp.UTC().Truncate(time.Second)
	}
}

// end removes what was staged and frees the repository.
func (t *transaction) end() {
	if t.g != nil {
		t.g.discard()
	}
	_ = t.lock.Unlock() // the kernel frees it
}

// readHead verifies the published manifest. A whitelist that has ended does
// not matter to somebody who can sign a new one.
func (t *transaction) readHead(ctx context.Context) error {
	manifest, err := t.s.file(ctx, cvmfs.ManifestFile)
	if err != nil {
		return err
	}
	parsed, err := cvmfs.ParseManifest(manifest)
	if err != nil {
		return err
	}
	certificate, err := t.s.read(ctx, parsed.Certificate, cvmfs.SuffixCertificate, maxSmall)
	if err != nil {
		return fmt.Errorf("reading certificate: %w", err)
	}
	whitelist, err := t.s.file(ctx, cvmfs.WhitelistFile)
	if err != nil {
		return err
	}
	clock := t.clock
	if t.keys.Master != nil {
		if list, err := cvmfs.ParseWhitelist(whitelist); err == nil && !clock().Before(list.Expires) {
			clock = func() time.Time { return list.Expires.Add(-time.Second) }
		}
	}
	if t.head, err = t.keys.trust(clock).Verify(manifest, whitelist, certificate); err != nil {
		return err
	}
	t.published = manifest
	t.whitelist, err = cvmfs.ParseWhitelist(whitelist)
	return err
}

// maxSmall bounds certificates and metainfo documents.
const maxSmall = 1 << 20

func (t *transaction) readTags(ctx context.Context) error {
	if t.head.History.IsZero() {
		return nil
	}
	file, err := t.s.unpack(ctx, t.g.dir, t.head.History, cvmfs.SuffixHistory)
	if err != nil {
		return fmt.Errorf("reading history: %w", err)
	}
	defer os.Remove(file) //nolint:errcheck // it lies in the staging area
	h, err := history.Open(file)
	if err != nil {
		return err
	}
	if h.Name() != t.head.Name {
		return fmt.Errorf("history of %q: %w", h.Name(), cvmfs.ErrWrongName)
	}
	t.tags = h.Tags()
	return nil
}

func (t *transaction) tag(name string) (history.Tag, bool) {
	i := slices.IndexFunc(t.tags, func(tag history.Tag) bool { return tag.Name == name })
	if i < 0 {
		return history.Tag{}, false
	}
	return t.tags[i], true
}

func (t *transaction) setTag(tag history.Tag) {
	t.removeTag(tag.Name)
	t.tags = append(t.tags, tag)
	t.tagsDirty = true
}

func (t *transaction) removeTag(name string) bool {
	before := len(t.tags)
	t.tags = slices.DeleteFunc(t.tags, func(tag history.Tag) bool { return tag.Name == name })
	t.tagsDirty = t.tagsDirty || len(t.tags) != before
	return len(t.tags) != before
}

// commit publishes next: objects, whitelist if it wears out, the new reflog
// aside, the manifest, and with that done the reflog under its name. If nothing changed at all it leaves
// all of that alone.
func (t *transaction) commit(ctx context.Context, next cvmfs.Manifest, result *Result) error {
	if err := t.refresh(ctx, result); err != nil {
		return err
	}
	if next == *t.head && !t.tagsDirty {
		// What an unchanged tree brings are objects the repository has lost.
		result.Objects, result.BytesStored = int64(len(t.g.names)), t.g.stored
		return t.g.commit(ctx)
	}
	if err := t.complete(ctx, &next); err != nil {
		return err
	}
	file, err := t.writeReflog(next)
	if err != nil {
		return err
	}
	if err := t.g.commit(ctx); err != nil {
		return err
	}
	result.Objects, result.BytesStored = int64(len(t.g.names)), t.g.stored
	if err := t.lock.Held(); err != nil {
		return err
	}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		next.Reflog = t.g.algorithm.Sum(data)
		if err := t.s.store.Replace(ctx, nextReflog, data); err != nil {
			return err
		}
	}
	if err := t.publishManifest(ctx, next); err != nil {
		return err
	}
	return t.s.settleReflog(ctx, t.head)
}

// complete stores the objects a manifest names besides its catalogue.
func (t *transaction) complete(ctx context.Context, next *cvmfs.Manifest) error {
	var err error
	if next.Certificate, err = t.g.putBytes(ctx, t.keys.Certificate, cvmfs.SuffixCertificate); err != nil {
		return err
	}
	// All hashes of a manifest have one algorithm; a new one takes its old
	// documents along.
	if m := next.Metainfo; !m.IsZero() && m.Algorithm != next.RootHash.Algorithm {
		data, err := t.s.read(ctx, m, cvmfs.SuffixMetainfo, maxSmall)
		if err != nil {
			return fmt.Errorf("reading metainfo: %w", err)
		}
		if next.Metainfo, err = t.g.putBytes(ctx, data, cvmfs.SuffixMetainfo); err != nil {
			return err
		}
	}
	if t.tagsDirty || !next.History.IsZero() && next.History.Algorithm != next.RootHash.Algorithm {
		file := filepath.Join(t.g.dir, "history")
		if err := history.Write(file, t.keys.Name, t.head.History, t.tags); err != nil {
			return err
		}
		if next.History, err = t.g.putFile(ctx, file, cvmfs.SuffixHistory); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	next.Published = t.now
	return nil
}

// previousManifest keeps the manifest before, for recovery by hand.
const previousManifest = ".cvmfspublished.prev"

// publishManifest signs, reads back, verifies and replaces the manifest.
func (t *transaction) publishManifest(ctx context.Context, next cvmfs.Manifest) error {
	data, err := next.Sign(t.keys.Repository)
	if err != nil {
		return err
	}
	whitelist, err := t.s.file(ctx, cvmfs.WhitelistFile)
	if err != nil {
		return err
	}
	if _, err := t.keys.trust(t.clock).Verify(data, whitelist, t.keys.Certificate); err != nil {
		return fmt.Errorf("not published, readers would refuse it: %w", err)
	}
	if t.published != nil {
		if err := t.s.store.Replace(ctx, previousManifest, t.published); err != nil {
			return err
		}
	}
	if err := t.s.store.Replace(ctx, cvmfs.ManifestFile, data); err != nil {
		return err
	}
	t.head, t.published = &next, data
	return nil
}

// refresh signs the whitelist anew when it has used up half its life.
func (t *transaction) refresh(ctx context.Context, result *Result) error {
	w := t.whitelist
	if w == nil {
		return nil
	}
	if !slices.ContainsFunc(w.Fingerprints, func(f cvmfs.Hash) bool { return cvmfs.Fingerprint(f.Algorithm, t.keys.der()) == f }) {
		return fmt.Errorf("%w: the whitelist does not have the certificate of %q, sign it anew first", ErrKeys, t.keys.Name)
	}
	if life := w.Expires.Sub(w.Issued); t.keys.Master != nil && t.clock().After(w.Issued.Add(life/2)) {
		if err := t.renewWhitelist(ctx, life, t.keys.fingerprint()); err != nil {
			return err
		}
		result.WhitelistRenewed = true
	}
	result.WhitelistExpires = t.whitelist.Expires
	return nil
}

// renewWhitelist signs a whitelist, verifies it as a reader would, and replaces
// the old one.
func (t *transaction) renewWhitelist(ctx context.Context, life time.Duration, fingerprints ...cvmfs.Hash) error {
	if t.keys.Master == nil {
		return fmt.Errorf("%w: the master key of %q is not here", ErrKeys, t.keys.Name)
	}
	if life <= 0 {
		return fmt.Errorf("a whitelist for %v: %w", life, errors.ErrUnsupported)
	}
	now := t.clock().UTC().Truncate(time.Second)
	w := &cvmfs.Whitelist{
		Issued: now, Expires: now.Add(life), Name: t.keys.Name,
		Fingerprints: fingerprints, Algorithm: cvmfs.SHA1,
	}
	data, err := w.Sign(t.keys.Master)
	if err != nil {
		return err
	}
	checked, err := t.keys.trust(t.clock).VerifyWhitelist(data)
	if err != nil {
		return fmt.Errorf("whitelist not written, readers would refuse it: %w", err)
	}
	if err := t.s.store.Replace(ctx, cvmfs.WhitelistFile, data); err != nil {
		return err
	}
	t.whitelist = checked
	return nil
}

// reference is an object the reflog knows.
type reference struct {
	hash cvmfs.Hash
	kind int64
	time int64
}

// Kinds of references.
const (
	refCatalog     = 0
	refCertificate = 1
	refHistory     = 2
	refMetainfo    = 3
)

// reflog is the list of everything that was ever published.
type reflog struct{ refs map[cvmfs.Hash]reference }

func (l *reflog) add(h cvmfs.Hash, kind int64, at time.Time) {
	if _, known := l.refs[h]; !known && !h.IsZero() {
		l.refs[h] = reference{h, kind, at.Unix()}
	}
}

func (l *reflog) sorted() []reference {
	list := make([]reference, 0, len(l.refs))
	for _, r := range l.refs {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b reference) int {
		return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.kind, b.kind), strings.Compare(a.hash.String(), b.hash.String()))
	})
	return list
}

// writeReflog writes the reflog with what next adds, and returns the file.
func (t *transaction) writeReflog(next cvmfs.Manifest) (string, error) {
	if t.reflog == nil {
		t.reflog = &reflog{refs: make(map[cvmfs.Hash]reference)}
	}
	t.reflog.add(next.RootHash, refCatalog, t.now)
	t.reflog.add(next.Certificate, refCertificate, t.now)
	t.reflog.add(next.History, refHistory, t.now)
	t.reflog.add(next.Metainfo, refMetainfo, t.now)
	file := filepath.Join(t.g.dir, "reflog")
	return file, t.reflog.write(file, t.keys.Name)
}
